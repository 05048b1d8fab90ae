"""What relates to an event. Spec: client-server API, "Relationships API"."""

from typing import Any, Final

from ranvier.core.tokens import encode_room_token
from ranvier.http.client.room_history import place
from ranvier.http.endpoint import Rate, endpoint
from ranvier.http.request import Query, Request
from ranvier.http.responses import json_array
from ranvier.services.rooms.history import PageRequest
from ranvier.services.rooms.relations import MAX_DEPTH, Relating, Relations

DEFAULT_LIMIT: Final = 30

_PATH: Final = "/_matrix/client/v1/rooms/{roomId}/relations/{eventId}"
_UNSTABLE_PATH: Final = "/_matrix/client/unstable/rooms/{roomId}/relations/{eventId}"


class EventRelations:
    """Children of events."""

    def __init__(self, relations: Relations) -> None:
        self._relations = relations

    # The specification wants no rate limit here.
    @endpoint("GET", _PATH, _UNSTABLE_PATH, operation="getRelatingEvents", rate=Rate.NONE, guests=True)
    async def get_relating_events(self, request: Request) -> dict[str, Any]:
        return await self._answer(request)

    @endpoint(
        "GET",
        _PATH + "/{relType}",
        _UNSTABLE_PATH + "/{relType}",
        operation="getRelatingEventsWithRelType",
        rate=Rate.NONE,
        guests=True,
    )
    async def get_relating_events_with_rel_type(self, request: Request) -> dict[str, Any]:
        return await self._answer(request)

    @endpoint(
        "GET",
        _PATH + "/{relType}/{eventType}",
        _UNSTABLE_PATH + "/{relType}/{eventType}",
        operation="getRelatingEventsWithRelTypeAndEventType",
        rate=Rate.NONE,
        guests=True,
    )
    async def get_relating_events_with_rel_type_and_event_type(self, request: Request) -> dict[str, Any]:
        return await self._answer(request)

    async def _answer(self, request: Request) -> dict[str, Any]:
        query = request.query()
        relating = Relating(
            event_id=request.event_id,
            rel_type=request.path.get("relType"),
            event_type=request.path.get("eventType"),
            recurse=query.boolean("recurse"),
        )
        page = await self._relations.get_relating_events(
            request.requester, request.room_id, relating, _page(query)
        )
        answer: dict[str, Any] = {"chunk": json_array(page.events)}
        if page.end is not None:
            answer["next_batch"] = encode_room_token(page.end)
        if query.text("from"):
            answer["prev_batch"] = query.text("from")
        if query.text("recurse") is not None:
            answer["recursion_depth"] = MAX_DEPTH if relating.recurse else 1
        return answer


def _page(query: Query) -> PageRequest:
    return PageRequest(
        backwards=query.choice("dir", ("b", "f"), "b") == "b",
        limit=query.integer("limit", DEFAULT_LIMIT, least=1),
        start=place(query, "from"),
        stop=place(query, "to"),
    )
