"""The paths with a trailing slash, for the rooms of today, under the request authentication of today.

Without the slash the same paths are today's own, whose answers have the same keys. The order is made here: most
recent first by depth, and at one depth what arrived later here.
"""

from typing import Final

from ranvier.core.errors import Forbidden, MissingParam, NotFound
from ranvier.core.identifiers import parse_event_id
from ranvier.http.federation.origin import origin_of, server_endpoint
from ranvier.http.request import Request
from ranvier.services.federation.serving import MAX_BACKFILL, Serving

_EVENT: Final = "/_matrix/federation/v1/event/{eventId}/"
_BACKFILL: Final = "/_matrix/federation/v1/backfill/{roomId}/"


class Federation2015:
    """Both of them."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    @server_endpoint("GET", _EVENT, operation="getEvent2015")
    async def get_event(self, request: Request) -> bytes:
        try:
            return await self._serving.event(origin_of(request), request.event_id)
        except NotFound as error:
            # Today, who is not in the room is not told that there is such an event. In 2015 it was.
            if isinstance(error.__cause__, Forbidden):
                raise Forbidden("Host not in room.") from error
            raise

    @server_endpoint("GET", _BACKFILL, operation="backfill2015")
    async def backfill(self, request: Request) -> bytes:
        query = request.query()
        event_ids = [parse_event_id(value) for value in query.all("v")]
        if not event_ids:
            raise MissingParam("The query parameter v is missing.")
        if query.text("limit") is None:
            raise MissingParam("The query parameter limit is missing.")
        return await self._serving.backfill(
            origin_of(request),
            request.room_id,
            event_ids,
            query.integer("limit", 0, least=1, most=MAX_BACKFILL),
        )
