"""An event of another server becomes a Pdu or is dropped; what our own store gives back is the same Pdu."""

import json
from typing import Any

import canonicaljson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranvier.core import canonical_json
from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import BadEvent, BadJson, BadSignature, TooLarge
from ranvier.core.events.parse import (
    find_room_id,
    parse_pdu,
    parse_stored,
    pdu_of_object,
    required_signers,
    signed_bytes,
    verify_event_signature,
)
from ranvier.core.events.pdu import Pdu
from ranvier.core.events.redact import redact
from ranvier.core.hashes import event_id_of, signed_form
from ranvier.core.identifiers import ServerName
from ranvier.core.room_versions import V1, V2, V3, V5, V6, V7, V8, V9, V10, V11, V12, RoomVersion
from tests.unit.event_samples import (
    HASH_A,
    KEY,
    SERVER,
    VERSIONS,
    build,
    contents,
    create_room,
    damaged_events,
    plain_content_hash,
    plain_signature,
    versions,
)

FIELDS = Pdu.__struct_fields__


def _same(left: Pdu, right: Pdu) -> bool:
    return all(getattr(left, name) == getattr(right, name) for name in FIELDS)


def _received(version: RoomVersion, **changes: Any) -> JsonObject:
    """An event made and signed by the independent way."""
    event = json.loads(build(version).json)
    event |= changes
    event["hashes"] = {"sha256": plain_content_hash(event)}
    event["signatures"] = {SERVER: {KEY.key_id: plain_signature(redact(event, version))}}
    return event


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
@pytest.mark.parametrize("kind", ["message", "state", "create", "redaction"])
def test_our_own_event_arrives_as_it_left(version: RoomVersion, kind: str) -> None:
    target = "$target:hs.example"
    pdu = {
        "message": lambda: build(version),
        "state": lambda: build(version, type="m.room.topic", state_key="", content={"topic": "t"}),
        "create": lambda: create_room(version),
        "redaction": lambda: build(version, type="m.room.redaction", content={}, redacts=target),
    }[kind]()
    received = parse_pdu(pdu.json, version)
    assert _same(received, pdu)
    assert received.redacts == (target if kind == "redaction" else None)
    stored = parse_stored(pdu.json, pdu.event_id, pdu.room_id, version)
    assert _same(stored, pdu)
    signed = signed_bytes(received, version)
    verify_event_signature(received, signed, SERVER, KEY.key_id, KEY.verify_key)


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_white_space_order_and_unsigned_do_not_matter(version: RoomVersion) -> None:
    event = _received(version)
    event["unsigned"] = {"age": 1.5, "redacted_because": {}}
    text = json.dumps(dict(reversed(event.items())), indent=3, ensure_ascii=True).encode()
    pdu = parse_pdu(text, version)
    del event["unsigned"]
    assert pdu.json == canonicaljson.encode_canonical_json(event)
    assert pdu.event_id == event_id_of(event, version)
    assert pdu.content == event["content"]


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_a_wrong_content_hash_leaves_the_redacted_event(version: RoomVersion) -> None:
    event = _received(version)
    forged = {**event, "content": {"body": "forged"}, "made_up": 1}
    whole, pdu = pdu_of_object(event, version), pdu_of_object(forged, version)
    assert pdu.event_id == whole.event_id
    assert pdu.content == {}
    assert pdu.json == canonicaljson.encode_canonical_json(redact(event, version))
    # What was signed is what is left.
    verify_event_signature(pdu, signed_bytes(pdu, version), SERVER, KEY.key_id, KEY.verify_key)
    # And the redacted event, received as such, is the same.
    assert _same(parse_pdu(pdu.json, version), pdu)


def test_the_hash_is_compared_after_decoding() -> None:
    event = _received(V12)
    padded = {**event, "hashes": {"sha256": event["hashes"]["sha256"] + "="}}
    assert pdu_of_object(padded, V12).content == event["content"]


