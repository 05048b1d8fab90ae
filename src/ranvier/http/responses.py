"""What an endpoint function may return, and how it becomes bytes."""

from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import msgspec
import orjson

_encode_struct = msgspec.json.Encoder().encode


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """A response that is more than a JSON body with status 200."""

    status: int = 200
    headers: Mapping[str, str] = {}
    content_type: str = "application/json"
    body: Any = b""
    stream: AsyncIterator[bytes] | None = None
    content_length: int | None = None  # of the stream, when known


def encode(value: Any) -> bytes:
    """JSON bytes. Bytes are taken as JSON encoded already; `orjson.Fragment` may stand inside a dict."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, msgspec.Struct):
        return _encode_struct(value)
    return orjson.dumps(value)


def json_value(json: bytes) -> orjson.Fragment:
    """What is JSON already, to stand inside a dict."""
    return orjson.Fragment(json)


def json_array(values: Iterable[bytes]) -> orjson.Fragment:
    """The array of what is JSON already."""
    return orjson.Fragment(b"[" + b",".join(values) + b"]")
