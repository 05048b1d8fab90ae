"""Logging out. Spec: client-server API, "Logout"."""

from ranvier.http.endpoint import Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.accounts.logout import Logout as LogoutService


class Logout:
    """The endpoints below /logout."""

    def __init__(self, logout: LogoutService) -> None:
        self._logout = logout

    @endpoint(
        "POST", "/_matrix/client/v3/logout", operation="logout", rate=Rate.WRITE, guests=True, locked=True
    )
    async def logout(self, request: Request) -> dict[str, object]:
        await self._logout.this_session(request.requester)
        return {}

    @endpoint(
        "POST",
        "/_matrix/client/v3/logout/all",
        operation="logout_all",
        rate=Rate.WRITE,
        guests=True,
        locked=True,
    )
    async def logout_all(self, request: Request) -> dict[str, object]:
        await self._logout.all_sessions(request.requester)
        return {}
