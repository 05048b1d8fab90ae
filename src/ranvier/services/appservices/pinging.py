"""Whether the homeserver can reach an application service. Spec: application service API, "Pinging"."""

from collections.abc import Callable
from typing import Final

import orjson

from ranvier.core.errors import BadStatus, ConnectionFailed, ConnectionTimeout, Forbidden, UrlNotSet
from ranvier.io.clock import Clock
from ranvier.io.ports import RemoteFault, TimedOut
from ranvier.services.appservices.registry import Appservices
from ranvier.services.appservices.requests import AppserviceRequests, Ask, Refused
from ranvier.services.requester import Requester

TIMEOUT_S: Final = 10.0
MAX_SHOWN_BYTES: Final = 10_000
"""Of an answer that is passed on."""


class Pinging:
    """Pings a service because it asks for it."""

    def __init__(
        self,
        appservices: Appservices,
        requests: AppserviceRequests,
        clock: Clock,
        reached: Callable[[str], None],
    ) -> None:
        """`reached` hears the id of each service that answered."""
        self._appservices = appservices
        self._requests = requests
        self._clock = clock
        self._reached = reached

    async def ping(self, requester: Requester, appservice_id: str, transaction_id: str | None) -> int:
        """How long it took, in ms.

        Raises: Forbidden (another service), UrlNotSet, BadStatus, ConnectionFailed, ConnectionTimeout.
        """
        service = self._appservices.find(appservice_id)
        if service is None or requester.appservice_id != service.id:
            raise Forbidden("This is the token of another application service.")
        if service.url is None:
            raise UrlNotSet("The application service has no URL.")
        body = {} if transaction_id is None else {"transaction_id": transaction_id}
        ask = Ask(method="POST", path="/ping", body=orjson.dumps(body), timeout_s=TIMEOUT_S)
        started = self._clock.monotonic()
        try:
            await self._requests.fetch(service, ask)
        except Refused as refused:
            raise BadStatus(
                f"The application service answered {refused.status}.",
                status=refused.status,
                body=refused.body[:MAX_SHOWN_BYTES].decode(errors="replace"),
            ) from refused
        except TimedOut as fault:
            raise ConnectionTimeout("The application service took too long.") from fault
        except RemoteFault as fault:
            raise ConnectionFailed("The application service cannot be reached.") from fault
        self._reached(service.id)
        return round((self._clock.monotonic() - started) * 1000)
