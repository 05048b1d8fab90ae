"""POST /_matrix/client/v3/sync. GET on the same path is the classic sync."""

from typing import Any, Final, Protocol

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import MissingToken
from ranvier.historical.sync_v3.port import Viewer
from ranvier.http.endpoint import Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.requester import Requester

MAX_TIMEOUT_MS: Final = 10 * 60 * 1000
MAX_BODY_BYTES: Final = 65_536


class Engine(Protocol):
    """What answers."""

    async def sync(
        self, viewer: Viewer, since: str | None, body: JsonObject, timeout_ms: int
    ) -> dict[str, Any]: ...


class Viewers(Protocol):
    """Who a requester is to the engine's source."""

    def __call__(self, requester: Requester) -> Viewer: ...


class SyncV3Endpoint:
    """The endpoint, natively and in the proxy."""

    def __init__(self, engine: Engine, viewers: Viewers) -> None:
        self._engine = engine
        self._viewers = viewers

    @endpoint(
        "POST",
        "/_matrix/client/v3/sync",
        operation="syncV3of2021",
        rate=Rate.READ,
        guests=True,
        max_body_bytes=MAX_BODY_BYTES,
    )
    async def sync(self, request: Request) -> dict[str, Any]:
        if "authorization" not in request.headers:
            raise MissingToken("The access token belongs into the Authorization header.")
        query = request.query()
        timeout_ms = query.integer("timeout", 0, most=MAX_TIMEOUT_MS)
        return await self._engine.sync(
            self._viewers(request.requester), query.text("since"), request.json(), timeout_ms
        )
