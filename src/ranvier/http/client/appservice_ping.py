"""Application services that ask whether they can be reached. Spec: application service API, "Pinging"."""

import msgspec

from ranvier.http.endpoint import Auth, Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.appservices.pinging import Pinging


class PingBody(msgspec.Struct, frozen=True):
    transaction_id: str | None = None


class PingAnswer(msgspec.Struct, frozen=True):
    duration_ms: int


class AppservicePing:
    """POST /appservice/{appserviceId}/ping."""

    def __init__(self, pinging: Pinging) -> None:
        self._pinging = pinging

    @endpoint(
        "POST",
        "/_matrix/client/v1/appservice/{appserviceId}/ping",
        # COMPAT: MSC2659 before v1.7.
        "/_matrix/client/unstable/fi.mau.msc2659/appservice/{appserviceId}/ping",
        operation="pingAppservice",
        auth=Auth.APPSERVICE,
        rate=Rate.WRITE,
    )
    async def ping_appservice(self, request: Request) -> PingAnswer:
        transaction_id = request.body(PingBody, empty_is_object=True).transaction_id
        duration_ms = await self._pinging.ping(
            request.requester, request.path["appserviceId"], transaction_id
        )
        return PingAnswer(duration_ms)
