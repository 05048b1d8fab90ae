"""Canonical JSON, and the one strict reader for JSON that comes from outside.

Two rules for this file: what it reads it can also write, and nothing but `BadJson` comes out of it.

Spec: appendices, "Canonical JSON".
"""

import json
from typing import Any, Final

import msgspec
import orjson

from ranvier.core.errors import BadJson
from ranvier.core.limits import MAX_JSON_BYTES, MAX_JSON_DEPTH, MAX_SAFE_INTEGER, MIN_SAFE_INTEGER

JsonObject = dict[str, Any]
"""An object of decoded JSON, opaque to us but for the keys that a rule names."""

_OPTIONS: Final = orjson.OPT_SORT_KEYS | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME
_CONTAINERS: Final = frozenset({dict, list, tuple})
# As fast as orjson on events, and it keeps integers of any size exactly (orjson makes floats of them).
_DECODER: Final = msgspec.json.Decoder()
_SLOW_ENCODER: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), sort_keys=True
)


def parse_json(raw: bytes | str, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """The value that `raw` encodes. Integers are exact; of a repeated key the last one counts.

    Raises: BadJson when `raw` is no JSON by RFC 8259, no UTF-8, longer than `max_bytes`, nested deeper than
    MAX_JSON_DEPTH, or has a float that no double can hold, an integer of thousands of digits, NaN, Infinity,
    a byte order mark or a lone surrogate.
    """
    try:
        data = raw.encode() if isinstance(raw, str) else raw
        if len(data) > max_bytes:
            raise BadJson(f"the JSON is longer than {max_bytes} bytes")
        value = _DECODER.decode(data)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise BadJson(f"not JSON: {error}") from error
    except RecursionError as error:
        raise BadJson(f"the JSON is nested deeper than {MAX_JSON_DEPTH} levels") from error
    # As many brackets as levels at most: this settles almost every document without looking at its values.
    if data.count(b"{") + data.count(b"[") > MAX_JSON_DEPTH:
        _check_depth(value)
    return value


def parse_object(raw: bytes | str, max_bytes: int = MAX_JSON_BYTES) -> JsonObject:
    """Like `parse_json`, for a text whose outermost value must be an object.

    Raises: BadJson.
    """
    value = parse_json(raw, max_bytes)
    if type(value) is not dict:
        raise BadJson("the JSON is not an object")
    return value


def encode(value: object) -> bytes:
    """The canonical form: keys sorted by code point, no white space, UTF-8.

    Numbers that the strict form forbids (rooms v1 to v5 may hold them) are written as every other server in
    such rooms writes them: integers in full, floats as Python's `repr` does.

    Raises: BadJson for what is no JSON value: other types, keys that are no strings, NaN, infinities, lone
    surrogates, cycles.
    """
    try:
        if not _has_float((value,)):
            return orjson.dumps(value, option=_OPTIONS)
    except (TypeError, RecursionError):
        # An integer beyond 64 bits, nesting beyond orjson's own limit, or no JSON at all: the slow way tells.
        pass
    return _encode_slowly(value)


def encode_strict(value: object) -> bytes:
    """The canonical form of a value that must keep the strict rules of rooms v6 and up.

    Raises: BadJson where `check_strict` or `encode` would.
    """
    check_strict(value)
    try:
        return orjson.dumps(value, option=_OPTIONS)
    except TypeError as error:
        return _encode_slowly(value, error)


def check_strict(value: object) -> None:
    """Check that numbers are integers within ±(2^53-1), as rooms v6 and up demand.

    Raises: BadJson, also for types that JSON does not have.
    """
    try:
        _check_strict((value,))
    except RecursionError as error:
        raise BadJson("the value is nested too deeply") from error


def _check_strict(values: Any) -> None:
    for value in values:
        kind = type(value)
        if kind is str or kind is bool or value is None:
            continue
        if kind is dict:
            _check_strict(value.values())
        elif kind is list or kind is tuple:
            _check_strict(value)
        elif kind is int:
            if not MIN_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER:
                raise BadJson("an integer is outside ±(2^53-1)")
        elif not isinstance(value, str):
            raise BadJson(f"canonical JSON has no {kind.__name__}")


def _has_float(values: Any) -> bool:
    for value in values:
        kind = type(value)
        if kind is str or kind is int:
            continue
        if kind is float:
            return True
        if kind is dict:
            if _has_float(value.values()):
                return True
        elif (kind is list or kind is tuple) and _has_float(value):
            return True
    return False


def _encode_slowly(value: object, cause: Exception | None = None) -> bytes:
    try:
        encoded = _SLOW_ENCODER.encode(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise BadJson(f"the value has no canonical JSON: {error}") from (cause or error)
    # The encoder of the standard library turns other keys into strings; JSON has no such keys.
    _check_keys(value)
    return encoded


def _children(level: list[Any]) -> list[Any]:
    return [
        child
        for parent in level
        for child in (parent.values() if type(parent) is dict else parent)
        if type(child) in _CONTAINERS
    ]


def _check_keys(value: object) -> None:
    level = [value] if type(value) in _CONTAINERS else []
    while level:
        for parent in level:
            if type(parent) is dict and not all(isinstance(key, str) for key in parent):
                raise BadJson("a key is no string")
        level = _children(level)


def _check_depth(value: object) -> None:
    level = [value] if type(value) in _CONTAINERS else []
    for _ in range(MAX_JSON_DEPTH):
        level = _children(level)
        if not level:
            return
    raise BadJson(f"the JSON is nested deeper than {MAX_JSON_DEPTH} levels")
