"""From a template to a signed `Pdu`: every event that our own users send is made here.

Each part is encoded once. What is hashed, what is signed and what is stored differ by a few parts only, so
they are put together from the same encoded parts, in the order of canonical JSON.

Spec: server-server API, "Adding hashes and signatures to outgoing events".
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
import orjson

from ranvier.core import canonical_json
from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import TooLarge
from ranvier.core.events.format import check_field, check_size, max_depth
from ranvier.core.events.parse import find_redacts, signed_bytes
from ranvier.core.events.pdu import Pdu
from ranvier.core.events.redact import keeps_content, redact_content
from ranvier.core.hashes import event_id_of_hash
from ranvier.core.identifiers import EventID, RoomID, ServerName, UserID
from ranvier.core.limits import MAX_AUTH_EVENTS, MAX_PREV_EVENTS
from ranvier.core.room_versions import RoomVersion
from ranvier.core.signing import SigningKey, merge_signatures
from ranvier.core.unpadded_base64 import encode_base64

_RAW_OBJECT: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])


class EventTemplate(msgspec.Struct, frozen=True, kw_only=True):
    """What the author of an event decides."""

    room_id: RoomID | None  # None only for the create event of a room that it gives the name to (v12)
    type: str
    state_key: str | None = None
    sender: UserID
    content: JsonObject
    redacts: EventID | None = None  # put where the room version keeps it
    sticky_ms: int | None = None  # for how long it is sticky (MSC4354)


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Where and when an event takes its place in its room's graph."""

    prev_events: Sequence[EventID]
    auth_events: Sequence[EventID]
    depth: int  # one more than the deepest of prev_events; cut to what the room version allows
    origin_server_ts: int  # ms since the epoch
    event_id: EventID | None = None  # v1 and v2 only, where the author chooses it
    reference_hashes: Mapping[EventID, bytes] = {}  # v1 and v2 only: of all prev_events and auth_events


class _Parts(msgspec.Struct, frozen=True, gc=False):
    """The event as canonical JSON, cut where hashes, signatures, content or `redacts` come or go."""

    head: bytes
    content: bytes
    depth_and_id: bytes
    sticky: bytes
    time_and_parents: bytes
    redacts: bytes
    room_and_sender: bytes
    key_and_type: bytes


def build_event(
    template: EventTemplate, placement: Placement, version: RoomVersion, server: ServerName, key: SigningKey
) -> Pdu:
    """Hash and sign an event of ours. Whether the room's rules allow it is for `auth` to say.

    Raises: BadJson when the content has no canonical form (the strict one in v6 and up); TooLarge for an
    event, a type or a state key above its limit; BadEvent for a type or state key that no server could store;
    ValueError when the caller gives a room id or an event id where the version has none, or the reverse.
    """
    _check(template, placement, version)
    content = template.content
    if template.redacts is not None and version.redacts_in_content:
        content = {**content, "redacts": template.redacts}
    parts = _encode_parts(template, placement, version, content)
    content_hash = encode_base64(hashlib.sha256(_join_unsigned(parts)).digest())
    hashes = b',"hashes":{"sha256":"%b"}' % content_hash.encode("ascii")
    signed = _join_signed(parts, hashes, _encode_kept_content(template.type, content, version))
    signature = encode_base64(key.sign(signed))
    json = _join_whole(parts, hashes, server, key, signature)
    check_size(json)
    event_id = placement.event_id
    if event_id is None:
        event_id = event_id_of_hash(hashlib.sha256(signed).digest(), version)
    return Pdu(
        event_id=event_id,
        room_id=RoomID("!" + event_id[1:]) if template.room_id is None else template.room_id,
        sender=template.sender,
        type=template.type,
        state_key=template.state_key,
        content=content,
        origin_server_ts=placement.origin_server_ts,
        depth=min(placement.depth, max_depth(version)),
        prev_events=tuple(placement.prev_events),
        auth_events=tuple(placement.auth_events),
        redacts=find_redacts(template.type, content, template.redacts, version),
        signatures={server: {key.key_id: signature}},
        json=json,
    )


def _check_sizes(template: EventTemplate, placement: Placement) -> None:
    check_field("type", template.type)
    if template.state_key is not None:
        check_field("state_key", template.state_key)
    if len(placement.prev_events) > MAX_PREV_EVENTS or len(placement.auth_events) > MAX_AUTH_EVENTS:
        raise TooLarge("an event cites too many others")


def _check(template: EventTemplate, placement: Placement, version: RoomVersion) -> None:
    _check_sizes(template, placement)
    if (placement.event_id is None) is not version.hash_event_ids:
        raise ValueError("an event has an event_id of its own in room versions 1 and 2, and only there")
    names_room = template.type == "m.room.create" and version.auth.room_id_is_create_hash
    if (template.room_id is None) is not names_room:
        raise ValueError("an event names its room, unless it is the create event that gives the name")


