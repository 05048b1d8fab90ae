"""The shape that an event must have in its room version, before anything else is asked of it.

Spec: rooms/v*.md, "Event format"; client-server API, "Size limits"; server-server API, "Checks performed on
receipt of a PDU", step 1.
"""

from typing import Final

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import BadBase64, BadEvent, BadIdentifier, TooLarge
from ranvier.core.identifiers import parse_event_id, parse_room_id, parse_user_id
from ranvier.core.limits import (
    MAX_AUTH_EVENTS,
    MAX_DEPTH_UNSAFE,
    MAX_EVENT_BYTES,
    MAX_EVENT_FIELD_BYTES,
    MAX_PREV_EVENTS,
    MAX_SAFE_INTEGER,
)
from ranvier.core.room_versions import RoomVersion
from ranvier.core.unpadded_base64 import decode_base64

_MAX_INT64: Final = 2**63 - 1


def max_depth(version: RoomVersion) -> int:
    """The greatest `depth`; an event whose parents are at it stays there."""
    return MAX_SAFE_INTEGER if version.strict_canonical_json else MAX_DEPTH_UNSAFE


def check_format(event: JsonObject, version: RoomVersion, *, limit_parents: bool = True) -> None:
    """Check everything about an event that its room version fixes without looking at any other event.

    `unsigned` is not looked at: it is not part of what servers agree on. The size of the whole (`check_size`)
    and the strictness of numbers (v6 and up) are checked on the way to the canonical form. `limit_parents` is
    false for an event from /backfill, which may be older than the limits on prev_events and auth_events.

    Raises: BadEvent; TooLarge for a field or a list above its limit.
    """
    _check_strings(event, version)
    _check_ids(event, version)
    if not isinstance(event.get("content"), dict):
        raise BadEvent("content is not an object")
    check_depth(event.get("depth"), version)
    timestamp = event.get("origin_server_ts")
    if type(timestamp) is not int or not -_MAX_INT64 <= timestamp <= _MAX_INT64:
        raise BadEvent("origin_server_ts is not an integer of 64 bits")
    _check_hashes(event.get("hashes"))
    _check_signatures(event.get("signatures"))
    check_event_ids(
        event.get("prev_events"), "prev_events", MAX_PREV_EVENTS if limit_parents else None, version
    )
    check_event_ids(
        event.get("auth_events"), "auth_events", MAX_AUTH_EVENTS if limit_parents else None, version
    )
    # Since v12: the room id implies the create event, so no event cites it.
    if version.auth.room_id_is_create_hash and "$" + event.get("room_id", "")[1:] in event["auth_events"]:
        raise BadEvent("auth_events cites the create event")


def check_depth(depth: object, version: RoomVersion) -> None:
    """Raises: BadEvent unless it is an integer from 0 to `max_depth`."""
    if type(depth) is not int or not 0 <= depth <= max_depth(version):
        raise BadEvent(f"depth is not an integer from 0 to {max_depth(version)}")


def check_size(json: bytes) -> None:
    """Raises: TooLarge when an event in canonical JSON, with its signatures, is above the limit."""
    if len(json) > MAX_EVENT_BYTES:
        raise TooLarge(f"an event has at most {MAX_EVENT_BYTES} bytes, this one has {len(json)}")


def check_field(name: str, value: object, *, is_long: bool = False) -> None:
    """Check a `type` or a `state_key`: a string of at most 255 bytes (`is_long`: code points) that every database
    can hold.

    Raises: BadEvent, TooLarge.
    """
    if type(value) is not str:
        raise BadEvent(f"{name} is not a string")
    if len(value) > MAX_EVENT_FIELD_BYTES or not value.isascii():
        try:
            size = len(value.encode())
        except UnicodeEncodeError as error:
            raise BadEvent(f"{name} has a lone surrogate") from error
        if (len(value) if is_long else size) > MAX_EVENT_FIELD_BYTES:
            unit = "code points" if is_long else "bytes"
            raise TooLarge(f"{name} has more than {MAX_EVENT_FIELD_BYTES} {unit}")
    if "\0" in value:
        raise BadEvent(f"{name} has a NUL character")


def _check_strings(event: JsonObject, version: RoomVersion) -> None:
    check_field("type", event.get("type"), is_long=version.has_long_fields)
    if "state_key" in event:
        check_field("state_key", event["state_key"], is_long=version.has_long_fields)


def _check_ids(event: JsonObject, version: RoomVersion) -> None:
    try:
        parse_user_id(event.get("sender"))
        if version.hash_event_ids:
            # Since v3: the id is computed. A field of that name would be hashed into its own value.
            if "event_id" in event:
                raise BadEvent("an event of this room version has no event_id")
        elif ":" not in parse_event_id(event.get("event_id")):
            raise BadEvent("event_id names no server")
        _check_room_id(event, version)
    except BadIdentifier as error:
        raise BadEvent(str(error)) from error


def _check_room_id(event: JsonObject, version: RoomVersion) -> None:
    if not version.auth.room_id_is_create_hash:
        if ":" not in parse_room_id(event.get("room_id")):
            raise BadEvent("a room id of this room version names a server")
    # Since v12: the room is named by the hash of its create event, which so cannot hold the name.
    elif event["type"] != "m.room.create":
        if ":" in parse_room_id(event.get("room_id")):
            raise BadEvent("a room id of this room version is a hash")
    elif "room_id" in event:
        raise BadEvent("a create event of this room version has no room_id")


def _check_hashes(hashes: object) -> None:
    if not isinstance(hashes, dict):
        raise BadEvent("hashes is not an object")
    try:
        decode_base64(hashes.get("sha256"))
    except BadBase64 as error:
        raise BadEvent("hashes.sha256 is not base64") from error


def _check_signatures(signatures: object) -> None:
    if not isinstance(signatures, dict):
        raise BadEvent("signatures is not an object")
    for by_key in signatures.values():
        if not isinstance(by_key, dict) or not all(type(signature) is str for signature in by_key.values()):
            raise BadEvent("signatures is not an object of objects of strings")


def check_event_ids(value: object, name: str, limit: int | None, version: RoomVersion) -> None:
    """Check `prev_events` or `auth_events`: plain ids (v3 and up), or each paired with its event's hashes.

    Raises: BadEvent, TooLarge.
    """
    if not isinstance(value, list):
        raise BadEvent(f"{name} is not an array")
    if limit is not None and len(value) > limit:
        raise TooLarge(f"{name} has more than {limit} events")
    if not version.hash_event_ids:
        if not all(isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], dict) for pair in value):
            raise BadEvent(f"{name} is not an array of pairs of event id and hashes")
        value = [pair[0] for pair in value]
    try:
        for event_id in value:
            parse_event_id(event_id)
    except BadIdentifier as error:
        raise BadEvent(f"{name}: {error}") from error
