"""Redaction rules, written out again from the lists of the specification, against each version's table."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranvier.core.canonical_json import JsonObject
from ranvier.core.events.redact import keeps_content, redact, redact_content
from ranvier.core.room_versions import ROOM_VERSIONS, V1, V10, V11, RoomVersion
from tests.unit.event_samples import (
    CONTENT_KEYS,
    EVENT_KEYS,
    EVENT_TYPES,
    VERSIONS,
    contents,
    json_values,
    texts,
    versions,
)

ALWAYS = [
    "auth_events",
    "content",
    "depth",
    "event_id",
    "hashes",
    "origin_server_ts",
    "prev_events",
    "room_id",
    "sender",
    "signatures",
    "state_key",
    "type",
]
LEGACY = ["membership", "origin", "prev_state"]
POWER = ["ban", "events", "events_default", "kick", "redact", "state_default", "users", "users_default"]

# (first version, last version, type, keys of content that stay)
KEPT: list[tuple[int, int, str, list[str]]] = [
    (1, 8, "m.room.member", ["membership"]),
    (9, 10, "m.room.member", ["join_authorised_via_users_server", "membership"]),
    # third_party_invite stays in part: see its own test.
    (11, 12, "m.room.member", ["join_authorised_via_users_server", "membership"]),
    (1, 10, "m.room.create", ["creator"]),
    (11, 12, "m.room.create", CONTENT_KEYS),
    (1, 7, "m.room.join_rules", ["join_rule"]),
    (8, 12, "m.room.join_rules", ["allow", "join_rule"]),
    (1, 10, "m.room.power_levels", POWER),
    (11, 12, "m.room.power_levels", [*POWER, "invite"]),
    (1, 5, "m.room.aliases", ["aliases"]),
    (6, 12, "m.room.aliases", []),
    (1, 12, "m.room.history_visibility", ["history_visibility"]),
    (1, 10, "m.room.redaction", []),
    (11, 12, "m.room.redaction", ["redacts"]),
    (1, 12, "m.room.message", []),
    (1, 12, "m.room.topic", []),
]


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_top_level_keys(version: RoomVersion) -> None:
    event: JsonObject = dict.fromkeys([*EVENT_KEYS, "made_up"], "value")
    kept = ALWAYS + (LEGACY if int(version.name) <= 10 else [])
    assert sorted(redact(event, version)) == sorted(kept)


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_content_keys(version: RoomVersion) -> None:
    tested = set()
    for first, last, event_type, kept in KEPT:
        if first <= int(version.name) <= last:
            content: JsonObject = dict.fromkeys(CONTENT_KEYS, "value")
            redacted = redact({"type": event_type, "content": content}, version)
            assert redacted == {"type": event_type, "content": dict.fromkeys(kept, "value")}
            assert keeps_content(event_type, version) == bool(kept)
            tested.add(event_type)
    assert tested == set(EVENT_TYPES)


SIGNED = {"mxid": "@a:b", "token": "t", "signatures": {}}


@pytest.mark.parametrize(
    ("invite", "since_v11"),
    [
        ({"display_name": "x", "signed": SIGNED}, {"signed": SIGNED}),
        ({"signed": None}, {"signed": None}),
        ({"display_name": "x"}, {}),
        ({}, {}),
    ],
)
def test_third_party_invite_keeps_only_signed(invite: JsonObject, since_v11: JsonObject) -> None:
    content = {"membership": "invite", "third_party_invite": invite}
    assert redact_content("m.room.member", content, V11) == {
        "membership": "invite",
        "third_party_invite": since_v11,
    }
    assert redact_content("m.room.member", content, V10) == {"membership": "invite"}
    assert redact_content("m.room.topic", content, V11) == {}
    for malformed in (None, "x", ["signed"], 5):
        content = {"membership": "invite", "third_party_invite": malformed}
        assert redact_content("m.room.member", content, V11) == {"membership": "invite"}


@settings(max_examples=80)
@given(
    st.dictionaries(st.sampled_from(EVENT_KEYS) | texts, json_values | contents, max_size=8),
    st.sampled_from(EVENT_TYPES) | json_values,
    versions,
)
def test_total_idempotent_and_never_adds(event: JsonObject, event_type: object, version: RoomVersion) -> None:
    event["type"] = event_type
    before = repr(event)
    once = redact(event, version)
    assert repr(event) == before, "redaction changed its input"
    assert redact(once, version) == once
    assert isinstance(once["content"], dict)
    for key, value in once.items():
        if key != "content":
            assert value is event[key]
    if isinstance(event.get("content"), dict):
        assert set(once["content"]) <= set(event["content"])


def test_every_version_has_rules_here() -> None:
    assert list(ROOM_VERSIONS) == [str(number) for number in range(1, 13)]
    assert keeps_content("m.room.member", V1)
