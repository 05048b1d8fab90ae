"""What a malformed event must not do is come in. Each row damages one thing of an event that passes."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import BadEvent, TooLarge
from ranvier.core.events.format import check_field, check_format, check_size, max_depth
from ranvier.core.room_versions import V1, V2, V3, V5, V6, V11, V12, RoomVersion
from tests.unit.event_samples import HASH_A, HASH_B, VERSIONS, build, create_room, damaged_events


class _Gone:
    """Stands for a key that is taken out; its name is the same in every process of tests."""

    def __repr__(self) -> str:
        return "gone"


_GONE = _Gone()


def _event(version: RoomVersion, changes: dict[str, Any] | None = None) -> JsonObject:
    event: JsonObject = json.loads(build(version).json)
    for key, value in (changes or {}).items():
        if value is _GONE:
            event.pop(key, None)
        else:
            event[key] = value
    return event


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_what_we_build_passes(version: RoomVersion) -> None:
    check_format(_event(version), version)
    check_format(json.loads(create_room(version).json), version)
    state = build(version, type="m.room.topic", state_key="", content={"topic": "x"})
    check_format(json.loads(state.json), version)


_FORMAT: list[dict[str, Any]] = [
    *(
        {key: _GONE}
        for key in ["type", "sender", "content", "depth", "origin_server_ts", "hashes", "signatures"]
    ),
    *(
        {key: None}
        for key in [
            "type",
            "sender",
            "content",
            "depth",
            "origin_server_ts",
            "hashes",
            "signatures",
            "state_key",
        ]
    ),
    *(
        {key: [5]}
        for key in ["type", "sender", "room_id", "content", "depth", "hashes", "signatures", "state_key"]
    ),
    {"prev_events": _GONE},
    {"auth_events": _GONE},
    {"prev_events": {}},
    {"prev_events": "$x"},
    {"prev_events": [5]},
    {"prev_events": [None]},
    {"prev_events": [[]]},
    {"auth_events": [[5, {}]]},
    {"auth_events": [{"a": 1}]},
    {"type": "a\0b"},
    {"state_key": "\0"},
    {"type": "\ud800"},
    {"state_key": "x\udfff"},
    {"sender": ""},
    {"sender": "ann"},
    {"sender": "@ann"},
    {"sender": "@ann:"},
    {"sender": "@ann:a b"},
    {"sender": "@a\0:hs.example"},
    {"sender": "#ann:hs.example"},
    {"sender": "@\ud800:hs.example"},
    {"room_id": _GONE},
    {"room_id": ""},
    {"room_id": "!"},
    {"room_id": "room:hs.example"},
    {"room_id": "!a\0:hs.example"},
    {"content": []},
    {"content": "x"},
    {"depth": -1},
    {"depth": True},
    {"depth": 1.0},
    {"depth": "1"},
    {"depth": 2**63},
    {"origin_server_ts": 1.5},
    {"origin_server_ts": "1"},
    {"origin_server_ts": False},
    {"origin_server_ts": 2**63},
    {"origin_server_ts": -(2**63) - 1},
    {"hashes": {}},
    {"hashes": {"sha256": None}},
    {"hashes": {"sha256": "!"}},
    {"hashes": {"sha512": HASH_A}},
    {"signatures": {"hs.example": "x"}},
    {"signatures": {"hs.example": None}},
    {"signatures": {"hs.example": {"ed25519:1": 5}}},
]


@pytest.mark.parametrize("changes", _FORMAT, ids=str)
@pytest.mark.parametrize("version", [V1, V3, V6, V12], ids=lambda version: version.name)
def test_malformed_in_every_version(version: RoomVersion, changes: dict[str, Any]) -> None:
    with pytest.raises(BadEvent):
        check_format(_event(version, changes), version)


_PAIR = ["$x:hs.example", {"sha256": HASH_A}]


@pytest.mark.parametrize(
    ("version", "changes", "good"),
    [
        # v1, v2: the id is in the event; parents are paired with hashes.
        (V1, {"event_id": _GONE}, False),
        (V1, {"event_id": "$" + HASH_A}, False),
        (V1, {"event_id": "$x:hs.example"}, True),
        (V2, {"prev_events": [_PAIR]}, True),
        (V2, {"prev_events": [["$x:hs.example", {}]]}, True),
        (V2, {"prev_events": ["$x:hs.example"]}, False),
        (V2, {"prev_events": [["$x:hs.example"]]}, False),
        (V2, {"prev_events": [[*_PAIR, 1]]}, False),
        (V2, {"prev_events": [["$x:hs.example", "hash"]]}, False),
        (V2, {"auth_events": [["x", {}]]}, False),
        # v3 and up: the id is computed; parents are plain.
        (V3, {"event_id": "$x:hs.example"}, False),
        (V12, {"event_id": "$" + HASH_A}, False),
        (V3, {"prev_events": [_PAIR]}, False),
        (V3, {"prev_events": ["$a/b+" + HASH_A[4:]]}, True),
        # Room ids name a server until v11, and are hashes from v12.
        (V11, {"room_id": "!" + HASH_B}, False),
        (V11, {"room_id": "!room:hs.example"}, True),
        (V12, {"room_id": "!room:hs.example"}, False),
        (V12, {"room_id": "!short"}, False),
        # v12: the create event gives the name of the room and so cannot have it; and nobody cites it.
        (V12, {"type": "m.room.create", "state_key": ""}, False),
        (V12, {"type": "m.room.create", "state_key": "", "room_id": _GONE}, True),
        (V11, {"type": "m.room.create", "state_key": "", "room_id": _GONE}, False),
        (V12, {"auth_events": ["$" + HASH_A, "$" + HASH_B]}, False),
        (V12, {"prev_events": ["$" + HASH_B]}, True),
        (V11, {"auth_events": ["$" + HASH_A, "$" + HASH_B]}, True),
        # Depth.
        (V5, {"depth": 2**63 - 1}, True),
        (V6, {"depth": 2**53 - 1}, True),
        (V6, {"depth": 2**53}, False),
        # Not our business here.
        (V12, {"unsigned": "x", "made_up": [1.5]}, True),
        (V1, {"origin": 5, "prev_state": [], "membership": "join", "redacts": 5}, True),
        (V1, {"sender": "@Änn e\n:hs.example"}, True),
        (V1, {"sender": "@:hs.example"}, True),
        (V12, {"signatures": {}}, True),
        (V12, {"prev_events": [], "auth_events": []}, True),
    ],
    ids=lambda value: value.name if isinstance(value, RoomVersion) else str(value)[:60],
)
def test_what_depends_on_the_version(version: RoomVersion, changes: dict[str, Any], good: bool) -> None:
    if good:
        check_format(_event(version, changes), version)
    else:
        with pytest.raises(BadEvent):
            check_format(_event(version, changes), version)


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_limits_on_parents(version: RoomVersion) -> None:
    event = _event(version)
    one = event["prev_events"][0]
    check_format({**event, "prev_events": [one] * 20, "auth_events": [one] * 10}, version)
    with pytest.raises(TooLarge):
        check_format({**event, "prev_events": [one] * 21}, version)
    with pytest.raises(TooLarge):
        check_format({**event, "auth_events": [one] * 11}, version)
    # Backfilled events may be older than the limits, but not otherwise malformed.
    many = {**event, "prev_events": [one] * 200, "auth_events": [one] * 200}
    check_format(many, version, limit_parents=False)
    with pytest.raises(BadEvent):
        check_format({**many, "prev_events": [None]}, version, limit_parents=False)


@pytest.mark.parametrize("key", ["type", "state_key"])
def test_limits_on_fields_are_in_bytes(key: str) -> None:
    for good in ("x" * 255, "é" * 127 + "x", "", "\U0001f600" * 63):
        check_format(_event(V12, {key: good}), V12)
    for bad in ("x" * 256, "é" * 128, "\U0001f600" * 64, "x" * 100_000):
        with pytest.raises(TooLarge):
            check_field(key, bad)
        with pytest.raises(TooLarge):
            check_format(_event(V12, {key: bad}), V12)
    with pytest.raises(BadEvent):
        check_format(_event(V12, {"sender": "@" + "a" * 244 + ":hs.example"}), V12)
    check_format(_event(V12, {"sender": "@" + "a" * 243 + ":hs.example"}), V12)


def test_limit_on_the_whole() -> None:
    check_size(b"x" * 65_536)
    with pytest.raises(TooLarge):
        check_size(b"x" * 65_537)


def test_the_greatest_depth() -> None:
    assert max_depth(V5) == 2**63 - 1
    assert max_depth(V6) == max_depth(V12) == 2**53 - 1


@settings(max_examples=120)
@given(damaged_events())
def test_nothing_but_bad_event_comes_out(case: tuple[RoomVersion, JsonObject]) -> None:
    version, event = case
    before = repr(event)
    with contextlib.suppress(BadEvent):
        check_format(event, version)
    assert repr(event) == before
