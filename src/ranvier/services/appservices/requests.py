"""Requests to application services.

Spec: application service API, "Homeserver -> Application Service API": "Authorisation", "Legacy routes".
"""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec

from ranvier.core.appservices.registration import Registration
from ranvier.core.canonical_json import parse_json
from ranvier.core.errors import BadJson
from ranvier.io.clock import Clock
from ranvier.io.ports import HttpClient, HttpRequest, HttpResponse, Misbehaved

MAX_ANSWER_BYTES: Final = 1_048_576

LEGACY_S: Final = 3_600.0
"""How long a service that answered on old paths alone is asked there first."""

_CURRENT: Final = "/_matrix/app/v1"


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One request. The paths begin with a slash, and are percent-encoded."""

    method: str
    path: str  # below /_matrix/app/v1
    legacy_path: str | None = None  # what it was called before; None: it was not there
    query: Mapping[str, str] = {}
    body: bytes | None = None
    timeout_s: float


class Refused(Misbehaved):
    """The service answered, but not with success."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"the application service answered {status}")
        self.status = status
        self.body = body


class AppserviceRequests:
    """Asks services, on the paths that they know."""

    def __init__(self, http: HttpClient, clock: Clock) -> None:
        """`http`: may reach any address, for administrators name the services."""
        self._http = http
        self._clock = clock
        self._modern: set[str] = set()  # services that took something on a current path
        self._legacy_until: dict[str, float] = {}

    async def fetch(self, service: Registration, ask: Ask) -> bytes:
        """What the service answered with success.

        Raises: Refused, with its answer on the current path; RemoteFault.
        """
        can_be_old = ask.legacy_path is not None and service.id not in self._modern
        if can_be_old and self._legacy_until.get(service.id, 0.0) > self._clock.monotonic():
            old = await self._send(service, ask, is_legacy=True)
            if _is_success(old):
                return old.body
        answer = await self._send(service, ask, is_legacy=False)
        if _is_success(answer):
            self._modern.add(service.id)
            return answer.body
        if can_be_old:
            old = await self._send(service, ask, is_legacy=True)
            if _is_success(old):
                self._legacy_until[service.id] = self._clock.monotonic() + LEGACY_S
                return old.body
        raise Refused(answer.status, answer.body)

    async def fetch_json(self, service: Registration, ask: Ask) -> Any:
        """The answer decoded. Raises: as `fetch`; Misbehaved when it is not JSON."""
        try:
            return parse_json(await self.fetch(service, ask))
        except BadJson as error:
            raise Misbehaved(f"the application service {service.id} answered what is not JSON") from error

    async def _send(self, service: Registration, ask: Ask, *, is_legacy: bool) -> HttpResponse:
        path, query = f"{_CURRENT}{ask.path}", dict(ask.query)
        if is_legacy:
            path = str(ask.legacy_path)
            # COMPAT: before v1.4 the token stood in the query.
            query["access_token"] = service.hs_token
        return await self._http.send(
            HttpRequest(
                method=ask.method,
                url=f"{service.url}{path}" + (f"?{urlencode(query, quote_via=quote)}" if query else ""),
                headers={
                    "Authorization": f"Bearer {service.hs_token}",
                    "Content-Type": "application/json",
                },
                body=ask.body,
                timeout_s=ask.timeout_s,
                max_response_bytes=MAX_ANSWER_BYTES,
            )
        )


def path_of(*segments: str) -> str:
    """A path from its segments, percent-encoded."""
    return "".join(f"/{quote(segment, safe='')}" for segment in segments)


def _is_success(response: HttpResponse) -> bool:
    return response.status // 100 == 2
