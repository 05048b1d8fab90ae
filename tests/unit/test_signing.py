"""Signatures decide whom we believe: the specification's vectors hold, and every flaw is refused."""

import contextlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import BadIdentifier, BadJson, BadSignature
from ranvier.core.identifiers import ServerName
from ranvier.core.signing import (
    SigningKey,
    VerifyKey,
    encode_signing_keys,
    find_signature,
    merge_signatures,
    parse_signature,
    parse_signing_keys,
    parse_verify_key,
    sign_json,
    signing_key_ids,
    verify_json,
)
from ranvier.core.unpadded_base64 import decode_base64
from tests import vectors
from tests.unit.event_samples import KEY, SEED, b64, json_objects, json_values, plain_signature

VECTORS = vectors.load("signing/spec.json")
SPEC_KEY = SigningKey(decode_base64(VECTORS["seed"]), VECTORS["key_version"])


@pytest.mark.parametrize("case", VECTORS["objects"])
def test_the_objects_of_the_specification(case: dict[str, Any]) -> None:
    signed = sign_json(case["object"], "domain", SPEC_KEY)
    assert signed == {**case["object"], "signatures": {"domain": {"ed25519:1": case["signature"]}}}
    verify_json(signed, "domain", "ed25519:1", SPEC_KEY.verify_key)


@settings(max_examples=40)
@given(json_objects)
def test_like_the_independent_way(obj: JsonObject) -> None:
    obj.pop("signatures", None)
    signed = sign_json(obj, "hs.example", KEY)
    assert signed["signatures"]["hs.example"][KEY.key_id] == plain_signature(obj)
    verify_json(signed, "hs.example", KEY.key_id, KEY.verify_key)


def test_signing_leaves_the_object_alone_and_keeps_what_is_not_signed() -> None:
    obj = {"a": 1, "unsigned": {"age": 5}, "signatures": {"x.example": {"ed25519:k": "s"}}}
    signed = sign_json(obj, "x.example", KEY)
    assert obj["signatures"] == {"x.example": {"ed25519:k": "s"}}
    assert signed["unsigned"] == {"age": 5}
    assert set(signed["signatures"]["x.example"]) == {"ed25519:k", KEY.key_id}
    verify_json({**signed, "unsigned": {"age": 6}}, "x.example", KEY.key_id, KEY.verify_key)


def _signed(**changes: Any) -> JsonObject:
    return {**sign_json({"a": 1}, "s", KEY), **changes}


_GOOD = _signed()["signatures"]["s"][KEY.key_id]


@pytest.mark.parametrize(
    "obj",
    [
        _signed(a=2),
        _signed(b=None),
        _signed(a=float("nan")),
        _signed(signatures={}),
        _signed(signatures=None),
        _signed(signatures=[]),
        _signed(signatures={"s": None}),
        _signed(signatures={"s": [_GOOD]}),
        _signed(signatures={"s": {}}),
        _signed(signatures={"t": {KEY.key_id: _GOOD}}),
        _signed(signatures={"s": {"ed25519:other": _GOOD}}),
        _signed(signatures={"s": {KEY.key_id: None}}),
        _signed(signatures={"s": {KEY.key_id: 5}}),
        _signed(signatures={"s": {KEY.key_id: ""}}),
        _signed(signatures={"s": {KEY.key_id: _GOOD[:-2]}}),
        _signed(signatures={"s": {KEY.key_id: _GOOD + "AAAA"}}),
        _signed(signatures={"s": {KEY.key_id: "!" + _GOOD[1:]}}),
        _signed(signatures={"s": {KEY.key_id: _GOOD[::-1]}}),
        _signed(signatures={"s": {KEY.key_id: b64(bytes(64))}}),
    ],
)
def test_a_flaw_is_a_bad_signature(obj: JsonObject) -> None:
    verify_json(_signed(), "s", KEY.key_id, KEY.verify_key)  # the object without the flaw passes
    with pytest.raises(BadSignature):
        verify_json(obj, "s", KEY.key_id, KEY.verify_key)


