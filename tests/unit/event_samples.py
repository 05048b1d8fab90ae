"""Events to test with: good ones of each room version, hostile JSON, and an independent way to hash and sign.

The independent way is slow and plain on purpose: it uses canonicaljson, hashlib and PyNaCl only.
"""

import base64
import hashlib
import json
from typing import Any

import canonicaljson
import nacl.signing
from hypothesis import strategies as st

from ranvier.core.events.build import EventTemplate, Placement, build_event
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID, RoomID, ServerName, UserID
from ranvier.core.room_versions import ROOM_VERSIONS, RoomVersion
from ranvier.core.signing import SigningKey

SERVER = ServerName("hs.example")
SEED = bytes(range(32))
KEY = SigningKey(SEED, "a_1")
VERSIONS = list(ROOM_VERSIONS.values())
HASH_A = "A" * 42 + "E"
HASH_B = "b" * 42 + "c"


def room_id(version: RoomVersion) -> RoomID:
    return RoomID("!" + HASH_B if version.auth.room_id_is_create_hash else "!room:hs.example")


def placement(version: RoomVersion, **changes: Any) -> Placement:
    fields: dict[str, Any] = {
        "prev_events": [EventID("$" + HASH_A)],
        "auth_events": [EventID("$" + HASH_A)],
        "depth": 7,
        "origin_server_ts": 1_700_000_000_123,
    }
    if not version.hash_event_ids:
        first = EventID("$first:hs.example")
        fields |= {
            "event_id": EventID("$mine:hs.example"),
            "prev_events": [first],
            "auth_events": [first],
            "reference_hashes": {first: bytes(32)},
        }
    return Placement(**(fields | changes))


def template(version: RoomVersion, **changes: Any) -> EventTemplate:
    fields: dict[str, Any] = {
        "room_id": room_id(version),
        "type": "m.room.message",
        "sender": UserID("@ann:hs.example"),
        "content": {"msgtype": "m.text", "body": "héllo\n\x01 \U0001f600"},
    }
    return EventTemplate(**(fields | changes))


def build(version: RoomVersion, place: dict[str, Any] | None = None, **changes: Any) -> Pdu:
    """A signed event of ours; `changes` are of the template, `place` of the placement."""
    return build_event(
        template(version, **changes), placement(version, **(place or {})), version, SERVER, KEY
    )


def create_room(version: RoomVersion, **content: Any) -> Pdu:
    place: dict[str, Any] = {"prev_events": [], "auth_events": [], "depth": 1}
    room = None if version.auth.room_id_is_create_hash else room_id(version)
    return build(
        version,
        place,
        type="m.room.create",
        state_key="",
        room_id=room,
        content={"room_version": version.name, **content},
    )


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")


def plain_content_hash(event: dict[str, Any]) -> str:
    hashed = {key: value for key, value in event.items() if key not in ("unsigned", "signatures", "hashes")}
    return b64(hashlib.sha256(canonicaljson.encode_canonical_json(hashed)).digest())


def plain_signature(obj: dict[str, Any], seed: bytes = SEED) -> str:
    signed = {key: value for key, value in obj.items() if key not in ("unsigned", "signatures")}
    return b64(nacl.signing.SigningKey(seed).sign(canonicaljson.encode_canonical_json(signed)).signature)


# No lone surrogates: they are no Unicode text, and cannot come out of a JSON parser here.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**53 - 1, 2**53, -(2**53) + 1, -(2**53), 2**63, 2**64, -(2**63) - 1, 10**30])
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
json_objects = st.dictionaries(texts, json_values, max_size=5)
strict_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)

EVENT_KEYS = [
    "auth_events",
    "content",
    "depth",
    "event_id",
    "hashes",
    "membership",
    "origin",
    "origin_server_ts",
    "prev_events",
    "prev_state",
    "redacts",
    "room_id",
    "sender",
    "signatures",
    "state_key",
    "type",
    "unsigned",
]
EVENT_TYPES = [
    "m.room.aliases",
    "m.room.create",
    "m.room.history_visibility",
    "m.room.join_rules",
    "m.room.member",
    "m.room.message",
    "m.room.power_levels",
    "m.room.redaction",
    "m.room.topic",
]
CONTENT_KEYS = [
    "aliases",
    "allow",
    "ban",
    "body",
    "creator",
    "events",
    "events_default",
    "history_visibility",
    "invite",
    "join_authorised_via_users_server",
    "join_rule",
    "kick",
    "membership",
    "redact",
    "redacts",
    "state_default",
    "third_party_invite",
    "users",
    "users_default",
]

contents = st.dictionaries(st.sampled_from(CONTENT_KEYS) | texts, json_values, max_size=6)
strict_contents = st.dictionaries(st.sampled_from(CONTENT_KEYS) | texts, strict_values, max_size=6)
versions = st.sampled_from(VERSIONS)


@st.composite
def damaged_events(draw: st.DrawFn) -> tuple[RoomVersion, dict[str, Any]]:
    """A good event in which some keys were removed or hold something else, most of them the wrong type."""
    version = draw(versions)
    event_type = draw(st.sampled_from(EVENT_TYPES))
    if event_type == "m.room.create":
        sample = create_room(version)
    else:
        sample = build(version, type=event_type, state_key=draw(st.none() | st.just("")))
    event: dict[str, Any] = json.loads(sample.json)
    for key in draw(st.lists(st.sampled_from(EVENT_KEYS), max_size=4, unique=True)):
        if draw(st.booleans()):
            event.pop(key, None)
        else:
            event[key] = draw(json_values | contents | st.just(event.get(key)) | st.just([event.get(key)]))
    return version, event
