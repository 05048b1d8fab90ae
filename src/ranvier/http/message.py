"""One request on a connection and its answer: what an ASGI application is given (RFC 9110, 9112)."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import time
from typing import Any, Final, Protocol

from ranvier.http.heads import CHUNKED, CLOSE, CONTINUE, Header, encode_head

log = logging.getLogger(__name__)

App = Callable[[Any, Any, Any], Awaitable[None]]

MAX_UNREAD_BYTES: Final = 65_536
"""Of a body that nobody has asked for yet; then no more is read."""

_JOINED_BYTES: Final = 16_384
"""Up to so many, a body is copied behind its head: one piece costs less than two."""

_BODILESS: Final = (204, 304)
_FAILED: Final = b'{"errcode":"M_UNKNOWN","error":"Something went wrong here."}'
_GONE: Final = {"type": "http.disconnect"}


class Wire(Protocol):
    """What an exchange asks of its connection."""

    @property
    def is_leaving(self) -> bool:
        """Whether there will be no other exchange."""

    @property
    def may_write(self) -> "asyncio.Future[None] | None":
        """To be awaited before anything is written; None: now."""

    def write(self, data: bytes) -> None: ...

    def resume_reading(self) -> None: ...

    def abort(self) -> None: ...

    def ended(self, exchange: "Exchange") -> None: ...


class Exchange:
    """A request whose head is here, and its answer."""

    __slots__ = (
        *("_arrived", "_expects_continue", "_head", "_is_begun", "_is_broken", "_is_chunked", "_is_modern"),
        *("_is_silent", "_is_whole", "_left", "_pieces", "_size", "_wire", "is_over", "keeps_alive", "scope"),
    )

    def __init__(
        self,
        wire: Wire,
        scope: Mapping[str, Any],
        *,
        is_modern: bool,
        keeps_alive: bool,
        expects_continue: bool,
    ) -> None:
        """`is_modern`: HTTP/1.1, and not 1.0."""
        self.scope = scope
        self.keeps_alive = keeps_alive and is_modern
        self.is_over = False
        self._wire = wire
        self._is_modern = is_modern
        # Of the request.
        self._expects_continue = expects_continue
        self._pieces: list[bytes] = []
        self._size = 0
        self._is_whole = False
        self._is_broken = False
        self._arrived: asyncio.Future[None] | None = None  # somebody waits for a piece
        # Of the answer.
        self._head: tuple[int, Sequence[Header]] | None = None
        self._is_begun = False  # the head was sent
        self._is_silent = False  # there is no body, whatever the head says
        self._is_chunked = False
        self._left: int | None = None  # bytes of the body that are still to come; None: as many as there are

    async def run(self, app: App) -> None:
        """Have it answered. Raises nothing but CancelledError."""
        try:
            await app(self.scope, self.receive, self.send)
            if not self.is_over:
                raise RuntimeError("there was no whole answer")
        except Exception:
            log.exception("an answer failed: %s", self.scope["method"])
            self._fail()
        except BaseException:
            self._wire.abort()
            raise
        finally:
            self.is_over = True
            self._pieces.clear()
            self._wire.ended(self)

    # The connection's side

    def add(self, piece: bytes) -> bool:
        """Take in a piece of the body. Whether that is enough for now."""
        if self.is_over:
            return False
        self._pieces.append(piece)
        self._size += len(piece)
        self._tell()
        return self._size > MAX_UNREAD_BYTES

    def complete(self) -> None:
        """The body is whole."""
        self._is_whole = True
        self._tell()

    def break_off(self) -> None:
        """No more comes, though there should be more; or nobody is left to be answered."""
        self._is_broken = True
        self.keeps_alive = False
        self._tell()

    def _tell(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    # The application's side

    async def receive(self) -> Mapping[str, Any]:
        """What came of the body since this was asked last."""
        if self._expects_continue and not self._is_whole and self._head is None:
            self._expects_continue = False
            self._wire.write(CONTINUE)
        while not (self._pieces or self._is_whole or self._is_broken or self.is_over):
            self._wire.resume_reading()
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        if self.is_over or (self._is_broken and not self._is_whole):
            return _GONE
        body = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        return {"type": "http.request", "body": body, "more_body": not self._is_whole}

    async def send(self, message: Mapping[str, Any]) -> None:
        """The head, kept until there is a body to send with it; then the body, in pieces.

        Raises: RuntimeError, ValueError: that is no answer.
        """
        if message["type"] == "http.response.start":
            if self._head is not None:
                raise RuntimeError("an answer has one head")
            self._head = message["status"], message["headers"]
            return
        if self._head is None or self.is_over:
            raise RuntimeError("a body comes after its head, and ends once")
        while (may_write := self._wire.may_write) is not None:
            await may_write
        piece: bytes = message.get("body", b"")
        is_last = not message.get("more_body", False)
        head = b"" if self._is_begun else self._begin(*self._head)
        framed = self._frame(piece, is_last)
        if len(framed) <= _JOINED_BYTES:
            self._wire.write(head + framed)
        else:
            if head:
                self._wire.write(head)
            self._wire.write(framed)
        self.is_over = is_last

    def _begin(self, status: int, headers: Sequence[Header]) -> bytes:
        """The head as it is sent, and how its body ends. Raises: ValueError."""
        fields = dict(headers)
        more = []
        self._is_silent = self.scope["method"] == "HEAD"
        if b"content-length" in fields:
            self._left = int(fields[b"content-length"])
        elif status in _BODILESS:
            self._left = 0
        elif not self._is_modern:
            self.keeps_alive = False  # RFC 9112, section 6.3: it ends with the connection
        else:
            self._is_chunked = True
            more.append(CHUNKED)
        says_close = fields.get(b"connection", b"").lower() == b"close"
        # RFC 9110, section 10.1.1: whoever was not told to go on may send the body or not, so nobody knows what comes.
        is_unclear = self._expects_continue and not self._is_whole
        if says_close or is_unclear or self._wire.is_leaving:
            self.keeps_alive = False
        if not self.keeps_alive and not says_close:
            more.append(CLOSE)
        head = encode_head(status, headers, int(time()), *more)
        self._is_begun = True
        return head

    def _frame(self, piece: bytes, is_last: bool) -> bytes:
        """A piece of the body as it is sent. Raises: ValueError: it is longer or shorter than its head says."""
        if self._is_silent:
            return b""
        if self._is_chunked:
            framed = b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""
            return framed + b"0\r\n\r\n" if is_last else framed
        if self._left is not None:
            self._left -= len(piece)
            if self._left < 0 or (is_last and self._left):
                raise ValueError("a body is as long as its head says")
        return piece

    def _fail(self) -> None:
        """Tell that there is no answer, if there is still a way to."""
        if self._is_begun:
            self._wire.abort()
            return
        self.keeps_alive = False
        headers = ((b"content-type", b"application/json"), (b"content-length", b"%d" % len(_FAILED)))
        body = b"" if self.scope["method"] == "HEAD" else _FAILED
        self._wire.write(encode_head(500, headers, int(time()), CLOSE) + body)
