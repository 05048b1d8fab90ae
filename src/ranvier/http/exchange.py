"""The two ends of a request as ASGI has them: the body that comes in, the answer that goes out."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final

from ranvier.core import errors
from ranvier.http.body_budget import Share
from ranvier.http.heads import Header
from ranvier.http.responses import Response

Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

GRACE_S: Final = 60.0
"""So long a body may take, whatever its size,"""

LEAST_BYTES_PER_S: Final = 1_024
"""and as much longer as it has bytes that came at this pace."""

_DISCARDED_BYTES: Final = 134_217_728

# Client-server API, "Web Browser Clients".
_CORS: Final[tuple[Header, ...]] = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"GET, POST, PUT, DELETE, OPTIONS"),
    (
        b"access-control-allow-headers",
        b"X-Requested-With, Content-Type, Authorization, Date, If-Match, If-None-Match",
    ),
)
_CORS_PREFLIGHT: Final[Header] = (b"access-control-max-age", b"86400")
_CORS_OWN_HEADERS: Final[Header] = (b"access-control-expose-headers", b"ETag, Retry-After")

_JSON: Final = "application/json"
_JSON_HEADERS: Final[tuple[Header, ...]] = ((b"content-type", _JSON.encode()), *_CORS)

_BODILESS: Final = (204, 304)


class BrokenOff(errors.MatrixError):
    """The client went away before its body was here. Hardly anybody hears the answer."""


class BodyTooSlow(errors.MatrixError):
    """The body comes so slowly that it may never end."""

    status = 408


class Body:
    """What a client sends after the head of its request: to be read once, whole or in pieces."""

    __slots__ = ("_deadline_s", "_is_whole", "_length", "_receive", "_share", "_taken")

    def __init__(self, receive: Receive, length: int | None, share: Share) -> None:
        """`length`: in bytes, where the head of the request tells it. `share`: of what bodies may take in memory."""
        self._receive = receive
        self._length = length
        self._share = share
        self._is_whole = False
        self._taken = 0
        self._deadline_s: float | None = None  # of the event loop; None: nobody has begun to read

    async def read(self, limit: int) -> bytes:
        """All of it.

        Raises: EventTooLarge when it has more than `limit` bytes, LimitExceeded when all bodies together are too
        large; then the rest is not read. BodyTooSlow, BrokenOff.
        """
        if self._length is not None and self._length > limit:
            raise _too_large(limit)
        pieces = []
        while self._taken <= limit and (piece := await self._next()) is not None:
            pieces.append(piece)
            self._share.grow_to(self._taken)
        if self._taken > limit:
            raise _too_large(limit)
        return b"".join(pieces)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The pieces as they come. Raises: BodyTooSlow, BrokenOff."""
        while (piece := await self._next()) is not None:
            yield piece

    async def discard(self) -> None:
        """Read what a refused upload still sends: whoever is busy sending hears no answer, and finds the
        connection closed instead. Bounded.
        """
        left = self._taken + _DISCARDED_BYTES
        try:
            while self._taken < left and await self._next() is not None:
                pass
        except (BodyTooSlow, BrokenOff):
            return

    async def _next(self) -> bytes | None:
        """The next piece; None: that was all."""
        if self._is_whole:
            return None
        now_s = asyncio.get_running_loop().time()
        if self._deadline_s is None:
            self._deadline_s = now_s + GRACE_S
        try:
            async with asyncio.timeout_at(self._deadline_s + self._taken / LEAST_BYTES_PER_S):
                event = await self._receive()
        except TimeoutError as error:
            raise BodyTooSlow("The body of this request comes too slowly.") from error
        # A client that goes away in the middle of a body of unknown length must not seem to have sent it all.
        if event["type"] == "http.disconnect":
            raise BrokenOff("The body of this request broke off.")
        piece: bytes = event.get("body", b"")
        self._taken += len(piece)
        self._is_whole = self._taken == self._length or not event.get("more_body", False)
        return piece


def _too_large(limit: int) -> errors.EventTooLarge:
    return errors.EventTooLarge(f"The body may have at most {limit} bytes.")


async def send_answer(send: Send, answer: Response, content: bytes) -> None:
    """Send a response. `content`: its body, encoded; of no meaning where it has a stream."""
    headers = _headers(answer)
    if answer.stream is None:
        if answer.status not in _BODILESS:
            headers.append((b"content-length", b"%d" % len(content)))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": content})
        return
    if answer.content_length is not None:
        headers.append((b"content-length", b"%d" % answer.content_length))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    async for piece in answer.stream:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def send_preflight(send: Send) -> None:
    """Tell a browser that it may ask."""
    headers = [*_JSON_HEADERS, _CORS_PREFLIGHT, (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


def _headers(answer: Response) -> list[Header]:
    headers = (
        [*_JSON_HEADERS]
        if answer.content_type == _JSON
        else [(b"content-type", answer.content_type.encode("latin-1")), *_CORS]
    )
    if answer.headers:
        headers.append(_CORS_OWN_HEADERS)
        headers += [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in answer.headers.items()
        ]
    return headers
