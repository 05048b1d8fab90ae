"""The heads of answers as they go over the wire (RFC 9112), and what an answer's headers mean for its body."""

import re
from collections.abc import Sequence
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Final

Header = tuple[bytes, bytes]

CLOSE: Final = b"connection: close\r\n"
CHUNKED: Final = b"transfer-encoding: chunked\r\n"
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

_CACHED_LINES: Final = 512

# RFC 9110, section 5: a token; and what is not a control character, but for tabs.
_NAME: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE: Final = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")


def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


_STATUS_LINES: Final = {status: _status_line(status) for status in range(200, 600)}


def encode_head(status: int, headers: Sequence[Header], now_s: int, *more: bytes) -> bytes:
    """The head of an answer. `now_s`: since the epoch; `more`: further lines.

    Raises: ValueError: a header would not be one header, or not a header; KeyError: no status of an answer.
    """
    lines = [_STATUS_LINES[status], _date_line(now_s)]
    for name, value in headers:
        lines.append(_line(name, value))
    lines += more
    lines.append(b"\r\n")
    return b"".join(lines)


@lru_cache(_CACHED_LINES)
def _line(name: bytes, value: bytes) -> bytes:
    if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
        raise ValueError(f"no header: {name!r}")
    return b"%b: %b\r\n" % (name, value)


@lru_cache(1)
def _date_line(now_s: int) -> bytes:
    return f"date: {formatdate(now_s, usegmt=True)}\r\n".encode()
