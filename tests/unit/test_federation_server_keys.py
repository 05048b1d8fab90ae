"""Key documents and notaries: which keys count, for what and when; and that nobody can slip one in."""

import contextlib

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranvier.core import canonical_json
from ranvier.core.errors import BadIdentifier, BadJson, BadSignature
from ranvier.core.federation import notary
from ranvier.core.federation.notary import KeyQuery
from ranvier.core.federation.server_keys import (
    MAX_VALIDITY_MS,
    OldVerifyKey,
    build_key_document,
    check_key_document,
    parse_key_document,
)
from ranvier.core.identifiers import KeyID, ServerName
from ranvier.core.signing import SigningKey, sign_json, verify_json

HOUR = 3_600_000
NOW = 1_700_000_000_000
SERVER = ServerName("a.example")
NOTARY = ServerName("notary.example")
KEY = SigningKey(b"1" * 32, "one")
SECOND = SigningKey(b"2" * 32, "two")
OLD = SigningKey(b"3" * 32, "old")
NOTARY_KEY = SigningKey(b"4" * 32, "n")
RETIRED = NOW - 1000 * HOUR


def _document(valid_until: int = NOW + 24 * HOUR, keys=(KEY, SECOND)):
    old = {OLD.key_id: OldVerifyKey(OLD.verify_key, RETIRED)}
    return build_key_document(SERVER, keys, old, valid_until)


def _parsed(valid_until: int = NOW + 24 * HOUR):
    return check_key_document(_document(valid_until), SERVER, NOW)


def test_our_own_document_has_the_published_shape_and_every_signature() -> None:
    document = _document()
    assert set(document) == {"server_name", "valid_until_ts", "verify_keys", "old_verify_keys", "signatures"}
    assert document["verify_keys"][KEY.key_id] == {"key": KEY.verify_key.encode()}
    assert document["old_verify_keys"][OLD.key_id] == {"key": OLD.verify_key.encode(), "expired_ts": RETIRED}
    for key in (KEY, SECOND):
        verify_json(document, SERVER, key.key_id, key.verify_key)


def test_a_document_is_read_back_whole() -> None:
    keys = parse_key_document(canonical_json.encode(_document()), SERVER, NOW)
    assert keys.verify_keys == {key.key_id: key.verify_key for key in (KEY, SECOND)}
    assert keys.old_verify_keys == {OLD.key_id: OldVerifyKey(OLD.verify_key, RETIRED)}
    assert keys.valid_until_ms == NOW + 24 * HOUR


def test_a_current_key_that_has_not_signed_does_not_count() -> None:
    """Else a server could claim another server's public key as its own."""
    document = _document(keys=(KEY,))
    document["verify_keys"][SECOND.key_id] = {"key": SECOND.verify_key.encode()}
    document = sign_json(document, SERVER, KEY)
    assert set(check_key_document(document, SERVER, NOW).verify_keys) == {KEY.key_id}


@pytest.mark.parametrize(
    "change",
    [
        {"server_name": "b.example"},
        {"valid_until_ts": NOW + 25 * HOUR},
        {"old_verify_keys": {}},
        {"signatures": {}},
        {"signatures": {"b.example": {}}},
        {"signatures": []},
        {"verify_keys": {}},
        {"extra": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_changed_document_is_refused(change) -> None:
    with pytest.raises(BadSignature):
        check_key_document({**_document(), **change}, SERVER, NOW)


@pytest.mark.parametrize(
    "change",
    [
        {"valid_until_ts": None},
        {"valid_until_ts": "1"},
        {"valid_until_ts": True},
        {"valid_until_ts": -1},
        {"valid_until_ts": 1.5},
        {"valid_until_ts": 2**63},
        {"old_verify_keys": []},
        {"old_verify_keys": {"ed25519:x": {"key": OLD.verify_key.encode()}}},
        {"old_verify_keys": {f"ed25519:{n}": {} for n in range(51)}},
    ],
)
def test_a_signed_but_malformed_document_is_refused(change) -> None:
    with pytest.raises(BadJson):
        check_key_document(sign_json({**_document(), **change}, SERVER, KEY), SERVER, NOW)


def test_keys_of_other_algorithms_do_not_spoil_a_document() -> None:
    document = _document()
    document["verify_keys"]["p256:x"] = {"key": "?"}
    document["verify_keys"]["nonsense"] = None
    assert set(check_key_document(sign_json(document, SERVER, KEY), SERVER, NOW).verify_keys) == {KEY.key_id}


def test_validity_is_capped_at_seven_days_after_receipt() -> None:
    """Else who steals a key once could publish it for years."""
    keys = _parsed(valid_until=NOW + 10_000 * HOUR)
    assert keys.valid_until_ms == NOW + MAX_VALIDITY_MS


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=200)
@given(
    st.sampled_from(["verify_keys", "old_verify_keys", "signatures", "valid_until_ts", "server_name"]), _JSON
)
def test_hostile_documents_raise_only_what_is_declared(field: str, value: object) -> None:
    for document in ({**_document(), field: value}, {field: value, "server_name": SERVER}):
        with contextlib.suppress(BadJson, BadSignature):
            check_key_document(document, SERVER, NOW)


@settings(max_examples=100)
@given(st.binary())
def test_hostile_bytes_raise_only_what_is_declared(raw: bytes) -> None:
    for parse in (
        lambda: parse_key_document(raw, SERVER, NOW),
        lambda: notary.parse_request(raw, NOW),
        lambda: notary.parse_response(raw, NOTARY, {}, NOW),
    ):
        with contextlib.suppress(BadJson, BadSignature, BadIdentifier):
            parse()


# -- notary


def test_a_key_query_is_read_back() -> None:
    queries = [KeyQuery(SERVER, {KEY.key_id: NOW}), KeyQuery(ServerName("b.example"), {})]
    assert notary.parse_request(notary.build_request(queries), 0) == queries


def test_a_key_without_a_minimum_is_wanted_valid_now() -> None:
    body = b'{"server_keys":{"a.example":{"ed25519:one":{}}}}'
    assert notary.parse_request(body, NOW) == [KeyQuery(SERVER, {KEY.key_id: NOW})]


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"server_keys":[]}',
        b'{"server_keys":{"a.example":[]}}',
        b'{"server_keys":{"a.example":{"ed25519:a":{"minimum_valid_until_ts":"1"}}}}',
        b'{"server_keys":{"not a name":{}}}',
        msgspec.json.encode({"server_keys": {f"s{n}.example": {} for n in range(201)}}),
        msgspec.json.encode({"server_keys": {"a.example": {f"ed25519:{n}": {} for n in range(51)}}}),
    ],
)
def test_malformed_or_excessive_key_queries_are_refused(body: bytes) -> None:
    with pytest.raises((BadJson, BadIdentifier)):
        notary.parse_request(body, NOW)