def test_another_key_does_not_verify() -> None:
    with pytest.raises(BadSignature):
        verify_json(_signed(), "s", KEY.key_id, SPEC_KEY.verify_key)


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from(["signatures", "unsigned", "a"]), json_values), json_values)
def test_nothing_but_bad_signature_comes_out_of_hostile_objects(obj: JsonObject, value: object) -> None:
    hostile = {**obj, "signatures": {"s": {KEY.key_id: value}}}
    for each in (obj, hostile):
        with pytest.raises(BadSignature):
            verify_json(each, "s", KEY.key_id, KEY.verify_key)
        signing_key_ids(each.get("signatures"), ServerName("s"))
    for parse in (parse_signature, parse_verify_key):
        with contextlib.suppress(BadSignature):
            parse(value)


def test_signing_malformed_signatures_is_refused() -> None:
    for signatures in (None, [], {"s": []}, {"s": "x"}, 5):
        with pytest.raises(BadSignature):
            sign_json({"signatures": signatures}, "s", KEY)
    with pytest.raises(BadJson):
        sign_json({"a": float("inf")}, "s", KEY)


def test_merge_copies() -> None:
    old = {"a": {"ed25519:1": "x"}}
    assert merge_signatures(old, {"a": {"ed25519:1": "y", "ed25519:2": "z"}, "b": {"ed25519:1": "w"}}) == {
        "a": {"ed25519:1": "y", "ed25519:2": "z"},
        "b": {"ed25519:1": "w"},
    }
    assert old == {"a": {"ed25519:1": "x"}}


def test_key_ids_of_other_algorithms_do_not_count() -> None:
    signatures = {"s": {"ed25519:a": "x", "rsa:b": "y", "ed25519": "z"}}
    assert signing_key_ids(signatures, ServerName("s")) == ["ed25519:a"]
    assert signing_key_ids(signatures, ServerName("t")) == []
    assert find_signature(signatures, "s", "ed25519:a") == "x"
    assert find_signature(signatures, "t", "ed25519:a") is None


def test_the_key_file_is_that_of_other_servers() -> None:
    keys = parse_signing_keys(f"\ned25519 1 {VECTORS['seed']}\n\n  ed25519 a_1 {b64(SEED)}=  \r\n")
    assert [key.key_id for key in keys] == ["ed25519:1", "ed25519:a_1"]
    assert keys[0].public_key == SPEC_KEY.public_key
    text = encode_signing_keys(keys)
    # The specification's seed ends with two bits that count for nothing; an encoder leaves them at zero.
    assert text == f"ed25519 1 {VECTORS['seed'][:-1]}0\ned25519 a_1 {b64(SEED)}\n"
    assert encode_signing_keys(parse_signing_keys(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n \n",
        "ed25519 1",
        f"ed25519 1 {b64(SEED)} more",
        f"curve25519 1 {b64(SEED)}",
        f"ed25519 a-b {b64(SEED)}",
        f"ed25519 1 {b64(SEED[:-1])}",
        f"ed25519 1 {b64(SEED)[:-1]}!",
        f"ed25519 1 {b64(SEED)}\ngarbage",
    ],
)
def test_a_bad_key_file_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(BadSignature) as caught:
        parse_signing_keys(text)
    assert b64(SEED)[:20] not in str(caught.value)


def test_the_secret_does_not_show() -> None:
    assert repr(KEY) == "SigningKey(ed25519:a_1)"
    assert not hasattr(KEY, "__dict__")


def test_lengths_are_checked_before_the_library_sees_them() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        SigningKey(b"short", "1")
    with pytest.raises(BadIdentifier):
        SigningKey(SEED, "a b")
    for length in (0, 31, 33):
        with pytest.raises(BadSignature):
            VerifyKey(bytes(length))
        with pytest.raises(BadSignature):
            parse_verify_key(b64(bytes(length)))
    with pytest.raises(BadSignature):
        KEY.verify_key.verify(b"x", KEY.sign(b"x")[:-1])
    with pytest.raises(BadSignature):  # the end of the signature must not pass for the start of the message
        KEY.verify_key.verify(b"bc", KEY.sign(b"abc") + b"a")
    assert parse_verify_key(KEY.verify_key.encode()) == KEY.verify_key
