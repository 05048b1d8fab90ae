"""Syncing as it was before /sync. Spec: client-server API, `GET /initialSync`, `GET /events` (deprecated)."""

from typing import Any

from ranvier.core.identifiers import parse_room_id
from ranvier.core.tokens import (
    SyncToken,
    encode_room_token,
    encode_sync_token,
    parse_sync_token,
    room_order_of,
)
from ranvier.http.client.room_history import place
from ranvier.http.endpoint import Rate, endpoint
from ranvier.http.request import Query, Request
from ranvier.http.responses import json_array
from ranvier.services.ephemeral.presence import PresenceTracker, parse_state
from ranvier.services.rooms.peeking import Peeking
from ranvier.services.sync.event_stream import EventStream, RoomStart
from ranvier.services.sync.request import MAX_TIMELINE_LIMIT, MAX_TIMEOUT_MS

DEFAULT_LIMIT = 10
DEFAULT_TIMEOUT_MS = 5_000


class OldSync:
    """For clients of old, and for those that look into rooms from outside."""

    def __init__(self, stream: EventStream, peeking: Peeking, presence: PresenceTracker) -> None:
        self._stream = stream
        self._peeking = peeking
        self._presence = presence

    @endpoint("GET", "/_matrix/client/v3/initialSync", operation="initialSync", rate=Rate.READ, guests=True)
    async def initial_sync(self, request: Request) -> dict[str, Any]:
        query = request.query()
        start = await self._stream.start(
            request.requester,
            query.integer("limit", DEFAULT_LIMIT, most=MAX_TIMELINE_LIMIT),
            include_leave=query.boolean("archived"),
        )
        return {
            "end": encode_sync_token(SyncToken(start.end)),
            "presence": start.presence,
            "account_data": start.account_data,
            "rooms": [_room(room, start.end) for room in start.rooms],
        }

    @endpoint("GET", "/_matrix/client/v3/events", operation="getEvents", rate=Rate.READ, guests=True)
    async def get_events(self, request: Request) -> dict[str, Any]:
        query = request.query()
        timeout_ms = query.integer("timeout", DEFAULT_TIMEOUT_MS, most=MAX_TIMEOUT_MS)
        with self._presence.syncing(request.requester, parse_state("online")):
            if query.text("room_id"):
                return await self._peek(request, query, timeout_ms)
            since = query.text("from")
            position = parse_sync_token(since).position if since else None
            stream = await self._stream.listen(request.requester, position, timeout_ms)
        end = encode_sync_token(SyncToken(stream.end))
        return {"start": since or end, "end": end, "chunk": stream.events}

    async def _peek(self, request: Request, query: Query, timeout_ms: int) -> dict[str, Any]:
        """Spec: operation peekEvents, which has the path of getEvents."""
        room_id = parse_room_id(query.required("room_id"))
        page = await self._peeking.listen(request.requester, room_id, place(query, "from"), timeout_ms)
        return {
            "start": query.text("from") or encode_room_token(page.start),
            "end": encode_room_token(page.start if page.end is None else page.end),
            "chunk": json_array(page.events),
        }


def _room(room: RoomStart, end: int) -> dict[str, Any]:
    told: dict[str, Any] = {
        "room_id": room.room_id,
        "membership": room.membership,
        "state": room.state,
        "visibility": "public" if room.is_published else "private",
        "account_data": room.account_data,
    }
    if room.invite is not None:
        told["invite"] = room.invite
    if room.start is not None:
        told["messages"] = {
            "start": encode_room_token(room.start),
            "end": encode_room_token(room_order_of(end)),
            "chunk": room.messages,
        }
    return told