def _encode_parts(
    template: EventTemplate, placement: Placement, version: RoomVersion, content: JsonObject
) -> _Parts:
    depth = b',"depth":%d' % min(placement.depth, max_depth(version))
    room = b"" if template.room_id is None else b',"room_id":' + orjson.dumps(template.room_id)
    state_key = b"" if template.state_key is None else b',"state_key":' + orjson.dumps(template.state_key)
    redacts = b""
    if template.redacts is not None and not version.redacts_in_content:
        redacts = b',"redacts":' + orjson.dumps(template.redacts)
    return _Parts(
        b'{"auth_events":%b,"content":' % _encode_ids(placement.auth_events, placement, version),
        _encode_content(content, version),
        depth if placement.event_id is None else depth + b',"event_id":' + orjson.dumps(placement.event_id),
        b"" if template.sticky_ms is None else b',"msc4354_sticky":{"duration_ms":%d}' % template.sticky_ms,
        b',"origin_server_ts":%d,"prev_events":%b'
        % (placement.origin_server_ts, _encode_ids(placement.prev_events, placement, version)),
        redacts,
        b'%b,"sender":%b' % (room, orjson.dumps(template.sender)),
        b'%b,"type":%b}' % (state_key, orjson.dumps(template.type)),
    )


def _encode_content(content: JsonObject, version: RoomVersion) -> bytes:
    if version.strict_canonical_json:
        return canonical_json.encode_strict(content)
    return canonical_json.encode(content)


def _encode_kept_content(event_type: str, content: JsonObject, version: RoomVersion) -> bytes:
    if not keeps_content(event_type, version):
        return b"{}"
    return _encode_content(redact_content(event_type, content, version), version)


def _encode_ids(event_ids: Sequence[EventID], placement: Placement, version: RoomVersion) -> bytes:
    if version.hash_event_ids:
        return orjson.dumps(list(event_ids))
    hashes = placement.reference_hashes
    return orjson.dumps([(event_id, {"sha256": encode_base64(hashes[event_id])}) for event_id in event_ids])


def _join_unsigned(parts: _Parts) -> bytes:
    """What the content hash covers; also the form in which one server offers an event for another to sign."""
    return b"".join(
        (
            parts.head,
            parts.content,
            parts.depth_and_id,
            parts.sticky,
            parts.time_and_parents,
            parts.redacts,
            parts.room_and_sender,
            parts.key_and_type,
        )
    )


def _join_signed(parts: _Parts, hashes: bytes, kept_content: bytes) -> bytes:
    # No room version keeps a top-level `redacts`, nor what makes an event sticky.
    return b"".join(
        (
            parts.head,
            kept_content,
            parts.depth_and_id,
            hashes,
            parts.time_and_parents,
            parts.room_and_sender,
            parts.key_and_type,
        )
    )


def _join_whole(parts: _Parts, hashes: bytes, server: ServerName, key: SigningKey, signature: str) -> bytes:
    signatures = orjson.dumps({server: {key.key_id: signature}})
    return b"".join(
        (
            parts.head,
            parts.content,
            parts.depth_and_id,
            hashes,
            parts.sticky,
            parts.time_and_parents,
            parts.redacts,
            parts.room_and_sender,
            b',"signatures":',
            signatures,
            parts.key_and_type,
        )
    )


def encode_template(template: EventTemplate, placement: Placement, version: RoomVersion) -> bytes:
    """An event without hashes and signatures, as make_join and its kin offer it to the server that will sign.

    That server chooses the id in v1 and v2, and the time.

    Raises: BadJson, TooLarge, BadEvent, as `build_event` does.
    """
    _check_sizes(template, placement)
    return _join_unsigned(_encode_parts(template, placement, version, template.content))


def countersign(pdu: Pdu, version: RoomVersion, server: ServerName, key: SigningKey) -> Pdu:
    """The same event with our signature beside those it has (invites, restricted joins).

    Raises: TooLarge when there is no room left for it.
    """
    signature = encode_base64(key.sign(signed_bytes(pdu, version)))
    return with_signatures(pdu, {server: {key.key_id: signature}})


def with_signatures(pdu: Pdu, added: Mapping[str, Mapping[str, str]]) -> Pdu:
    """The same event with more signatures, which win over those of the same key. They are not verified here.

    Raises: TooLarge; BadJson for a signature or a name that is no JSON string.
    """
    signatures = merge_signatures(pdu.signatures, added)
    # The other parts stay as they are, byte for byte.
    parts: dict[str, msgspec.Raw] = _RAW_OBJECT.decode(pdu.json)
    parts["signatures"] = msgspec.Raw(canonical_json.encode(signatures))
    json = b"{%b}" % b",".join([b"%b:%b" % (orjson.dumps(name), part) for name, part in parts.items()])
    check_size(json)
    return msgspec.structs.replace(pdu, signatures=signatures, json=json)


def wire_json(pdu: Pdu, unsigned: JsonObject | None = None) -> bytes:
    """The event as it goes to another server: the stored bytes, and `unsigned` (invite_room_state) if any.

    Raises: BadJson when `unsigned` cannot be encoded.
    """
    if not unsigned:
        return pdu.json
    return b'%b,"unsigned":%b}' % (pdu.json[:-1], canonical_json.encode(unsigned))
