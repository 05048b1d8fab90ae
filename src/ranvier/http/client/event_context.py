"""What happened around an event. Spec: client-server API, "Event Context"."""

from typing import Any

from ranvier.core.tokens import encode_room_token
from ranvier.http.client.room_history import DEFAULT_LIMIT, event_filter
from ranvier.http.endpoint import endpoint
from ranvier.http.request import Request
from ranvier.http.responses import json_array, json_value
from ranvier.services.rooms.context import ContextRequest, Contexts, EventContext


class EventContexts:
    """Events around events."""

    def __init__(self, contexts: Contexts) -> None:
        self._contexts = contexts

    @endpoint(
        "GET",
        "/_matrix/client/v3/rooms/{roomId}/context/{eventId}",
        operation="getEventContext",
        guests=True,
    )
    async def get_event_context(self, request: Request) -> dict[str, Any]:
        found = await self._contexts.get_context(request.requester, request.room_id, context_request(request))
        return encode_context(found)


def context_request(request: Request) -> ContextRequest:
    """What a request for a context asks for. Raises: BadIdentifier, InvalidParam, NotJson, BadJsonValue."""
    query = request.query()
    return ContextRequest(
        event_id=request.event_id,
        limit=query.integer("limit", DEFAULT_LIMIT),
        filter=event_filter(query),
    )


def encode_context(found: EventContext) -> dict[str, Any]:
    """The answer."""
    return {
        "start": encode_room_token(found.start),
        "end": encode_room_token(found.end),
        "event": json_value(found.event),
        "events_before": json_array(found.before),
        "events_after": json_array(found.after),
        "state": json_array(found.state),
    }
