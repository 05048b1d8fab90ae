"""What clients get is cut out of stored bytes: it must be the client form, valid JSON, and nothing more."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranvier.core.canonical_json import JsonObject
from ranvier.core.events.client import (
    Unsigned,
    client_head,
    close,
    encode_unsigned,
    raw_content,
    stripped_state,
)
from ranvier.core.identifiers import EventID
from ranvier.core.room_versions import V1, V10, V11, V12, RoomVersion
from tests.unit.event_samples import HASH_A, VERSIONS, build, contents, create_room, strict_contents, versions

TARGET = EventID("$" + HASH_A)


def _loads(data: bytes) -> JsonObject:
    """Decode, and refuse repeated keys: clients disagree about what they mean."""

    def no_repeats(pairs: list[tuple[str, Any]]) -> JsonObject:
        assert len(dict(pairs)) == len(pairs), "a key twice"
        return dict(pairs)

    decoded: JsonObject = json.loads(data, object_pairs_hook=no_repeats)
    return decoded


@settings(max_examples=80)
@given(versions, st.none() | st.sampled_from(["", 'k"\\\n', "@ann:hs.example", "é"]), st.data())
def test_the_client_form(version: RoomVersion, state_key: str | None, data: st.DataObject) -> None:
    content = data.draw(strict_contents if version.strict_canonical_json else contents)
    pdu = build(version, type='x"é', state_key=state_key, content=content)
    expected = {
        "content": content,
        "event_id": pdu.event_id,
        "origin_server_ts": pdu.origin_server_ts,
        "sender": pdu.sender,
        "type": pdu.type,
    } | ({} if state_key is None else {"state_key": state_key})
    head = client_head(pdu.json, pdu.event_id)
    unsigned = encode_unsigned(Unsigned(age=5, transaction_id='t"1'))
    extra = {"unsigned": {"age": 5, "transaction_id": 't"1'}}
    assert _loads(close(head)) == expected
    assert _loads(close(head, room_id=pdu.room_id)) == expected | {"room_id": pdu.room_id}
    assert _loads(close(head, unsigned=unsigned)) == expected | extra
    assert _loads(close(head, room_id=pdu.room_id, unsigned=unsigned)) == expected | extra | {
        "room_id": pdu.room_id
    }
    assert json.loads(bytes(raw_content(pdu.json))) == content


def test_the_create_event_of_version_12_gets_its_room_id() -> None:
    pdu = create_room(V12)
    event = _loads(close(client_head(pdu.json, pdu.event_id), room_id=pdu.room_id))
    assert event["room_id"] == "!" + pdu.event_id[1:]


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
@pytest.mark.parametrize("content", [{}, {"reason": "spam"}], ids=["bare", "reason"])
def test_redactions_name_their_target_twice(version: RoomVersion, content: JsonObject) -> None:
    pdu = build(version, type="m.room.redaction", content=content, redacts=TARGET)
    event = _loads(close(client_head(pdu.json, pdu.event_id)))
    assert event["redacts"] == TARGET
    assert event["content"] == {**content, "redacts": TARGET}


@pytest.mark.parametrize("version", [V1, V10], ids=lambda version: version.name)
def test_content_of_old_redactions_is_not_overwritten(version: RoomVersion) -> None:
    pdu = build(version, type="m.room.redaction", content={"redacts": "$other"}, redacts=TARGET)
    event = _loads(close(client_head(pdu.json, pdu.event_id)))
    assert (event["redacts"], event["content"]) == (TARGET, {"redacts": "$other"})


@pytest.mark.parametrize("version", [V1, V11, V12], ids=lambda version: version.name)
def test_a_redaction_of_nothing(version: RoomVersion) -> None:
    pdu = build(version, type="m.room.redaction", content={})
    event = _loads(close(client_head(pdu.json, pdu.event_id)))
    assert "redacts" not in event
    assert event["content"] == {}


def test_redacts_of_other_types_stays_where_it_is() -> None:
    pdu = build(V1, content={"redacts": "x"}, redacts=TARGET)
    event = _loads(close(client_head(pdu.json, pdu.event_id)))
    assert event["content"] == {"redacts": "x"}
    assert "redacts" not in event


def test_unsigned_sends_what_is_set() -> None:
    because = close(client_head(build(V12).json, TARGET))
    unsigned = Unsigned(
        age=0,
        membership="join",
        replaces_state="$old",
        prev_sender="@bob:hs.example",
        prev_content=raw_content(build(V12, content={"a": "b"}).json),
        redacted_because=msgspec.Raw(because),
        invite_room_state=[msgspec.Raw(b'{"type":"x"}')],
        knock_room_state=[],
        relations=msgspec.Raw(b'{"m.thread":{"count":1}}'),
    )
    assert _loads(encode_unsigned(unsigned)) == {
        "age": 0,
        "membership": "join",
        "replaces_state": "$old",
        "prev_sender": "@bob:hs.example",
        "prev_content": {"a": "b"},
        "redacted_because": json.loads(because),
        "invite_room_state": [{"type": "x"}],
        "knock_room_state": [],
        "m.relations": {"m.thread": {"count": 1}},
    }
    assert encode_unsigned(Unsigned()) == b"{}"


@pytest.mark.parametrize("state_key", ["", "@ann:hs.example"])
def test_stripped_state(state_key: str) -> None:
    pdu = build(V12, type="m.room.member", state_key=state_key, content={"membership": "join", "é": [1]})
    assert _loads(stripped_state(pdu)) == {
        "content": {"membership": "join", "é": [1]},
        "sender": "@ann:hs.example",
        "state_key": state_key,
        "type": "m.room.member",
    }