@pytest.mark.parametrize(
    ("wanted", "answered"),
    [
        ({}, True),
        ({KEY.key_id: NOW + 24 * HOUR}, True),
        ({KEY.key_id: NOW + 24 * HOUR + 1}, False),
        ({OLD.key_id: 0}, True),
        ({KeyID("ed25519:unknown"): 0}, False),
    ],
)
def test_a_notary_asks_again_when_its_copy_will_not_do(wanted: dict[KeyID, int], answered: bool) -> None:
    assert KeyQuery(SERVER, wanted).is_answered_by(_parsed(), NOW) is answered


def test_an_answer_carries_both_signatures_and_is_read_back() -> None:
    body = notary.build_response([_parsed()], NOTARY, NOTARY_KEY)
    (document,) = msgspec.json.decode(body)["server_keys"]
    verify_json(document, NOTARY, NOTARY_KEY.key_id, NOTARY_KEY.verify_key)
    verify_json(document, SERVER, KEY.key_id, KEY.verify_key)
    (keys,) = notary.parse_response(body, NOTARY, {NOTARY_KEY.key_id: NOTARY_KEY.verify_key}, NOW)
    assert keys.verify_keys == _parsed().verify_keys


def test_of_an_answer_only_documents_with_both_signatures_count() -> None:
    good = sign_json(_document(), NOTARY, NOTARY_KEY)
    unsigned_by_notary = _document()
    wrong_notary_key = sign_json(_document(), NOTARY, SigningKey(b"9" * 32, "n"))
    forged = sign_json({**_document(), "valid_until_ts": NOW + 99 * HOUR}, NOTARY, NOTARY_KEY)
    body = canonical_json.encode(
        {"server_keys": [None, {}, unsigned_by_notary, wrong_notary_key, forged, good]}
    )
    trusted = {NOTARY_KEY.key_id: NOTARY_KEY.verify_key}
    assert [keys.document for keys in notary.parse_response(body, NOTARY, trusted, NOW)] == [good]


def test_who_is_no_notary_can_pass_on_what_a_known_key_has_signed() -> None:
    body = canonical_json.encode({"server_keys": [_document()]})
    known = {SERVER: {KEY.key_id: KEY.verify_key}}
    (keys,) = notary.parse_relayed(body, known, NOW)
    assert keys.verify_keys == _parsed().verify_keys


def test_who_is_no_notary_can_make_up_nothing() -> None:
    """A document that is signed well, by a key that it brings itself."""
    thief = SigningKey(b"8" * 32, KEY.key_id.removeprefix("ed25519:"))
    made_up = build_key_document(SERVER, [thief], {}, NOW + HOUR)
    other = build_key_document(SERVER, [SigningKey(b"7" * 32, "another")], {}, NOW + HOUR)
    altered = {**_document(), "valid_until_ts": NOW + 99 * HOUR}
    body = canonical_json.encode({"server_keys": [made_up, other, altered, None, _document()]})
    known = {SERVER: {KEY.key_id: KEY.verify_key}}
    assert [keys.document for keys in notary.parse_relayed(body, known, NOW)] == [_document()]
    assert notary.parse_relayed(body, {}, NOW) == []
