"""GET /health: whether the process answers and its database does."""

from collections.abc import Awaitable, Callable

from ranvier.http.endpoint import Api, Auth, Rate, endpoint
from ranvier.http.request import Request


class Health:
    """For load balancers and supervisors."""

    def __init__(self, probe: Callable[[], Awaitable[None]]) -> None:
        """`probe` asks the database something; it raises ServerFault when that fails."""
        self._probe = probe

    @endpoint("GET", "/health", operation="health", auth=Auth.NONE, api=Api.ALWAYS, rate=Rate.NONE)
    async def health(self, _request: Request) -> dict[str, str]:
        await self._probe()
        return {"status": "ok"}
