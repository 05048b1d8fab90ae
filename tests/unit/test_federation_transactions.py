"""Transactions and EDUs: bytes pass unchanged, bounds hold, units are what the specification says."""

import contextlib

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranvier.core import canonical_json
from ranvier.core.errors import BadIdentifier, BadJson
from ranvier.core.federation import edus, transactions
from ranvier.core.federation.edus import encode_edu, parse_edu
from ranvier.core.identifiers import EventID, ServerName

ORIGIN = ServerName("a.example")


@settings(max_examples=50)
@given(
    st.lists(st.dictionaries(st.text(), st.integers(-100, 100) | st.text(), max_size=3), max_size=5),
    st.lists(st.dictionaries(st.text(), st.integers(-100, 100) | st.text(), max_size=3), max_size=5),
)
def test_a_built_transaction_is_canonical_and_keeps_every_byte(pdus, edu_values) -> None:
    encoded_pdus = [canonical_json.encode(pdu) for pdu in pdus]
    encoded_edus = [canonical_json.encode(edu) for edu in edu_values]
    body = transactions.build_transaction(ORIGIN, 17, encoded_pdus, encoded_edus)
    assert canonical_json.encode(canonical_json.parse_json(body)) == body
    parsed = transactions.parse_transaction(body)
    assert (parsed.origin, parsed.origin_server_ts) == (ORIGIN, 17)
    assert [bytes(pdu) for pdu in parsed.pdus] == encoded_pdus
    assert [bytes(edu) for edu in parsed.edus] == encoded_edus
    assert (b'"edus"' in body) == bool(edu_values) or b'"edus"' in b"".join(encoded_pdus)


def _body(pdus: int, edu_count: int) -> bytes:
    return msgspec.json.encode(
        {"origin": ORIGIN, "origin_server_ts": 1, "pdus": [{}] * pdus, "edus": [{}] * edu_count}
    )


def test_fifty_events_and_a_hundred_units_are_the_most() -> None:
    assert len(transactions.parse_transaction(_body(50, 100)).pdus) == 50
    for body in (_body(51, 0), _body(0, 101)):
        with pytest.raises(BadJson):
            transactions.parse_transaction(body)
    with pytest.raises(ValueError, match="too much"):
        transactions.build_transaction(ORIGIN, 1, [b"{}"] * 51, [])
    with pytest.raises(ValueError, match="too much"):
        transactions.build_transaction(ORIGIN, 1, [], [b"{}"] * 101)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"origin":"a.example","pdus":[]}',
        b'{"origin":"a.example","origin_server_ts":1,"pdus":null}',
        b'{"origin":"a.example","origin_server_ts":"1","pdus":[]}',
        b'{"origin":"a.example","origin_server_ts":1,"pdus":{}}',
        b'{"origin":"a.example","origin_server_ts":1,"pdus":[],"edus":1}',
        b'{"origin":"a b","origin_server_ts":1,"pdus":[]}',
        b'{"origin":"a.example","origin_server_ts":1,"pdus":[' + b"[" * 50_000 + b"]" * 50_000 + b"]}",
        b'{"origin":"a.example","origin_server_ts":1,"pdus":[{]}',
    ],
)
def test_malformed_transactions_are_refused(body: bytes) -> None:
    with pytest.raises((BadJson, BadIdentifier)):
        transactions.parse_transaction(body)


def test_peers_may_leave_out_what_is_empty() -> None:
    transaction = transactions.parse_transaction(b'{"origin":"a.example","origin_server_ts":1}')
    assert (transaction.pdus, transaction.edus) == ((), ())
    assert transactions.parse_results(b"{}") == {}


def test_results_say_what_was_not_taken() -> None:
    body = transactions.build_results({EventID("$a"): None, EventID("$b"): "no"})
    assert msgspec.json.decode(body) == {"pdus": {"$a": {}, "$b": {"error": "no"}}}
    assert transactions.parse_results(body) == {"$b": "no"}
    with pytest.raises(BadJson):
        transactions.parse_results(b'{"pdus":[]}')


# -- EDUs

