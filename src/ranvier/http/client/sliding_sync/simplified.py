"""Sliding sync as clients of today speak it: `org.matrix.simplified_msc3575`.

Spec: MSC4186 before its last changes; what is deployed.
"""

from typing import Any, Final

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import InvalidParam
from ranvier.core.identifiers import RoomID, UserID
from ranvier.http.client.sliding_sync.answers import encode_extensions, room_members
from ranvier.http.client.sliding_sync.bodies import (
    MAX_PATTERNS,
    ExtensionKeys,
    FiltersBody,
    check_sizes,
    read_extensions,
    read_filters,
    read_limit,
    read_range,
)
from ranvier.http.endpoint import Rate, endpoint
from ranvier.http.request import Request
from ranvier.http.responses import json_array
from ranvier.services.ephemeral.presence import PresenceTracker, parse_state
from ranvier.services.sliding.request import (
    MAX_TIMEOUT_MS,
    NO_FILTERS,
    Filters,
    ListRequest,
    RoomConfig,
    SlidingRequest,
)
from ranvier.services.sliding.required_state import MEMBER, Pattern, RequiredState, require
from ranvier.services.sliding.results import Answer, RoomResult
from ranvier.services.sliding.sync import SlidingSync
from ranvier.services.sliding.windows import WindowedList

MOST_EVENTS: Final = 1_000
"""A greater timeline_limit is refused."""
MAX_RANGES: Final = 100
"""Of one list."""

_KEYS: Final = ExtensionKeys()
_ANY: Final = "*"
_ME: Final = "$ME"
_LAZY: Final = "$LAZY"


class _Filters(FiltersBody, frozen=True):
    is_invite: bool | None = None


class _Config(msgspec.Struct, frozen=True):
    timeline_limit: int
    required_state: list[tuple[str, str]]


class _List(_Config, frozen=True):
    ranges: list[tuple[int, int]] | None = None
    filters: _Filters | None = None


class _Body(msgspec.Struct, frozen=True):
    conn_id: str | None = None
    lists: dict[str, _List] | None = None
    room_subscriptions: dict[str, _Config] | None = None
    extensions: JsonObject | None = None


class SimplifiedSlidingSync:
    """The endpoint with positions in the query and operations in the lists."""

    def __init__(self, sync: SlidingSync, presence: PresenceTracker) -> None:
        self._sync = sync
        self._presence = presence

    @endpoint(
        "POST",
        "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync",
        operation="simplifiedSlidingSync",
        rate=Rate.READ,
        guests=True,
    )
    async def simplified_sliding_sync(self, request: Request) -> dict[str, Any]:
        query, requester = request.query(), request.requester
        asked = _read(
            request.body(_Body),
            query.text("pos"),
            query.integer("timeout", 0, most=MAX_TIMEOUT_MS),
            requester.user_id,
        )
        with self._presence.syncing(requester, parse_state(query.text("set_presence", "online"))):
            return _encode(await self._sync.sync(requester, asked), asked)


def _read(body: _Body, pos: str | None, timeout_ms: int, user_id: UserID) -> SlidingRequest:
    lists, subscriptions = body.lists or {}, body.room_subscriptions or {}
    check_sizes(body.conn_id or "", lists, subscriptions)
    return SlidingRequest(
        conn_id=body.conn_id or "",
        pos=pos or None,
        timeout_ms=timeout_ms,
        lists={key: _read_list(one, user_id) for key, one in lists.items()},
        subscriptions={RoomID(room_id): _read_config(one, user_id) for room_id, one in subscriptions.items()},
        extensions=read_extensions(body.extensions or {}, _KEYS, star_is_all=True),
        tells_counts=True,
    )


def _read_list(body: _List, user_id: UserID) -> ListRequest:
    ranges = body.ranges or []
    if len(ranges) > MAX_RANGES:
        raise InvalidParam(f"A list has at most {MAX_RANGES} ranges.")
    filters: Filters = (
        NO_FILTERS if body.filters is None else read_filters(body.filters, body.filters.is_invite)
    )
    return ListRequest(_read_config(body, user_id), filters, tuple(read_range(one) for one in ranges))


def _read_config(body: _Config, user_id: UserID) -> RoomConfig:
    if body.timeline_limit > MOST_EVENTS:
        raise InvalidParam(f"timeline_limit is at most {MOST_EVENTS}.")
    if len(body.required_state) > MAX_PATTERNS:
        raise InvalidParam(f"required_state names at most {MAX_PATTERNS} kinds of events.")
    return RoomConfig(read_limit(body.timeline_limit), _read_state(body.required_state, user_id))


def _read_state(pairs: list[tuple[str, str]], user_id: UserID) -> RequiredState:
    """`*` is anything, `$ME` the user, and `$LAZY` those members that the timeline shows."""
    patterns: set[Pattern] = set()
    is_lazy = False
    for event_type, state_key in pairs:
        if state_key == _LAZY:
            # Of other types than members it means nothing.
            is_lazy = is_lazy or event_type == MEMBER
            continue
        key = str(user_id) if state_key == _ME else state_key
        patterns.add((None if event_type == _ANY else event_type, None if key == _ANY else key))
    takes_all_members = (None, None) in patterns or (MEMBER, None) in patterns
    return require(patterns, lazy=is_lazy and not takes_all_members)


def _encode(answer: Answer, asked: SlidingRequest) -> dict[str, Any]:
    told: dict[str, Any] = {"pos": answer.pos}
    if asked.lists:
        told["lists"] = {key: _encode_list(one, answer) for key, one in answer.lists.items()}
    told["rooms"] = {room.room_id: _encode_room(room) for room in answer.rooms}
    told["extensions"] = encode_extensions(answer.extensions, _KEYS)
    return told


def _encode_list(one: WindowedList, answer: Answer) -> dict[str, Any]:
    ids = answer.room_ids
    return {
        "count": one.count,
        "ops": [
            {"op": "SYNC", "range": window.range, "room_ids": [ids[nid] for nid in window.room_nids]}
            for window in one.windows
        ],
    }


def _encode_room(room: RoomResult) -> dict[str, Any]:
    notifications, highlights = room.counts or (0, 0)
    told = {"notification_count": notifications, "highlight_count": highlights, **room_members(room)}
    if room.stripped is not None:
        told["invite_state"] = json_array(room.stripped)
    if room.name is not None and room.name.value is not None:
        told["name"] = room.name.value
    if room.avatar is not None and room.avatar.value is not None:
        told["avatar"] = room.avatar.value
    if room.is_direct:
        told["is_dm"] = True
    if room.is_expanded:
        told["unstable_expanded_timeline"] = True
    return told
