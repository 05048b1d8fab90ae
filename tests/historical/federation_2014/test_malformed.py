"""Malformed PDUs of every kind: a clear error for that one, nothing lost, no other fault."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ranvier.core.identifiers import ServerName, parse_event_id, parse_room_id
from ranvier.historical.federation_2014.naming import context_of, event_id_of, name_of_event, room_id_of
from ranvier.historical.federation_2014.pdu import BadPdu, parse_pdu

from ...http.homeserver import Homeserver
from .network import OLD, pdu, state, transaction

LONG = "x" * 256

BAD: list[dict[str, Any]] = [
    *({"pdu_id": value} for value in (None, "", 1, LONG, "a\0b", ["a"])),
    *({"origin": value} for value in (None, "", 1, LONG, "a b", "ä.test", {})),
    *({"context": value} for value in (None, "", 1, LONG, "c\0", {})),
    *({"ts": value} for value in (None, "1", 1.5, True, 2**60)),
    *({"pdu_type": value} for value in (None, "", 1, LONG, "t\0")),
    *({"content": value} for value in (None, "", [], 1)),
    *(
        {"prev_pdus": value}
        for value in ({}, "x", [1], [[]], [["a"]], [["a", 1]], [["a", ""]], [["a", "b", "c", "d"]])
    ),
    {"prev_pdus": [["a", str(number)] for number in range(51)]},
    {"prev_pdus": [["green.test", LONG]]},
    *({"depth": value} for value in ("1", -1, 1.5, True, 2**60)),
    *({"is_state": value} for value in ("true", 1, None, [])),
    *({"is_state": True, "state_key": value} for value in (None, 1, LONG, "s\0")),
    *({"power_level": value} for value in ("1", 1.5, True, 2**60)),
    *({"prev_state_id": value} for value in ("a", 1)),
    *({"prev_state_origin": value} for value in ("a", 1)),
    *({"user_id": value} for value in (1, "", LONG, {})),
    {"content": {"body": "x" * 70_000}},
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: repr(bad)[:60])
def test_a_malformed_pdu_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(BadPdu) as fault:
        parse_pdu(pdu("a") | bad)
    assert str(fault.value)


async def test_all_of_them_in_one_transaction_harm_no_other(blue: Homeserver) -> None:
    bad = [pdu(f"bad{number}") | one for number, one in enumerate(BAD)]
    answer = await blue.client.put(f"{OLD}/send/t/", transaction(pdu("first"), *bad, pdu("last")))
    results = answer.json["pdus"]
    assert results["first@green.test"] == results["last@green.test"] == {}
    assert len([one for one in results.values() if "error" in one]) == len(results) - 2
    answer = await blue.client.get(f"{OLD}/context/%23example.green/")
    assert [one["pdu_id"] for one in answer.json["pdus"]] == ["first", "last"]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = [
    "pdu_id",
    "origin",
    "context",
    "ts",
    "pdu_type",
    "content",
    "prev_pdus",
    "depth",
    "is_state",
    "state_key",
]
KEYS += ["power_level", "prev_state_id", "prev_state_origin", "user_id", "target_host", "origin_server_ts"]


@settings(max_examples=300, deadline=None)
@given(json_values | st.dictionaries(st.sampled_from(KEYS), json_values).map(lambda some: pdu("a") | some))
def test_whatever_comes_is_a_pdu_or_refused(value: Any) -> None:
    try:
        parsed = parse_pdu(value)
    except BadPdu:
        return
    assert parse_pdu(value) == parsed


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        json_values | st.dictionaries(st.sampled_from(KEYS), json_values).map(lambda some: state("s") | some),
        max_size=4,
    ),
    st.lists(json_values, max_size=2),
)
async def test_whatever_is_pushed_is_answered(blue: Homeserver, pdus: list[Any], edus: list[Any]) -> None:
    txn = f"h{blue.foundation.ports.randomness.text(12)}"
    answer = await blue.client.put(f"{OLD}/send/{txn}/", transaction(*pdus, edus=edus))
    assert answer.status == 200, answer.body
    assert isinstance(answer.json["pdus"], dict)


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=60))
def test_every_context_and_pdu_has_a_name_of_today(text: str) -> None:
    own = ServerName("blue.test")
    room_id = room_id_of(text, own)
    assert room_id is not None
    assert parse_room_id(room_id) == room_id
    assert context_of(room_id) == text
    event_id = event_id_of(("green.test:8080", text))
    assert parse_event_id(event_id) == event_id
    assert name_of_event(event_id) in (None, ("green.test:8080", text))


def test_contexts_that_are_room_ids_keep_their_name() -> None:
    own = ServerName("blue.test")
    assert room_id_of("!abc:green.test", own) == "!abc:green.test"
    wrapped = room_id_of("#example.green", own)
    assert wrapped is not None
    assert wrapped != "#example.green"
    # A context cannot pass itself off as the room of another one.
    assert room_id_of(wrapped, own) != wrapped
