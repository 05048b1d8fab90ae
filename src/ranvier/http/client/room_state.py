"""Rooms' state, and who is in them. Spec: client-server API, "Room events", "Getting events for a room"."""

import msgspec

from ranvier.core.identifiers import StateKey
from ranvier.http.client.room_send import DelayIdAnswer, EventIdAnswer, dated, delay_of, stickiness
from ranvier.http.endpoint import Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.delayed_events.scheduling import DelayedEvents, DelayWish
from ranvier.services.rooms.changing_state import ChangingState
from ranvier.services.rooms.state import MemberFilter, RoomState

_STATE = "/_matrix/client/v3/rooms/{roomId}/state"
_SLOT = f"{_STATE}/{{eventType}}/{{stateKey}}"
_SLOT_WITHOUT_KEY = f"{_STATE}/{{eventType}}"
_MEMBERSHIPS = ("join", "invite", "knock", "leave", "ban")


class RoomStateEndpoints:
    """State as clients read and write it."""

    def __init__(self, state: RoomState, changing: ChangingState, delayed: DelayedEvents) -> None:
        self._state = state
        self._changing = changing
        self._delayed = delayed

    @endpoint("GET", _STATE, operation="getRoomState", guests=True)
    async def get_room_state(self, request: Request) -> bytes:
        return _array(await self._state.list_state(request.requester, request.room_id))

    @endpoint("GET", _SLOT, _SLOT_WITHOUT_KEY, operation="getRoomStateWithKey", guests=True)
    async def get_room_state_with_key(self, request: Request) -> bytes:
        form = request.query().choice("format", ("content", "event"), "content")
        read = self._state.get_event if form == "event" else self._state.get_content
        return await read(request.requester, request.room_id, _slot(request))

    @endpoint(
        "PUT",
        _SLOT,
        _SLOT_WITHOUT_KEY,
        operation="setRoomStateWithKey",
        rate=Rate.MESSAGE,
        guests=True,
    )
    async def set_room_state_with_key(self, request: Request) -> EventIdAnswer | DelayIdAnswer:
        event_type, state_key = _slot(request)
        delay_ms = delay_of(request)
        if delay_ms is not None:
            wish = DelayWish(
                room_id=request.room_id,
                type=event_type,
                state_key=state_key,
                content=request.json(),
                delay_ms=delay_ms,
                origin_server_ts=dated(request),
                sticky_ms=stickiness(request),
            )
            return DelayIdAnswer(await self._delayed.schedule(request.requester, wish))
        event_id = await self._changing.set(
            request.requester,
            request.room_id,
            event_type,
            state_key,
            request.json(),
            dated(request),
            stickiness(request),
        )
        return EventIdAnswer(event_id)

    @endpoint("GET", "/_matrix/client/v3/rooms/{roomId}/members", operation="getMembersByRoom", guests=True)
    async def get_members_by_room(self, request: Request) -> bytes:
        query = request.query()
        wanted = MemberFilter(
            *(
                None if query.text(name) is None else query.choice(name, _MEMBERSHIPS)
                for name in ("membership", "not_membership")
            )
        )
        members = await self._state.list_members(request.requester, request.room_id, wanted, query.text("at"))
        return b'{"chunk":%b}' % _array(members)

    @endpoint("GET", "/_matrix/client/v3/rooms/{roomId}/joined_members", operation="getJoinedMembersByRoom")
    async def get_joined_members_by_room(self, request: Request) -> bytes:
        joined = await self._state.list_joined_members(request.requester, request.room_id)
        return msgspec.json.encode({"joined": joined})


def _slot(request: Request) -> StateKey:
    return request.path["eventType"], request.path.get("stateKey", "")


def _array(items: list[bytes]) -> bytes:
    return b"[%b]" % b",".join(items)
