"""Spec: server-server API, "Backfilling and retrieving missing events"."""

from typing import Final

from ranvier.core.errors import MissingParam
from ranvier.core.identifiers import parse_event_id
from ranvier.http.federation.origin import origin_of, server_endpoint
from ranvier.http.request import Request
from ranvier.services.federation.serving import MAX_BACKFILL, MissingQuery, Serving

_DEFAULT_LIMIT: Final = 10


class Backfill:
    """What came before events that another server has."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    @server_endpoint("GET", "/_matrix/federation/v1/backfill/{roomId}", operation="backfillRoom")
    async def backfill_room(self, request: Request) -> bytes:
        query = request.query()
        event_ids = [parse_event_id(value) for value in query.all("v")]
        if not event_ids:
            raise MissingParam("The query parameter v is missing.")
        return await self._serving.backfill(
            origin_of(request),
            request.room_id,
            event_ids,
            query.integer("limit", _DEFAULT_LIMIT, least=1, most=MAX_BACKFILL),
        )

    @server_endpoint(
        "POST", "/_matrix/federation/v1/get_missing_events/{roomId}", operation="getMissingPreviousEvents"
    )
    async def get_missing_previous_events(self, request: Request) -> bytes:
        return await self._serving.missing_events(
            origin_of(request), request.room_id, request.body(MissingQuery)
        )
