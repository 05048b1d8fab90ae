"""Events of ours are put together from encoded parts: they must be what the plain way of the spec gives."""

import json
from typing import Any

import canonicaljson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import BadEvent, BadJson, BadSignature, TooLarge
from ranvier.core.events.build import build_event, countersign, wire_json, with_signatures
from ranvier.core.events.parse import parse_pdu, parse_stored, signed_bytes, verify_event_signature
from ranvier.core.events.pdu import Pdu
from ranvier.core.events.redact import redact
from ranvier.core.hashes import event_id_of
from ranvier.core.identifiers import EventID, ServerName
from ranvier.core.room_versions import V1, V2, V5, V6, V10, V11, V12, RoomVersion
from ranvier.core.signing import SigningKey
from tests.unit.event_samples import (
    EVENT_TYPES,
    HASH_A,
    KEY,
    SERVER,
    VERSIONS,
    build,
    contents,
    create_room,
    placement,
    plain_content_hash,
    plain_signature,
    strict_contents,
    template,
    texts,
    versions,
)

OTHER = ServerName("other.example")
OTHER_KEY = SigningKey(b"\x07" * 32, "o")


def _check_plainly(pdu: Pdu, version: RoomVersion) -> None:
    """Hash, signature and id, computed once more by the independent way."""
    event = json.loads(pdu.json)
    assert pdu.json == canonicaljson.encode_canonical_json(event)
    assert event["hashes"] == {"sha256": plain_content_hash(event)}
    assert event["signatures"] == {SERVER: {KEY.key_id: plain_signature(redact(event, version))}}
    assert pdu.event_id == event_id_of(event, version)


@settings(max_examples=120)
@given(
    versions,
    st.sampled_from(EVENT_TYPES) | texts.filter(lambda text: "\0" not in text),
    st.none() | texts.filter(lambda text: "\0" not in text),
    st.data(),
)
def test_as_the_specification_says(
    version: RoomVersion, event_type: str, state_key: str | None, data: st.DataObject
) -> None:
    content = data.draw(strict_contents if version.strict_canonical_json else contents)
    redacts = data.draw(st.none() | st.just(EventID("$" + HASH_A)))
    room = {"room_id": None} if event_type == "m.room.create" and version is V12 else {}
    pdu = build(version, type=event_type, state_key=state_key, content=content, redacts=redacts, **room)
    _check_plainly(pdu, version)
    received, stored = (
        parse_pdu(pdu.json, version),
        parse_stored(pdu.json, pdu.event_id, pdu.room_id, version),
    )
    for name in Pdu.__struct_fields__:
        assert getattr(pdu, name) == getattr(received, name) == getattr(stored, name), name


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_a_room_is_created(version: RoomVersion) -> None:
    pdu = create_room(version)
    _check_plainly(pdu, version)
    if version is V12:
        assert pdu.room_id == "!" + pdu.event_id[1:]
        assert b'"room_id"' not in pdu.json
    else:
        assert pdu.room_id == "!room:hs.example"


@pytest.mark.parametrize("version", [V1, V10, V11, V12], ids=lambda version: version.name)
def test_redacts_goes_where_the_version_keeps_it(version: RoomVersion) -> None:
    target = EventID("$" + HASH_A)
    content: JsonObject = {"reason": "spam"}
    pdu = build(version, type="m.room.redaction", content=content, redacts=target)
    event = json.loads(pdu.json)
    assert pdu.redacts == target
    assert content == {"reason": "spam"}
    if version.redacts_in_content:
        assert event["content"] == {"reason": "spam", "redacts": target} == pdu.content
        assert "redacts" not in event
    else:
        assert (event["redacts"], event["content"]) == (target, content)


def test_versions_1_and_2_pair_parents_with_hashes() -> None:
    pdu = build(V1)
    pair = ["$first:hs.example", {"sha256": "A" * 43}]
    assert json.loads(pdu.json)["prev_events"] == json.loads(pdu.json)["auth_events"] == [pair]
    assert pdu.prev_events == pdu.auth_events == ("$first:hs.example",)
    assert pdu.event_id == "$mine:hs.example"


def test_depth_stays_at_the_maximum() -> None:
    for version, maximum in ((V2, 2**63 - 1), (V5, 2**63 - 1), (V6, 2**53 - 1), (V12, 2**53 - 1)):
        pdu = build(version, {"depth": 2**64})
        assert pdu.depth == json.loads(pdu.json)["depth"] == maximum
        parse_pdu(pdu.json, version)


