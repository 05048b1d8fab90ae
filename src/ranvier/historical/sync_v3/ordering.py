"""The orders in which pages come. Every order is total, so that pages neither overlap nor leave gaps."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import orjson

from ranvier.core.auth.power import PowerLevels
from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import UnsupportedRoomVersion
from ranvier.core.room_versions import DEFAULT_ROOM_VERSION, RoomVersion, get_room_version

FAVOURITE: Final = "m.favourite"
LOW_PRIORITY: Final = "m.lowpriority"

_EMPTY: Final[JsonObject] = {}


class Member(msgspec.Struct, frozen=True, gc=False):
    """What orders a member. `event`: the number of the event, or whatever finds it."""

    user_id: str
    displayname: object  # as the event has it: anything
    event: int


class Room(msgspec.Struct, frozen=True):
    """A room of the list: what orders it, and what is told of it."""

    room_id: str
    recency: tuple[int, int]  # when the newest event came, by position, then by the sender's clock
    name: str | None  # by which it is ordered
    tags: Mapping[str, Any]
    body: Mapping[str, Any]


class _Content(msgspec.Struct, gc=False):
    displayname: object = None


class _Event(msgspec.Struct, gc=False):
    content: _Content


_EVENT: Final = msgspec.json.Decoder(_Event)


def read_displayname(event: bytes) -> object:
    """What an event of a member, as JSON, has for a name."""
    return _EVENT.decode(event).content.displayname


def order_members(members: Iterable[Member], sort: str, level_of: Callable[[str], int]) -> list[int]:
    """The events of the members: by name, or by power level (highest first) and then by name."""
    if sort == "by_name":
        ordered = sorted(members, key=lambda one: (_shown_name(one), one.user_id))
    else:
        ordered = sorted(members, key=lambda one: (-level_of(one.user_id), _shown_name(one), one.user_id))
    return [one.event for one in ordered]


def _shown_name(member: Member) -> str:
    name = member.displayname
    shown = name if isinstance(name, str) and name else member.user_id.removeprefix("@")
    return shown.lower()


def read_levels(create: JsonObject | None, power_levels: JsonObject | None) -> Callable[[str], int]:
    """The power level of each user, from the room's m.room.create and m.room.power_levels events."""
    content = _object(create, "content")
    try:
        version = get_room_version(content.get("room_version", "1"))
    except UnsupportedRoomVersion:
        version = DEFAULT_ROOM_VERSION
    levels = _object(power_levels, "content")
    return PowerLevels(
        levels,
        _object(levels, "users"),
        _object(levels, "events"),
        _creators(create, content, version) if create is not None else frozenset(),
        version,
        power_levels is not None,
    ).user_level


def _creators(create: JsonObject, content: JsonObject, version: RoomVersion) -> frozenset[str]:
    """As `core.auth.power.creators_of`, of an event whose form was not checked here."""
    users: list[object] = [
        content.get("creator") if version.auth.creator_in_content else create.get("sender")
    ]
    additional = content.get("additional_creators")
    if version.auth.privileged_creators and isinstance(additional, list):
        users += additional
    return frozenset(user for user in users if isinstance(user, str))


def _object(value: JsonObject | None, key: str) -> JsonObject:
    found = None if value is None else value.get(key)
    return found if type(found) is dict else _EMPTY


def order_rooms(rooms: Iterable[Room], sort: Sequence[str]) -> list[Room]:
    """By the first order, where that leaves it open by the next one, and at last by room id."""
    keys = [_ROOM_KEYS[name] for name in sort]
    return sorted(rooms, key=lambda room: ([key(room) for key in keys], room.room_id))


def encode_room(room: Room) -> bytes:
    """An entry of the list. What is not known of the room is left out."""
    told = {key: value for key, value in room.body.items() if value is not None}
    return orjson.dumps({"room_id": room.room_id, **told, "tags": room.tags})


def _by_recency(room: Room) -> tuple[Any, ...]:
    return -room.recency[0], -room.recency[1]


def _by_name(room: Room) -> tuple[Any, ...]:
    return not room.name, (room.name or "").lower()


def _by_tag(room: Room) -> tuple[Any, ...]:
    """Favourites, then those without a tag that orders, then those of low priority; within, as the tag says.

    Spec: client-server API, "Room Tagging": no order is behind every order.
    """
    for rank, tag in ((0, FAVOURITE), (2, LOW_PRIORITY)):
        if tag in room.tags:
            info = room.tags[tag]
            order = info.get("order") if isinstance(info, dict) else None
            if isinstance(order, int | float) and not isinstance(order, bool):
                return rank, False, order
            return rank, True, 0
    return 1, False, 0


_ROOM_KEYS: Final[Mapping[str, Callable[[Room], tuple[Any, ...]]]] = {
    "by_recency": _by_recency,
    "by_name": _by_name,
    "by_tag": _by_tag,
}
