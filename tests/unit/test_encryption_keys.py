"""Keys that clients upload: what is taken, what is refused, and how they are shown."""

import nacl.signing
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranvier.core.canonical_json import encode
from ranvier.core.encryption_keys import (
    check_signed_by,
    find_device_verify_key,
    is_same_key,
    parse_cross_signing_key,
    parse_device_keys,
    parse_one_time_key,
    show_key,
)
from ranvier.core.errors import BadKey, BadSignature
from ranvier.core.identifiers import DeviceID, UserID
from ranvier.core.unpadded_base64 import encode_base64

ALICE, PHONE = UserID("@alice:one"), DeviceID("PHONE")
SECRET = nacl.signing.SigningKey(b"1" * 32)
PUBLIC = encode_base64(bytes(SECRET.verify_key))


def sign(document, key_id, secret=SECRET):
    return document | {
        "signatures": {ALICE: {key_id: encode_base64(secret.sign(encode(document)).signature)}}
    }


DEVICE = sign(
    {"user_id": ALICE, "device_id": PHONE, "algorithms": ["a"], "keys": {"ed25519:PHONE": PUBLIC}},
    "ed25519:PHONE",
)
MASTER = {"user_id": ALICE, "usage": ["master"], "keys": {f"ed25519:{PUBLIC}": PUBLIC}}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
documents = st.dictionaries(
    st.sampled_from(["user_id", "device_id", "algorithms", "keys", "signatures", "usage", "unsigned", "x"]),
    json_values,
)


def test_device_keys_are_kept_as_they_were_signed_without_unsigned():
    stored = parse_device_keys(DEVICE | {"unsigned": {"x": 1}}, ALICE, PHONE)
    assert orjson.loads(stored) == DEVICE
    found = find_device_verify_key(stored, PHONE)
    assert found is not None
    assert found.public_key == bytes(SECRET.verify_key)
    assert find_device_verify_key(stored, DeviceID("OTHER")) is None


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"user_id": "@bob:one"}, BadKey),
        ({"device_id": "OTHER"}, BadKey),
        ({"algorithms": "a"}, BadKey),
        ({"keys": {"ed25519:PHONE": 1}}, BadKey),
        ({"signatures": {ALICE: "x"}}, BadKey),
        ({"signatures": {ALICE: {"ed25519:PHONE": "AAAA"}}}, BadSignature),
        ({"more": "than was signed"}, BadSignature),
        ({"keys": {"ed25519:PHONE": "AAAA"}}, BadSignature),
    ],
)
def test_device_keys_that_are_wrong(change, fault):
    with pytest.raises(fault):
        parse_device_keys(DEVICE | change, ALICE, PHONE)


def test_device_keys_without_a_signature_are_taken():
    """They are of no use to others, who will not trust them; but that is for others to say."""
    assert orjson.loads(parse_device_keys(DEVICE | {"signatures": {}}, ALICE, PHONE))["signatures"] == {}


def test_only_a_key_of_its_own_kind_is_a_cross_signing_key():
    master = parse_cross_signing_key(MASTER, ALICE, "master")
    assert (master.public_key, master.key_id) == (PUBLIC, f"ed25519:{PUBLIC}")
    for change in (
        {"user_id": "@bob:one"},
        {"usage": ["self_signing"]},
        {"keys": {}},
        {"keys": MASTER["keys"] | {"ed25519:x": "x"}},
        {"keys": {f"ed25519:{PUBLIC}": "x"}},
        {"keys": {f"rsa:{PUBLIC}": PUBLIC}},
        {"keys": {"ed25519:AAAA": "AAAA"}},
    ):
        with pytest.raises(BadKey):
            parse_cross_signing_key(MASTER | change, ALICE, "master")


def test_the_master_key_signs_the_others():
    master = parse_cross_signing_key(MASTER, ALICE, "master")
    other = encode_base64(bytes(nacl.signing.SigningKey(b"2" * 32).verify_key))
    document = {"user_id": ALICE, "usage": ["self_signing"], "keys": {f"ed25519:{other}": other}}
    right = sign(document, master.key_id)
    check_signed_by(parse_cross_signing_key(right, ALICE, "self_signing"), ALICE, master)
    wrong = sign(document, master.key_id, nacl.signing.SigningKey(b"3" * 32))
    for bad in (document, wrong):
        with pytest.raises(BadSignature):
            check_signed_by(parse_cross_signing_key(bad, ALICE, "self_signing"), ALICE, master)


def test_a_key_that_was_signed_anew_is_the_same_key():
    one = {"key": "a", "signatures": {ALICE: {"x": "1"}}}
    other = {"signatures": {ALICE: {"x": "2"}}, "key": "a"}
    assert is_same_key(encode(one), encode(other))
    assert not is_same_key(encode(one), encode(one | {"key": "b"}))
    assert not is_same_key(encode(one), encode(one | {"fallback": True}))
    assert is_same_key(b'"a"', b'"a"')
    assert not is_same_key(b'"a"', b'"b"')


def test_a_key_is_shown_with_all_its_signatures():
    shown = orjson.loads(show_key(encode(DEVICE), {ALICE: {"ed25519:S": "s"}}, {"device_display_name": "x"}))
    expected = {ALICE: DEVICE["signatures"][ALICE] | {"ed25519:S": "s"}}
    assert shown == DEVICE | {"signatures": expected, "unsigned": {"device_display_name": "x"}}
    assert show_key(encode(MASTER), {}) == encode(MASTER)
    assert orjson.loads(show_key(encode(MASTER), {"@b:one": {"k": "s"}}))["signatures"] == {
        "@b:one": {"k": "s"}
    }


@settings(max_examples=150)
@given(documents, st.text(max_size=20), json_values)
def test_whatever_comes_is_taken_or_refused(document, name, value):
    for parse in (
        lambda: parse_device_keys(document, ALICE, PHONE),
        lambda: parse_device_keys(DEVICE | document, ALICE, PHONE),
        lambda: parse_cross_signing_key(document, ALICE, "master"),
        lambda: parse_cross_signing_key(MASTER | document, ALICE, "master").encode(),
        lambda: parse_one_time_key(name, value),
        lambda: parse_one_time_key("signed_curve25519:1", value),
    ):
        try:
            parse()
        except (BadKey, BadSignature):
            continue
