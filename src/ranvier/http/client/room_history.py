"""A room's past. Spec: client-server API, "Getting events for a room", "Events"."""

from typing import Any

from ranvier.core.filters import EventFilter, parse_event_filter
from ranvier.core.tokens import encode_room_token, parse_room_token
from ranvier.http.endpoint import endpoint
from ranvier.http.request import Query, Request
from ranvier.http.responses import json_array
from ranvier.services.rooms.history import EventPage, History, PageRequest
from ranvier.services.rooms.pages import NO_FILTER

DEFAULT_LIMIT = 10


class RoomHistory:
    """Pages of a timeline, and single events."""

    def __init__(self, history: History) -> None:
        self._history = history

    @endpoint("GET", "/_matrix/client/v3/rooms/{roomId}/messages", operation="getRoomEvents", guests=True)
    async def get_room_events(self, request: Request) -> dict[str, Any]:
        query = request.query()
        page = await self._history.get_messages(request.requester, request.room_id, page_request(query))
        return encode_page(page, query)

    @endpoint(
        "GET",
        "/_matrix/client/v3/rooms/{roomId}/event/{eventId}",
        operation="getOneRoomEvent",
        guests=True,
    )
    async def get_one_room_event(self, request: Request) -> bytes:
        return await self._history.get_event(
            request.requester,
            request.event_id,
            request.room_id,
        )

    @endpoint("GET", "/_matrix/client/v3/events/{eventId}", operation="getOneEvent", guests=True)
    async def get_one_event(self, request: Request) -> bytes:
        return await self._history.get_event(request.requester, request.event_id)


def page_request(query: Query) -> PageRequest:
    """What a query for a page asks for. Raises: BadToken, InvalidParam, NotJson, BadJsonValue."""
    return PageRequest(
        # COMPAT: the text demands `dir`, but Synapse does without, and so do clients.
        backwards=query.choice("dir", ("b", "f"), "f") == "b",
        limit=query.integer("limit", DEFAULT_LIMIT),
        start=place(query, "from"),
        stop=place(query, "to"),
        filter=event_filter(query),
    )


def encode_page(page: EventPage, query: Query) -> dict[str, Any]:
    """The answer to `query`: `start` is the token that was given, if one was."""
    answer = {
        "chunk": json_array(page.events),
        "start": query.text("from") or encode_room_token(page.start),
    }
    if page.end is not None:
        answer["end"] = encode_room_token(page.end)
    if page.state is not None:
        answer["state"] = json_array(page.state)
    return answer


def place(query: Query, name: str) -> int | None:
    """A place in a timeline, from a token of any endpoint; None without one.

    Raises: BadToken.
    """
    token = query.text(name)
    return parse_room_token(token) if token else None


def event_filter(query: Query) -> EventFilter:
    """The RoomEventFilter in the query. Raises: NotJson, BadJsonValue."""
    text = query.text("filter")
    return parse_event_filter(text) if text else NO_FILTER
