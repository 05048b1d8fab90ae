"""Sliding sync as it was accepted: everything in the body. Spec: MSC4186."""

from typing import Any, Final

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import InvalidParam
from ranvier.core.identifiers import RoomID
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
    ListRequest,
    RoomConfig,
    SlidingRequest,
)
from ranvier.services.sliding.required_state import RequiredState, require
from ranvier.services.sliding.results import Answer, RoomResult
from ranvier.services.sliding.sync import SlidingSync

# Spec: MSC4508, "Unstable prefix": on this endpoint its key is prefixed until it is accepted.
_KEYS: Final = ExtensionKeys(typing="org.matrix.msc4508.typing")


class _Filters(FiltersBody, frozen=True):
    is_invited: bool | None = None


class _Element(msgspec.Struct, frozen=True):
    type: str | None = None
    state_key: str | None = None


class _RequiredState(msgspec.Struct, frozen=True):
    include: list[_Element] | None = None
    exclude: list[_Element] | None = None
    lazy_members: bool = False


class _Config(msgspec.Struct, frozen=True):
    timeline_limit: int
    required_state: _RequiredState


class _List(_Config, frozen=True):
    range: tuple[int, int] | None = None
    filters: _Filters | None = None


class _Body(msgspec.Struct, frozen=True):
    conn_id: str | None = None
    pos: str | None = None
    timeout: int = 0
    set_presence: str = "online"
    lists: dict[str, _List] | None = None
    room_subscriptions: dict[str, _Config] | None = None
    extensions: JsonObject | None = None


class FinalSlidingSync:
    """The endpoint of client-server API v4."""

    def __init__(self, sync: SlidingSync, presence: PresenceTracker) -> None:
        self._sync = sync
        self._presence = presence

    @endpoint("POST", "/_matrix/client/v4/sync", operation="slidingSync", rate=Rate.READ, guests=True)
    async def sliding_sync(self, request: Request) -> dict[str, Any]:
        body = request.body(_Body)
        asked = _read(body)
        with self._presence.syncing(request.requester, parse_state(body.set_presence)):
            return _encode(await self._sync.sync(request.requester, asked), asked)


def _read(body: _Body) -> SlidingRequest:
    lists, subscriptions = body.lists or {}, body.room_subscriptions or {}
    check_sizes(body.conn_id or "", lists, subscriptions)
    if body.timeout < 0:
        raise InvalidParam("timeout must not be negative.")
    return SlidingRequest(
        conn_id=body.conn_id or "",
        pos=body.pos or None,
        timeout_ms=min(body.timeout, MAX_TIMEOUT_MS),
        lists={key: _read_list(one) for key, one in lists.items()},
        subscriptions={RoomID(room_id): _read_config(one) for room_id, one in subscriptions.items()},
        extensions=read_extensions(body.extensions or {}, _KEYS, star_is_all=False),
    )


def _read_list(body: _List) -> ListRequest:
    filters = NO_FILTERS if body.filters is None else read_filters(body.filters, body.filters.is_invited)
    ranges = None if body.range is None else (read_range(body.range),)
    return ListRequest(_read_config(body), filters, ranges)


def _read_config(body: _Config) -> RoomConfig:
    return RoomConfig(read_limit(body.timeline_limit), _read_state(body.required_state))


def _read_state(body: _RequiredState) -> RequiredState:
    include, exclude = body.include or [], body.exclude or []
    if len(include) + len(exclude) > MAX_PATTERNS:
        raise InvalidParam(f"required_state names at most {MAX_PATTERNS} kinds of events.")
    return require(
        ((one.type, one.state_key) for one in include),
        exclude=((one.type, one.state_key) for one in exclude),
        lazy=body.lazy_members,
    )


def _encode(answer: Answer, asked: SlidingRequest) -> dict[str, Any]:
    told: dict[str, Any] = {"pos": answer.pos}
    if asked.lists:
        told["lists"] = {key: {"count": one.count} for key, one in answer.lists.items()}
    told["rooms"] = {room.room_id: _encode_room(room) for room in answer.rooms}
    told["extensions"] = encode_extensions(answer.extensions, _KEYS)
    return told


def _encode_room(room: RoomResult) -> dict[str, Any]:
    told = {"membership": room.membership, **room_members(room)}
    if room.lists:
        told["lists"] = room.lists
    if room.stripped is not None:
        told["stripped_state"] = json_array(room.stripped)
    # What an initial result leaves out is not set.
    if room.name is not None and not (room.is_initial and room.name.value is None):
        told["name"] = room.name.value
    if room.avatar is not None and not (room.is_initial and room.avatar.value is None):
        told["avatar"] = room.avatar.value
    if room.is_direct or (room.is_direct is not None and not room.is_initial):
        told["is_dm"] = room.is_direct
    if room.is_expanded:
        told["expanded_timeline"] = True
    return told