@pytest.mark.parametrize(
    ("error", "changes"),
    [
        (TooLarge, {"type": "x" * 256}),
        (TooLarge, {"state_key": "é" * 128}),
        (TooLarge, {"content": {"body": "x" * 66_000}}),
        (BadEvent, {"type": "a\0"}),
        (BadEvent, {"state_key": "\0"}),
        (BadEvent, {"state_key": "\ud800"}),
        (BadJson, {"content": {"body": "\ud800"}}),
        (BadJson, {"content": {"n": 2**53}}),
        (BadJson, {"content": {"n": 0.5}}),
        (BadJson, {"content": {1: 2}}),
        (ValueError, {"room_id": None}),
        (ValueError, {"type": "m.room.create", "state_key": ""}),
    ],
    ids=lambda value: str(value)[:40],
)
def test_refused(error: type[Exception], changes: dict[str, Any]) -> None:
    with pytest.raises(error):
        build(V12, **changes)


@pytest.mark.parametrize(
    ("error", "place"),
    [
        (TooLarge, {"prev_events": ["$" + HASH_A] * 21}),
        (TooLarge, {"auth_events": ["$" + HASH_A] * 11}),
        (ValueError, {"event_id": "$mine:hs.example"}),
    ],
)
def test_refused_places(error: type[Exception], place: dict[str, Any]) -> None:
    with pytest.raises(error):
        build(V12, place)
    with pytest.raises(ValueError, match="event_id"):
        build(V1, {"event_id": None})


def test_the_largest_event() -> None:
    spare = 65_536 - len(build(V12, content={"b": ""}).json)
    assert len(build(V12, content={"b": "x" * spare}).json) == 65_536
    with pytest.raises(TooLarge):
        build(V12, content={"b": "x" * (spare + 1)})


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_countersigning_leaves_everything_else_alone(version: RoomVersion) -> None:
    content = {"membership": "invite", "x": "é"} | (
        {} if version.strict_canonical_json else {"f": 1e22, "i": 10**30}
    )
    pdu = build(version, type="m.room.member", state_key="@bob:other.example", content=content)
    signed = countersign(pdu, version, OTHER, OTHER_KEY)
    assert signed.event_id == pdu.event_id
    before, after = json.loads(pdu.json), json.loads(signed.json)
    assert set(after["signatures"]) == {SERVER, OTHER}
    assert after == {**before, "signatures": after["signatures"]}
    assert signed.json == canonicaljson.encode_canonical_json(after)
    covered = signed_bytes(signed, version)
    verify_event_signature(signed, covered, SERVER, KEY.key_id, KEY.verify_key)
    verify_event_signature(signed, covered, OTHER, OTHER_KEY.key_id, OTHER_KEY.verify_key)
    assert parse_pdu(signed.json, version) == pdu


def test_signatures_replace_those_of_the_same_key() -> None:
    pdu = build(V12)
    changed = with_signatures(pdu, {SERVER: {KEY.key_id: "x", "ed25519:2": 'q"'}})
    assert changed.signatures == {SERVER: {KEY.key_id: "x", "ed25519:2": 'q"'}}
    assert json.loads(changed.json)["signatures"] == changed.signatures
    assert json.loads(pdu.json)["signatures"] == pdu.signatures != changed.signatures
    with pytest.raises(BadSignature):
        verify_event_signature(changed, signed_bytes(changed, V12), SERVER, KEY.key_id, KEY.verify_key)


def test_no_signature_makes_an_event_too_large() -> None:
    spare = 65_536 - len(build(V12, content={"b": ""}).json)
    pdu = build(V12, content={"b": "x" * spare})
    with pytest.raises(TooLarge):
        countersign(pdu, V12, OTHER, OTHER_KEY)


def test_unsigned_travels_beside_the_event() -> None:
    pdu = build(V12)
    assert wire_json(pdu) == wire_json(pdu, {}) == pdu.json
    sent = wire_json(pdu, {"invite_room_state": [{"type": "m.room.name"}], "age": 1.5})
    assert json.loads(sent) == {
        **json.loads(pdu.json),
        "unsigned": {"invite_room_state": [{"type": "m.room.name"}], "age": 1.5},
    }
    assert parse_pdu(sent, V12).json == pdu.json
    with pytest.raises(BadJson):
        wire_json(pdu, {"x": float("nan")})


def test_building_twice_gives_the_same_event() -> None:
    first, second = (build_event(template(V12), placement(V12), V12, SERVER, KEY) for _ in range(2))
    assert first.json == second.json
