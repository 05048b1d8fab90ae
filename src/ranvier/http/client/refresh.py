"""Going on with a session. Spec: client-server API, "Refreshing access tokens"."""

import msgspec

from ranvier.http.endpoint import Auth, Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.accounts.refreshing import Refreshed, Refreshing


class RefreshBody(msgspec.Struct, frozen=True):
    refresh_token: str


class Refresh:
    """POST /refresh."""

    def __init__(self, refreshing: Refreshing) -> None:
        self._refreshing = refreshing

    @endpoint("POST", "/_matrix/client/v3/refresh", operation="refresh", auth=Auth.NONE, rate=Rate.WRITE)
    async def refresh(self, request: Request) -> Refreshed:
        return await self._refreshing.refresh(request.body(RefreshBody).refresh_token)
