"""The canonical form must be, byte for byte, what other servers compute: one differing byte and no signature
or event id holds. The reader must survive anything."""

import datetime
import json
import uuid
from enum import StrEnum
from typing import Any

import canonicaljson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ranvier.core.canonical_json import check_strict, encode, encode_strict, parse_json, parse_object
from ranvier.core.errors import BadJson
from ranvier.core.limits import MAX_JSON_DEPTH
from tests import vectors
from tests.unit.event_samples import json_values, strict_values


@pytest.mark.parametrize("case", vectors.load("canonical_json/spec.json")["cases"])
def test_the_examples_of_the_specification(case: dict[str, str]) -> None:
    value = parse_object(case["input"])
    assert encode(value) == case["output"].encode()
    assert encode_strict(value) == case["output"].encode()


@settings(max_examples=100)
@given(json_values)
@example(1e16)
@example(1e-5)
@example(-0.0)
@example({"a": [1.5, 1e22, 123456789.125, 5e-324]})
@example(2**64)
@example('\x00\x08\t\n\x0b\x0c\r\x1f\x7f"\\/\u2028\ue000\U0001f600')
@example({"\ue000": 1, "\U0001f600": 2, "": 3})
def test_same_bytes_as_canonicaljson(value: Any) -> None:
    """Also for what only rooms v1 to v5 may hold: floats and integers of any size."""
    assert encode(value) == canonicaljson.encode_canonical_json(value)


@settings(max_examples=100)
@given(json_values)
def test_parse_reverses_encode(value: Any) -> None:
    text = encode(value)
    parsed = parse_json(text)
    assert parsed == value
    assert encode(parsed) == text
    assert parse_json(text.decode()) == value


@settings(max_examples=100)
@given(strict_values)
def test_strict_form_is_the_same_form(value: Any) -> None:
    assert encode_strict(value) == encode(value) == canonicaljson.encode_canonical_json(value)


@pytest.mark.parametrize(
    "value", [2**53, -(2**53), 2**70, 1.0, -0.0, 0.5, b"x", {"a": [{"b": 2**53}]}, (0.5,)]
)
def test_strict_refuses(value: Any) -> None:
    with pytest.raises(BadJson):
        check_strict(value)
    with pytest.raises(BadJson):
        encode_strict(value)


@pytest.mark.parametrize("value", [2**53 - 1, -(2**53) + 1, True, None, "x", [], {}, {"a": [False, 0]}, (1,)])
def test_strict_accepts(value: Any) -> None:
    check_strict(value)


class _Color(StrEnum):
    RED = "red"


def test_a_string_enum_is_a_string() -> None:
    assert encode_strict({"c": _Color.RED}) == encode({"c": _Color.RED}) == b'{"c":"red"}'


def _cycle() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


def _nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        [-float("inf")],
        "\ud800",
        {"\udfff": 1},
        b"bytes",
        {1: 2},
        {None: 1},
        {"a": {True: 1}},
        {"a": 0.5, "b": {1: 2}},
        {1, 2},
        object(),
        10**5000,
        _cycle(),
        _nested(5000),
    ],
    ids=lambda value: type(value).__name__,
)
def test_encode_refuses_what_json_cannot_hold(value: Any) -> None:
    with pytest.raises(BadJson):
        encode(value)
    with pytest.raises(BadJson):
        encode_strict(value)


def test_an_object_of_a_foreign_type_is_refused_and_not_guessed() -> None:
    with pytest.raises(BadJson):
        encode({"at": datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)})


@pytest.mark.parametrize("levels", [300, 900])
def test_nesting_beyond_the_fast_encoder(levels: int) -> None:
    assert encode(_nested(levels)) == b"[" * levels + b"]" * levels


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b"{",
        b"{}{}",
        b"[1,]",
        b'{"a":1,}',
        b"{'a':1}",
        b"{a:1}",
        b"01",
        b"1.",
        b".5",
        b"+1",
        b"NaN",
        b"Infinity",
        b"-Infinity",
        b"1e400",
        b"9" * 5000,
        b"nul",
        b'"\x01"',
        b'"\xff"',
        b'"\xc0\x80"',
        b'"\xed\xa0\x80"',
        b'"\\ud800"',
        b'"\\udc00"',
        b'"\\ud800\\u0041"',
        b'"\\x41"',
        b"\xef\xbb\xbf{}",
        b"\xfe\xff\x00{\x00}",
        b"// comment\n{}",
        "\ud800",
    ],
    ids=lambda text: repr(text)[:30],
)
def test_not_json(text: bytes | str) -> None:
    with pytest.raises(BadJson):
        parse_json(text)


@pytest.mark.parametrize("text", ["[]", "1", '"x"', "null", "true"])
def test_only_an_object_is_an_object(text: str) -> None:
    parse_json(text)
    with pytest.raises(BadJson):
        parse_object(text)


@pytest.mark.parametrize("number", [2**53, 2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**40, -(10**40)])
def test_integers_stay_exact(number: int) -> None:
    assert parse_json(str(number)) == number
    assert type(parse_json(str(number))) is int
    assert encode(number) == str(number).encode()


def test_a_number_with_exponent_is_a_float() -> None:
    """The specification's own example reads 1e10 as an integer. Deployed servers read it as a float: v1 to v5
    write it so, v6 and up refuse it. To agree with them matters more: signatures are checked by them."""
    assert (
        encode(parse_json("1e10"))
        == canonicaljson.encode_canonical_json(json.loads("1e10"))
        == b"10000000000.0"
    )
    with pytest.raises(BadJson):
        encode_strict(parse_json("1e10"))


def test_the_last_of_repeated_keys_counts() -> None:
    assert parse_json('{"a":1,"a":2}') == {"a": 2} == json.loads('{"a":1,"a":2}')


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_depth_is_bounded(opening: str, closing: str) -> None:
    def nested(levels: int) -> str:
        return opening * (levels - 1) + "{}" + closing * (levels - 1)

    parse_json(nested(MAX_JSON_DEPTH))
    # More brackets than levels, so that the levels themselves are counted.
    parse_json(f"[{nested(MAX_JSON_DEPTH - 1)},{nested(9)}]")
    with pytest.raises(BadJson):
        parse_json(f"[{nested(MAX_JSON_DEPTH)},{nested(9)}]")
    for levels in (MAX_JSON_DEPTH + 1, 800, 100_000):
        with pytest.raises(BadJson):
            parse_json(nested(levels))


def test_many_brackets_are_not_depth() -> None:
    assert parse_json("[" + "[]," * 500 + "[]]") == [[]] * 501
    assert parse_json(json.dumps("[{" * 500)) == "[{" * 500


def test_size_is_bounded() -> None:
    assert parse_json(b"[1,2]", 5) == [1, 2]
    with pytest.raises(BadJson):
        parse_json(b"[1,2]", 4)
    with pytest.raises(BadJson):
        parse_object('{"é":1}', 7)


@settings(max_examples=120)
@given(st.binary(max_size=40) | st.text(max_size=20) | st.text('[]{}",:0eE.-\\u', max_size=20))
def test_nothing_but_bad_json_comes_out(raw: bytes | str) -> None:
    try:
        value = parse_json(raw)
    except BadJson:
        return
    encode(value)


def test_ids_of_other_types_do_not_pass_the_strict_check() -> None:
    with pytest.raises(BadJson):
        encode_strict({"id": uuid.UUID(int=1)})
