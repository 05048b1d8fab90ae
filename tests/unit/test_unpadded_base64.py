"""Base64 carries keys, hashes and signatures: what is not exactly base64 must not pass for one."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranvier.core.errors import BadBase64
from ranvier.core.unpadded_base64 import decode_base64, encode_base64, encode_base64_urlsafe
from tests.unit.event_samples import json_values


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        (b"f", "Zg"),
        (b"fo", "Zm8"),
        (b"foo", "Zm9v"),
        (b"foob", "Zm9vYg"),
        (b"fooba", "Zm9vYmE"),
        (b"foobar", "Zm9vYmFy"),
    ],
)
def test_the_examples_of_the_specification(data: bytes, text: str) -> None:
    assert encode_base64(data) == encode_base64_urlsafe(data) == text
    assert decode_base64(text) == decode_base64(text + "=" * (-len(text) % 4)) == data


@given(st.binary(max_size=70))
def test_decode_reverses_encode_in_both_alphabets(data: bytes) -> None:
    assert decode_base64(encode_base64(data)) == decode_base64(encode_base64_urlsafe(data)) == data


def test_the_alphabets() -> None:
    assert encode_base64(b"\xfb\xff") == "+/8"
    assert encode_base64_urlsafe(b"\xfb\xff") == "-_8"


@pytest.mark.parametrize(
    "text",
    [
        "Z",
        "Zm9vY",
        "Zm 9",
        "Zm9v\n",
        "Zg==Zg",
        "Z=g",
        "Zm9v!",
        "Zé",
        "Ｚｇ",
        "\ud800",
        "Zg\0",
        None,
        5,
        b"Zg",
    ],
)
def test_what_is_no_base64(text: object) -> None:
    with pytest.raises(BadBase64):
        decode_base64(text)


@given(json_values)
def test_nothing_but_bad_base64_comes_out(value: object) -> None:
    with contextlib.suppress(BadBase64):
        decode_base64(value)
