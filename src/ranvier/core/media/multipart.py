"""The form in which servers hand media to each other: multipart/mixed with JSON first, then the file.

Spec: server-server API, "Content Repository". RFC 2046, section 5.1.
"""

import re
from collections.abc import Mapping
from enum import Enum
from typing import Final

from ranvier.core.errors import ProtocolFault

MAX_TYPE_CHARS: Final = 500
MAX_HEAD_BYTES: Final = 16_384
MAX_JSON_BYTES: Final = 65_536

_BOUNDARY: Final = re.compile(
    r"multipart/mixed\s*;(?:.*;)?\s*boundary=(?:\"([^\"]{1,70})\"|([^\s;\"]{1,70})(?![^\s;]))", re.IGNORECASE
)
_BLANK_LINE: Final = b"\r\n\r\n"


class BadMultipart(ProtocolFault):
    """Not the two parts that the specification asks for."""


class _At(Enum):
    PREAMBLE = "before the first part"
    JSON_HEAD = "in the head of the first part"
    JSON = "in the first part"
    FILE_HEAD = "in the head of the second part"
    FILE = "in the second part"
    END = "behind the second part"


_BOUNDS: Final = {
    _At.PREAMBLE: MAX_HEAD_BYTES,
    _At.JSON_HEAD: MAX_HEAD_BYTES,
    _At.JSON: MAX_JSON_BYTES,
    _At.FILE_HEAD: MAX_HEAD_BYTES,
}


def parse_boundary(content_type: str | None) -> bytes:
    """The boundary that a Content-Type header names. Raises: BadMultipart when it is no multipart/mixed."""
    found = _BOUNDARY.match((content_type or "").strip()[:MAX_TYPE_CHARS])
    boundary = (found[1] or found[2]) if found else ""
    if not boundary or not boundary.isascii():
        raise BadMultipart("the answer is no multipart/mixed with a boundary")
    return boundary.encode()


class TwoParts:
    """Reads the two parts as they come. `headers` are the second part's, once they are there."""

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        # A delimiter begins a line; the first line of all has no line before it.
        self._buffer = b"\r\n"
        self._at = _At.PREAMBLE
        self.headers: Mapping[str, str] | None = None

    @property
    def is_complete(self) -> bool:
        return self._at is _At.END

    def feed(self, data: bytes) -> bytes:
        """What of the file `data` completes; it may be empty. Raises: BadMultipart."""
        if self._at is _At.END:
            return b""  # an epilogue, which nobody reads
        self._buffer += data
        while self._at is not _At.FILE and self._advance():
            pass
        if self._at is _At.FILE:
            return self._take_file()
        if len(self._buffer) > _BOUNDS[self._at]:
            raise BadMultipart(f"too many bytes {self._at.value}")
        return b""

    def _advance(self) -> bool:
        """Go on to what comes next, if it is there."""
        match self._at:
            case _At.PREAMBLE:
                return self._skip(self._delimiter, _At.JSON_HEAD)
            case _At.JSON_HEAD:
                return self._take_head(_At.JSON) is not None
            case _At.JSON:
                return self._skip(self._delimiter, _At.FILE_HEAD)
            case _:
                head = self._take_head(_At.FILE)
                if head is not None:
                    self.headers = _parse_head(head)
                return head is not None

    def _skip(self, mark: bytes, then: _At) -> bool:
        _, found, rest = self._buffer.partition(mark)
        if found:
            self._buffer, self._at = rest, then
        return bool(found)

    def _take_head(self, then: _At) -> bytes | None:
        """What stands up to the blank line, the rest of the delimiter's own line included."""
        if self._buffer.startswith(b"--"):
            raise BadMultipart("there are fewer than two parts")
        head, found, rest = self._buffer.partition(_BLANK_LINE)
        if not found:
            return None
        # A head without fields ends with the delimiter's line, whose end a body's delimiter may need.
        self._buffer, self._at = b"\r\n" + rest if then is _At.JSON else rest, then
        return head

    def _take_file(self) -> bytes:
        body, found, _ = self._buffer.partition(self._delimiter)
        if found:
            self._buffer, self._at = b"", _At.END
            return body
        # The end may be the beginning of a delimiter.
        keep = len(self._delimiter) - 1
        body, self._buffer = self._buffer[:-keep], self._buffer[-keep:]
        return body


def encode_two_parts(boundary: str, headers: Mapping[str, str]) -> tuple[bytes, bytes]:
    """What stands before and behind a file. `boundary` must not occur in it; headers hold no line breaks."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    before = f"--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--{boundary}\r\n{lines}\r\n"
    return before.encode("latin-1"), f"\r\n--{boundary}--\r\n".encode()


def _parse_head(head: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in head.decode("utf-8", errors="replace").split("\r\n")[1:]:
        name, colon, value = line.partition(":")
        if colon:
            headers.setdefault(name.strip().lower(), value.strip())
    return headers