UNITS = {
    "typing": (
        {
            "edu_type": "m.typing",
            "content": {"room_id": "!r:x.example", "user_id": "@u:a.example", "typing": True},
        },
        edus.Typing("!r:x.example", "@u:a.example", True),
    ),
    "presence": (
        {
            "edu_type": "m.presence",
            "content": {
                "push": [
                    {
                        "user_id": "@u:a.example",
                        "presence": "online",
                        "last_active_ago": 5000,
                        "status_msg": "cake",
                        "currently_active": True,
                    },
                    {"user_id": "@v:a.example", "presence": "offline"},
                ]
            },
        },
        edus.Presence(
            (
                edus.PresenceItem("@u:a.example", "online", 5000, "cake", True),
                edus.PresenceItem("@v:a.example", "offline"),
            )
        ),
    ),
    "receipt": (
        {
            "edu_type": "m.receipt",
            "content": {
                "!r:x.example": {
                    "m.read": {
                        "@u:a.example": {
                            "event_ids": ["$e:x.example"],
                            "data": {"ts": 7, "thread_id": "main"},
                        },
                        "@v:a.example": {"event_ids": ["$f:x.example"], "data": {"ts": 8}},
                    }
                }
            },
        },
        edus.Receipts(
            (
                edus.Receipt("!r:x.example", "@u:a.example", "$e:x.example", 7, "main"),
                edus.Receipt("!r:x.example", "@v:a.example", "$f:x.example", 8),
            )
        ),
    ),
    "to device": (
        {
            "edu_type": "m.direct_to_device",
            "content": {
                "sender": "@u:a.example",
                "type": "m.room_key_request",
                "message_id": "hiezohf6Hoo7kaev",
                "messages": {"@w:b.example": {"IWHQUZUIAH": {"x": 1}, "*": {}}},
            },
        },
        edus.DirectToDevice(
            "@u:a.example",
            "m.room_key_request",
            "hiezohf6Hoo7kaev",
            {"@w:b.example": {"IWHQUZUIAH": {"x": 1}, "*": {}}},
        ),
    ),
    "device list": (
        {
            "edu_type": "m.device_list_update",
            "content": {
                "user_id": "@u:a.example",
                "device_id": "D",
                "stream_id": 6,
                "prev_id": [5],
                "device_display_name": "Mobile",
                "keys": {"algorithms": []},
            },
        },
        edus.DeviceListUpdate("@u:a.example", "D", 6, (5,), False, "Mobile", {"algorithms": []}),
    ),
    "device gone": (
        {
            "edu_type": "m.device_list_update",
            "content": {"user_id": "@u:a.example", "device_id": "D", "stream_id": 7, "deleted": True},
        },
        edus.DeviceListUpdate("@u:a.example", "D", 7, deleted=True),
    ),
    "signing keys": (
        {
            "edu_type": "m.signing_key_update",
            "content": {"user_id": "@u:a.example", "master_key": {"usage": ["master"]}},
        },
        edus.SigningKeyUpdate("@u:a.example", {"usage": ["master"]}),
    ),
}


@pytest.mark.parametrize(("wire", "unit"), UNITS.values(), ids=UNITS)
def test_each_kind_of_unit_is_read_and_written(wire, unit) -> None:
    assert parse_edu(canonical_json.encode(wire), ORIGIN) == unit
    assert encode_edu(unit) == canonical_json.encode(wire)


@pytest.mark.parametrize(("wire", "unit"), UNITS.values(), ids=UNITS)
def test_a_server_does_not_speak_for_users_of_others(wire, unit) -> None:
    with pytest.raises(BadIdentifier):
        parse_edu(canonical_json.encode(wire), ServerName("other.example"))


def test_unknown_units_are_none_and_the_old_name_of_signing_keys_is_known() -> None:
    assert parse_edu(b'{"edu_type":"org.example.new","content":{"a":1}}', ORIGIN) is None
    old = b'{"edu_type":"org.matrix.signing_key_update","content":{"user_id":"@u:a.example"}}'
    assert parse_edu(old, ORIGIN) == edus.SigningKeyUpdate("@u:a.example")


def test_receipts_of_other_kinds_are_left_out() -> None:
    raw = b'{"edu_type":"m.receipt","content":{"!r:x.example":{"m.read.private":{"@u:b.example":{}}}}}'
    assert parse_edu(raw, ORIGIN) == edus.Receipts(())


def test_receipts_of_one_user_for_two_threads_do_not_fit_into_one_unit() -> None:
    receipts = tuple(
        edus.Receipt("!r:x.example", "@u:a.example", "$e:x.example", 7, t) for t in ("main", "$t")
    )
    with pytest.raises(ValueError, match="several"):
        encode_edu(edus.Receipts(receipts))


def _paths(value, path=()):
    yield path
    for key, inner in (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    ):
        yield from _paths(inner, (*path, key))


def _replaced(value, path, new):
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = _replaced(value[path[0]], path[1:], new)
    return copy


_WRONG = [None, True, -1, 1.5, 2**70, "", "x", "\0" * 300, [], {}, [None], {"": None}]


@pytest.mark.parametrize(("wire", "unit"), UNITS.values(), ids=UNITS)
def test_a_wrong_value_anywhere_raises_only_what_is_declared(wire, unit) -> None:
    refused = 0
    for path in _paths(wire):
        for wrong in _WRONG:
            try:
                parse_edu(canonical_json.encode(_replaced(wire, path, wrong)), ORIGIN)
            except (BadJson, BadIdentifier):
                refused += 1
    assert refused > len(_WRONG) * 2


@settings(max_examples=200)
@given(st.binary(), st.sampled_from(sorted(edus._PARSERS)))
def test_hostile_bytes_raise_only_what_is_declared(raw: bytes, kind: str) -> None:
    envelope = b'{"edu_type":"' + kind.encode() + b'","content":' + raw + b"}"
    for parse in (
        lambda: parse_edu(raw, ORIGIN),
        lambda: parse_edu(envelope, ORIGIN),
        lambda: transactions.parse_transaction(raw),
        lambda: transactions.parse_results(raw),
    ):
        with contextlib.suppress(BadJson, BadIdentifier):
            parse()


def test_a_unit_is_bounded() -> None:
    huge = b'{"edu_type":"m.typing","content":{"x":"' + b"a" * edus.MAX_EDU_BYTES + b'"}}'
    deep = b'{"edu_type":"m.x","content":{"x":' + b"[" * 1000 + b"]" * 1000 + b"}}"
    for raw in (huge, deep):
        with pytest.raises(BadJson):
            parse_edu(raw, ORIGIN)
