"""The room that replaces another one: which events it begins with, and what becomes of the old power levels.

Rules for this file: no I/O. Spec: client-server API, "Room upgrades", "Server behaviour".
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from ranvier.core.auth.power import DEFAULT_LEVELS, PowerLevels, parse_level
from ranvier.core.auth.select import CREATE, JOIN_RULES, POWER_LEVELS
from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import BadIdentifier
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID, RoomID, StateKey, UserID, parse_user_id
from ranvier.core.limits import MAX_SAFE_INTEGER, MIN_SAFE_INTEGER
from ranvier.core.room_versions import RoomVersion
from ranvier.services.rooms.new_room import Founder, create_content, raise_tombstone_level, state_drafts
from ranvier.services.rooms.timeline import Draft

TRANSFERRED: Final[tuple[StateKey, ...]] = (
    ("m.room.server_acl", ""),
    ("m.room.encryption", ""),
    ("m.room.name", ""),
    ("m.room.avatar", ""),
    ("m.room.topic", ""),
    ("m.room.guest_access", ""),
    ("m.room.history_visibility", ""),
    JOIN_RULES,
)
"""State that goes over as it is; power levels go over, too, fitted to the new version."""

_CREATOR_LEVEL: Final = 100


class OldRoom(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the room that is replaced."""

    room_nid: int
    room_id: RoomID
    version: RoomVersion
    state: Mapping[StateKey, Pdu | None]  # CREATE, POWER_LEVELS, TRANSFERRED and the canonical alias
    children: Sequence[tuple[StateKey, JsonObject]]  # of a space: its m.space.child
    banned: Sequence[tuple[UserID, JsonObject]]  # contents of their member events
    newest_event_id: EventID
    canonical_alias: JsonObject | None  # what of it goes over with the aliases
    is_published: bool


def build_successor_drafts(
    old: OldRoom, founder: Founder, version: RoomVersion, additional_creators: Sequence[str]
) -> list[Draft]:
    """All events but the bans, the create event first.

    The power levels come last: until then the founder of a room may do everything, whatever the founder's own
    level in it will be.

    Raises: BadJsonValue.
    """
    sender = founder.user_id
    create = create_content(_creation(old, version), sender, version, additional_creators)
    creators = {sender, *create.get("additional_creators", ())}
    states: list[tuple[StateKey, JsonObject]] = [
        (CREATE, create),
        (("m.room.member", sender), founder.member_content),
    ]
    for slot in TRANSFERRED:
        event = old.state[slot]
        if event is not None and event.content:
            states.append((slot, event.content))
    if old.canonical_alias is not None:
        states.append((("m.room.canonical_alias", ""), old.canonical_alias))
    states += old.children
    states.append((POWER_LEVELS, _power_levels(old, version, creators)))
    return state_drafts(sender, states)


def closed_power_levels(power: PowerLevels) -> JsonObject:
    """The power levels of a room that is not to be used any more: nobody speaks there but moderators."""
    closed = max(50, _fit(power.single_level("users_default")) + 1)
    return {
        **power.content,
        "events_default": max(closed, power.single_level("events_default")),
        "invite": max(closed, power.single_level("invite")),
    }


def _creation(old: OldRoom, version: RoomVersion) -> JsonObject:
    content: JsonObject = {"predecessor": {"room_id": old.room_id}}
    if not version.auth.room_id_is_create_hash:
        # Where the new room's id does not follow from it, clients lead their users there. Since v12 it may go.
        content["predecessor"]["event_id"] = old.newest_event_id
    create = old.state[CREATE]
    for key in ("type", "m.federate"):
        if create is not None and key in create.content:
            content[key] = create.content[key]
    return content


def _power_levels(old: OldRoom, version: RoomVersion, creators: Collection[str]) -> JsonObject:
    """The old levels in the form of the new version: integers, and creators named only where they do not stand
    above all levels."""
    power = PowerLevels.from_events(old.state[CREATE], old.state[POWER_LEVELS], old.version)
    content: JsonObject = {
        key: value
        for key, value in power.content.items()
        if key not in (*DEFAULT_LEVELS, "users", "events", "notifications")
    }
    for name in DEFAULT_LEVELS:
        if name in power.content:
            content[name] = _fit(power.single_level(name))
    for name in ("events", "notifications"):
        if isinstance(levels := power.content.get(name), dict):
            content[name] = _levels(levels, old.version)
    users = {
        user_id: level for user_id, level in _levels(power.users, old.version).items() if _is_user(user_id)
    }
    if version.auth.privileged_creators:
        users = {user_id: level for user_id, level in users.items() if user_id not in creators}
    elif old.version.auth.privileged_creators or not power.has_event:
        users |= dict.fromkeys(power.creators, max(_CREATOR_LEVEL, *_all_levels(power)))
    content["users"] = users
    raise_tombstone_level(content, version)
    return content


def _levels(levels: JsonObject, version: RoomVersion) -> dict[str, int]:
    return {
        key: _fit(level)
        for key, value in levels.items()
        if (level := parse_level(value, version)) is not None
    }


def _all_levels(power: PowerLevels) -> list[int]:
    """What the room's acts take: creators who stood above all levels are to reach every one of them."""
    events = power.content.get("events")
    named = _levels(events, power.version).values() if isinstance(events, dict) else ()
    return [*named, *(_fit(power.single_level(name)) for name in DEFAULT_LEVELS)]


def _fit(level: int) -> int:
    """Levels of old rooms may be larger than canonical JSON takes. One below the largest has one above it."""
    return max(MIN_SAFE_INTEGER, min(level, MAX_SAFE_INTEGER - 1))


def _is_user(user_id: str) -> bool:
    try:
        parse_user_id(user_id)
    except BadIdentifier:
        return False
    return True
