"""The rule on m.room.power_levels: nobody grants, takes or changes what lies above their own level.

Comments give the sub-rules as v12 counts them, within the rule on power levels (10 to v5 and in v12, else 9).
"""

from collections.abc import Iterable
from typing import Final

from ranvier.core.auth.numbering import Numbering, numbering_of
from ranvier.core.auth.power import DEFAULT_LEVELS, PowerLevels, parse_level
from ranvier.core.auth.state import AuthState
from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import AuthRejected, BadIdentifier
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import parse_user_id
from ranvier.core.room_versions import RoomVersion

_MISSING: Final = object()


def check_power_levels(event: Pdu, room: AuthState, sender_level: int) -> None:
    """Check new power levels against those in force (`room.power`) and the sender's own level.

    Raises: AuthRejected.
    Cost: O(entries of both events).
    """
    numbers = numbering_of(room.version.auth)
    _check_types(event.content, room.version, numbers)
    _check_users(event.content, room.power, numbers)
    # .5: no previous power levels, allow
    if room.power.has_event:
        _check_scalars(event.content, room.power, sender_level, numbers)
        _check_maps(event.content, room.power, sender_level, numbers)
        _check_user_changes(event, room.power, sender_level, numbers)


def _check_types(content: JsonObject, version: RoomVersion, numbers: Numbering) -> None:
    if not version.auth.integer_power_levels:
        _check_ranges(content, version, numbers)
        return
    # .1, since v10
    for name in DEFAULT_LEVELS:
        if name in content and parse_level(content[name], version) is None:
            raise AuthRejected(numbers.levels_scalar_type, f"{name} is no integer")
    # .2, since v10
    for name in ("events", "notifications"):
        if name in content and not _is_level_map(content[name], version):
            raise AuthRejected(numbers.levels_map_type, f"{name} does not map to integers")


def _check_ranges(content: JsonObject, version: RoomVersion, numbers: Numbering) -> None:
    """Up to v9 the rules leave other types alone here, but a number beyond what a double holds is refused.

    Spec: rooms/v1.md, "m.room.power_levels events accept values as floats".
    """
    events = content.get("events")
    values = [content.get(name) for name in DEFAULT_LEVELS]
    for value in (*values, *(events.values() if isinstance(events, dict) else ())):
        if type(value) in (int, float) and parse_level(value, version) is None:
            raise AuthRejected(numbers.levels_users_type, "a level is out of range")


def _is_level_map(value: object, version: RoomVersion) -> bool:
    return isinstance(value, dict) and all(
        parse_level(level, version) is not None for level in value.values()
    )


def _check_users(content: JsonObject, current: PowerLevels, numbers: Numbering) -> None:
    users = content.get("users", {})
    # .3
    if not _is_level_map(users, current.version):
        raise AuthRejected(numbers.levels_users_type, "users does not map to integers")
    try:
        # Those whom the current event lists passed this check with it; a room may list thousands.
        for user_id in users.keys() - current.users.keys():
            parse_user_id(user_id)
    except BadIdentifier as error:
        raise AuthRejected(numbers.levels_users_type, f"users: {error}") from error
    # .4, since v12
    if current.version.auth.privileged_creators and not current.creators.isdisjoint(users):
        raise AuthRejected(numbers.levels_creators, "users lists a creator of the room")


def _check_scalars(content: JsonObject, current: PowerLevels, sender_level: int, numbers: Numbering) -> None:
    # .6. SPEC: the rules say that levels not supplied are inferred from defaults: so to add or to remove a
    # level is to change it from or to its default.
    version = current.version
    for name in _changed_keys(current.content, content, DEFAULT_LEVELS, version):
        if current.single_level(name) > sender_level:
            raise AuthRejected(f"{numbers.levels_scalar_change}.1", f"{name} is above the sender's level")
        new = parse_level(content[name], version) if name in content else DEFAULT_LEVELS[name]
        if new is None or new > sender_level:
            raise AuthRejected(
                f"{numbers.levels_scalar_change}.2", f"{name} would be above the sender's level"
            )


def _check_maps(content: JsonObject, current: PowerLevels, sender_level: int, numbers: Numbering) -> None:
    version = current.version
    names = ("events", "notifications") if version.auth.check_notification_levels else ("events",)
    changes: list[tuple[JsonObject, JsonObject, list[str]]] = []
    for name in names:
        old, new = current.content.get(name), content.get(name, {})
        if not isinstance(new, dict):
            raise AuthRejected(f"{numbers.levels_map_new}.1", f"{name} is no object")
        if not isinstance(old, dict):
            old = {}
        changes.append((old, new, _changed_keys(old, new, old.keys() | new.keys(), version)))
    # .7
    for old, _, keys in changes:
        for key in keys:
            level = parse_level(old.get(key), version)
            if level is not None and level > sender_level:
                raise AuthRejected(
                    f"{numbers.levels_map_current}.1", f"{key[:100]} is above the sender's level"
                )
    # .8
    for _, new, keys in changes:
        _check_new_entries(new, keys, sender_level, version, f"{numbers.levels_map_new}.1")


def _check_user_changes(event: Pdu, current: PowerLevels, sender_level: int, numbers: Numbering) -> None:
    version = current.version
    old, new = current.users, event.content.get("users", {})
    keys = _changed_keys(old, new, old.keys() | new.keys(), version)
    # .9
    for key in keys:
        level = parse_level(old.get(key), version)
        if key != event.sender and level is not None and level >= sender_level:
            raise AuthRejected(f"{numbers.levels_users_current}.1", f"{key[:100]} is not below the sender")
    # .10
    _check_new_entries(new, keys, sender_level, version, f"{numbers.levels_users_new}.1")


def _check_new_entries(
    new: JsonObject, keys: list[str], sender_level: int, version: RoomVersion, number: str
) -> None:
    for key in keys:
        if key in new:
            level = parse_level(new[key], version)
            if level is None or level > sender_level:
                raise AuthRejected(number, f"{key[:100]} would be above the sender's level, or is no level")


def _changed_keys(old: JsonObject, new: JsonObject, keys: Iterable[str], version: RoomVersion) -> list[str]:
    """Those of `keys` that were added or removed, or whose values stand for other levels than before."""
    changed = []
    for key in keys:
        before, after = old.get(key, _MISSING), new.get(key, _MISSING)
        if before is after or (type(before) is int and type(after) is int and before == after):
            continue
        level = parse_level(before, version)
        if level is None or level != parse_level(after, version):
            changed.append(key)
    return changed
