"""A join by federation: one server offers an event, the other makes it its own, and both mean the same."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import BadEvent, TooLarge
from ranvier.core.events.build import build_event, encode_template
from ranvier.core.events.parse import parse_pdu
from ranvier.core.events.template import parse_template
from ranvier.core.identifiers import EventID, ServerName
from ranvier.core.room_versions import V1, V3, V12, RoomVersion
from ranvier.core.signing import SigningKey
from tests.unit.event_samples import EVENT_KEYS, VERSIONS, json_values, placement, template, versions

JOINING = ServerName("joining.example")
JOINING_KEY = SigningKey(b"\x09" * 32, "j")
OWN_ID = EventID("$new:joining.example")
NOW_MS = 1_800_000_000_000


def _offer(version: RoomVersion, **changes: Any) -> JsonObject:
    member = template(
        version,
        type="m.room.member",
        state_key="@eve:joining.example",
        sender="@eve:joining.example",
        content={"membership": "join"},
    )
    offer: JsonObject = json.loads(encode_template(member, placement(version, event_id=None), version))
    return offer | changes


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.name)
def test_an_offer_is_made_and_taken(version: RoomVersion) -> None:
    offer = _offer(version)
    assert not {"hashes", "signatures", "event_id"} & set(offer)
    own_id = None if version.hash_event_ids else OWN_ID
    taken, place = parse_template({**offer, "origin": "x", "made_up": 1}, version, NOW_MS, own_id)
    pdu = build_event(taken, place, version, JOINING, JOINING_KEY)
    event = json.loads(pdu.json)
    assert event == {
        **offer,
        "origin_server_ts": NOW_MS,
        "hashes": event["hashes"],
        "signatures": event["signatures"],
    } | ({} if own_id is None else {"event_id": own_id})
    assert parse_pdu(pdu.json, version) == pdu


@pytest.mark.parametrize(
    "changes",
    [
        {"type": None},
        {"type": "a\0"},
        {"state_key": None},
        {"content": []},
        {"depth": -1},
        {"depth": "5"},
        {"depth": 2**63},
        {"prev_events": None},
        {"auth_events": [5]},
        {"auth_events": [["$x:h"]]},
        {"room_id": None},
        {"room_id": "x"},
        {"sender": "eve"},
        {"sender": 5},
    ],
    ids=str,
)
@pytest.mark.parametrize("version", [V1, V3, V12], ids=lambda version: version.name)
def test_malformed_offers(version: RoomVersion, changes: JsonObject) -> None:
    with pytest.raises(BadEvent):
        parse_template(_offer(version, **changes), version, NOW_MS)


def test_limits() -> None:
    one = _offer(V12)["prev_events"][0]
    with pytest.raises(TooLarge):
        parse_template(_offer(V12, prev_events=[one] * 21), V12, NOW_MS)
    with pytest.raises(TooLarge):
        parse_template(_offer(V12, auth_events=[one] * 11), V12, NOW_MS)


@pytest.mark.parametrize("hashes", [{}, {"sha256": None}, {"sha256": "!"}, {"md5": "AA"}])
def test_version_1_cites_by_hash(hashes: JsonObject) -> None:
    with pytest.raises(BadEvent):
        parse_template(_offer(V1, prev_events=[["$x:hs.example", hashes]]), V1, NOW_MS)


@settings(max_examples=80)
@given(versions, st.dictionaries(st.sampled_from(EVENT_KEYS), json_values, max_size=3))
def test_nothing_but_bad_event_comes_out(version: RoomVersion, changes: JsonObject) -> None:
    with contextlib.suppress(BadEvent):
        parse_template(_offer(version, **changes), version, NOW_MS)