def test_numbers_by_version() -> None:
    """v1 to v5 keep any number exactly; from v6 the event is dropped."""
    content = {"f": 1e22, "g": 0.1, "big": 10**25, "neg": -(2**60)}
    for version in (V1, V3, V5):
        event = _received(version, content=content)
        pdu = parse_pdu(canonicaljson.encode_canonical_json(event), version)
        assert pdu.content == content
        assert b'"big":10000000000000000000000000,"f":1e+22,"g":0.1' in pdu.json
        stored = parse_stored(pdu.json, pdu.event_id, pdu.room_id, version)
        assert stored.content == content
        assert type(stored.content["big"]) is int
    for version in (V6, V12):
        for number in content.values():
            event = _received(version, content={"n": number})
            with pytest.raises(BadEvent):
                pdu_of_object(event, version)


def test_size_counts_signatures_and_not_unsigned() -> None:
    base = len(canonicaljson.encode_canonical_json(_received(V12, content={"b": ""})))
    event = _received(V12, content={"b": "x" * (65_536 - base)})
    event["unsigned"] = {"x": "y" * 1000}
    assert len(pdu_of_object(event, V12).json) == 65_536
    event["content"]["b"] += "x"
    with pytest.raises(TooLarge):
        pdu_of_object(event, V12)
    # Redacting would make it small enough, but it came too large.
    event["content"]["b"] = "z" * 70_000
    with pytest.raises(TooLarge):
        pdu_of_object(event, V12)


@pytest.mark.parametrize("target", [None, 5, "", "x", "$", "$a\0b", "$" + "a" * 255, ["$x"]])
def test_a_redaction_of_nothing_is_an_event_all_the_same(target: object) -> None:
    old = pdu_of_object(_received(V10, type="m.room.redaction", redacts=target), V10)
    new = pdu_of_object(_received(V11, type="m.room.redaction", content={"redacts": target}), V11)
    assert old.redacts is new.redacts is None
    assert new.content == {"redacts": target}


def test_where_a_redaction_names_its_target() -> None:
    beside, inside = "$beside", "$inside"
    both = {"type": "m.room.redaction", "redacts": beside, "content": {"redacts": inside}}
    assert pdu_of_object(_received(V10, **both), V10).redacts == beside
    assert pdu_of_object(_received(V11, **both), V11).redacts == inside
    assert pdu_of_object(_received(V11, **both | {"type": "x"}), V11).redacts is None


def test_backfilled_events_may_be_older_than_the_limits() -> None:
    event = _received(V3, prev_events=["$" + HASH_A] * 30)
    assert len(pdu_of_object(event, V3, limit_parents=False).prev_events) == 30
    assert (
        len(parse_pdu(canonicaljson.encode_canonical_json(event), V3, limit_parents=False).prev_events) == 30
    )
    with pytest.raises(TooLarge):
        pdu_of_object(event, V3)


def _member(version: RoomVersion, **content: Any) -> Pdu:
    return build(version, type="m.room.member", state_key="@ann:hs.example", content=content)


AUTHORIZED = {"membership": "join", "join_authorised_via_users_server": "@bob:other.example:8448"}
INVITE = {"membership": "invite", "third_party_invite": {"signed": {}}}


@pytest.mark.parametrize(
    ("version", "content", "servers"),
    [
        (V3, {"membership": "join"}, {"hs.example"}),
        (V12, {"membership": "join"}, {"hs.example"}),
        (V7, AUTHORIZED, {"hs.example"}),
        (V8, AUTHORIZED, {"hs.example", "other.example:8448"}),
        (V9, AUTHORIZED, {"hs.example", "other.example:8448"}),
        (V12, AUTHORIZED, {"hs.example", "other.example:8448"}),
        (V12, INVITE, set()),
        (V3, INVITE, set()),
        (V2, INVITE, {"ids.example"}),
        (V2, {"membership": "join"}, {"hs.example", "ids.example"}),
        (V1, {"membership": "join"}, {"hs.example", "ids.example"}),
        (V12, {**INVITE, "membership": "join"}, {"hs.example"}),
        (V12, {**INVITE, "third_party_invite": None}, {"hs.example"}),
    ],
)
def test_who_must_have_signed(version: RoomVersion, content: JsonObject, servers: set[str]) -> None:
    place = {} if version.hash_event_ids else {"event_id": "$x:ids.example"}
    pdu = build(version, place, type="m.room.member", state_key="@ann:hs.example", content=content)
    assert required_signers(pdu, version) == servers
    other = build(version, place, content=content)  # not a membership event: only the sender's (and the id's)
    assert required_signers(other, version) == {"hs.example"} | ({"ids.example"} if place else set())


