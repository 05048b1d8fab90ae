"""Who asks. Spec: client-server API, "Current account information"."""

import msgspec

from ranvier.http.endpoint import endpoint
from ranvier.http.request import Request


class WhoamiAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    user_id: str
    device_id: str | None = None
    is_guest: bool | None = None


class Whoami:
    """GET /account/whoami."""

    @endpoint("GET", "/_matrix/client/v3/account/whoami", operation="getTokenOwner", guests=True)
    async def get_token_owner(self, request: Request) -> WhoamiAnswer:
        requester = request.requester
        return WhoamiAnswer(requester.user_id, requester.device_id, is_guest=requester.is_guest)