@pytest.mark.parametrize("authorizer", [None, 5, "", "bob", "@bob", "@bob:", {}, [], False])
def test_an_authorizer_must_be_a_user(authorizer: object) -> None:
    pdu = _member(V10, membership="join", join_authorised_via_users_server=authorizer)
    with pytest.raises(BadEvent):
        required_signers(pdu, V10)


def test_a_signature_over_something_else_fails() -> None:
    pdu = build(V11)
    signed = signed_bytes(pdu, V11)
    for server, key_id in ((SERVER, "ed25519:other"), (ServerName("x.example"), KEY.key_id)):
        with pytest.raises(BadSignature):
            verify_event_signature(pdu, signed, server, key_id, KEY.verify_key)
    deeper = build(V11, {"depth": 8})
    with pytest.raises(BadSignature):
        verify_event_signature(pdu, signed_bytes(deeper, V11), SERVER, KEY.key_id, KEY.verify_key)


@settings(max_examples=60)
@given(versions, contents, st.sampled_from(["m.room.member", "m.room.create", "m.room.power_levels", "x"]))
def test_signed_bytes_of_any_content(version: RoomVersion, content: JsonObject, event_type: str) -> None:
    event = _received(version, content=content, state_key="", type=event_type)
    if event_type == "m.room.create" and version is V12:
        del event["room_id"]
    try:
        pdu = pdu_of_object(event, version)
    except BadEvent:
        assert version.strict_canonical_json
        return
    expected = redact(event, version)
    del expected["signatures"]
    assert signed_bytes(pdu, version) == signed_form(event, version)
    if pdu.content == content:
        assert signed_bytes(pdu, version) == canonicaljson.encode_canonical_json(expected)
    assert _same(parse_stored(pdu.json, pdu.event_id, pdu.room_id, version), pdu)


@settings(max_examples=120)
@given(damaged_events())
def test_hostile_events(case: tuple[RoomVersion, JsonObject]) -> None:
    """Only the declared errors come out; what passes can be stored, read back and asked for its signers."""
    version, event = case
    try:
        pdu = parse_pdu(canonical_json.encode(event), version)
        required_signers(pdu, version)
    except (BadEvent, BadJson):
        return
    assert _same(parse_stored(pdu.json, pdu.event_id, pdu.room_id, version), pdu)
    assert _same(parse_pdu(pdu.json, version), pdu)


@settings(max_examples=60)
@given(st.binary(max_size=60), versions)
def test_hostile_bytes(raw: bytes, version: RoomVersion) -> None:
    with pytest.raises((BadJson, BadEvent)):
        parse_pdu(raw, version)


def test_the_room_is_known_before_its_version() -> None:
    assert find_room_id({"room_id": "!a:hs.example"}) == "!a:hs.example"
    assert find_room_id({"type": "m.room.create"}) is None
    for bad in ({}, {"type": "x"}, {"room_id": None}, {"room_id": []}, {"type": [], "room_id": "x"}):
        with pytest.raises(BadEvent):
            find_room_id(bad)
    with pytest.raises(BadEvent):
        find_room_id({"type": "m.room.create", "room_id": None})


def test_pdus_are_equal_by_id() -> None:
    pdu, other = build(V12), build(V12, {"depth": 9})
    assert pdu == parse_pdu(pdu.json, V12) != other
    assert len({pdu, parse_pdu(pdu.json, V12), other}) == 2
    assert pdu != pdu.event_id
    assert not pdu.is_state
    with pytest.raises(TypeError):
        _ = pdu.slot
    topic = build(V12, type="m.room.topic", state_key="k", content={})
    assert topic.is_state
    assert topic.slot == ("m.room.topic", "k")
