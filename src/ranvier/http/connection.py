"""HTTP/1.1 on one connection (RFC 9112): requests in, answers out, in their order.

What is on the wire is read by llhttp, which is strict about all by which one request could be smuggled inside
another. This file knows what it does not: order, bounds, time, and the meaning of what was read.
"""

import asyncio
from collections import deque
from time import time
from typing import Any, Final, Protocol, cast

import httptools

from ranvier.http.forwarded import find_client, is_proxy
from ranvier.http.heads import CLOSE, Header, encode_head
from ranvier.http.message import App, Exchange

MAX_HEAD_BYTES: Final = 65_536
"""Of a request's line and headers."""

_READ_BYTES: Final = 262_144
"""That come at once, at most: a head may begin anywhere in them."""

MAX_WAITING: Final = 100
"""Requests that came before the answer to an earlier one."""

PATIENCE_S: Final = 60.0
"""So long a client may take to send the head of a request, and not take anything of its answer."""

KEEP_ALIVE_S: Final = 75.0
"""So long whoever has been answered may be silent."""

GOODBYE_S: Final = 0.25

_VERSIONS: Final = ("1.1", "1.0")


class Keeper(Protocol):
    """Keeps what lives while a connection does."""

    def opened(self, connection: "Connection") -> None: ...

    def closed(self, connection: "Connection") -> None: ...

    def answering(self, task: "asyncio.Task[None]") -> None:
        """Keep a task until it has ended."""


class Connection(asyncio.Protocol):
    """One client's connection."""

    __slots__ = (
        *("_app", "_keeper", "_loop", "_parser", "_transport", "_client", "_is_proxy"),
        *("_target", "_headers", "_is_in_head", "_read", "_touched", "_is_without_upgrade"),
        *("_exchange", "_incoming", "_waiting", "_fault", "_is_deaf", "_is_leaving"),
        *("_is_paused", "_may_write", "_is_under_way", "_since_s", "_written", "_taken", "_taken_s"),
    )

    _transport: asyncio.Transport

    def __init__(self, app: App, keeper: Keeper) -> None:
        self._app = app
        self._keeper = keeper
        self._loop = asyncio.get_running_loop()
        self._parser: Any = httptools.HttpRequestParser(self)
        self._client: tuple[str, int] | None = None
        self._is_proxy = False
        # What is being read.
        self._target = b""
        self._headers: list[Header] = []
        self._is_in_head = False
        self._read = 0  # bytes that came last
        self._touched = 0  # bytes that came with a part of this head in them
        self._is_without_upgrade = False  # a head is told to a second parser: see `_refuse_upgrade`
        # What is being answered, whose body comes in, and who waits for their turn.
        self._exchange: Exchange | None = None
        self._incoming: Exchange | None = None
        self._waiting: deque[Exchange] = deque()
        self._fault: int | None = None  # status of the last answer: what came after those was no request
        self._is_deaf = False  # nothing that still comes is looked at
        self._is_leaving = False  # the server stops
        # How it goes.
        self._is_paused = False  # nothing is read
        self._may_write: asyncio.Future[None] | None = None  # None: it may
        self._is_under_way = True  # a request is on its way
        self._since_s = self._loop.time()  # when nobody was answered any more, or a request was under way
        self._written = 0
        self._taken = -1
        self._taken_s = 0.0

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self._client = str(peer[0]), int(peer[1])
            self._is_proxy = is_proxy(self._client[0])
        self._keeper.opened(self)

    def connection_lost(self, _error: Exception | None) -> None:
        self._keeper.closed(self)
        self._parser = None  # it holds on to this connection
        self._is_deaf = True
        self._waiting.clear()
        for exchange in (self._exchange, self._incoming):
            if exchange is not None:
                exchange.break_off()
        self.resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            return
        if self._exchange is None and not self._is_under_way:
            self._is_under_way = True
            self._since_s = self._loop.time()
        self._read = len(data)
        self._touched += self._read
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if not self._is_deaf:
                self._refuse_upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserCallbackError:
            raise  # ours: a bug
        except httptools.HttpParserError:
            if not self._is_deaf:
                self._misunderstand(400)
            return
        is_for_head = self._is_in_head or self._incoming is None
        if is_for_head and self._touched > MAX_HEAD_BYTES + _READ_BYTES and not self._is_deaf:
            self._misunderstand(431)

    def pause_writing(self) -> None:
        if self._may_write is None:
            self._may_write = self._loop.create_future()

    def resume_writing(self) -> None:
        may_write, self._may_write = self._may_write, None
        if may_write is not None and not may_write.done():
            may_write.set_result(None)

    # The parser's side

    def on_message_begin(self) -> None:
        if not self._is_without_upgrade:
            self._target = b""
            self._headers = []
            self._is_in_head = True
            self._touched = self._read

    def on_url(self, url: bytes) -> None:
        if self._is_in_head:
            self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        # What comes behind a body tells us nothing.
        if self._is_in_head:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self._is_without_upgrade or self._fault is not None or self._is_deaf:
            return
        self._is_in_head = False
        version = self._parser.get_http_version()
        fields = dict(self._headers)
        status = self._find_fault(version, fields)
        if status is not None:
            self._misunderstand(status)
            return
        try:
            path, query = _split(self._target)
        except httptools.HttpParserInvalidURLError:
            self._misunderstand(400)
            return
        client = self._client
        if self._is_proxy and b"x-forwarded-for" in fields:
            named = find_client([value for name, value in self._headers if name == b"x-forwarded-for"])
            client = client if named is None else (named, 0)
        scope = {
            "type": "http",
            "method": self._parser.get_method().decode("latin-1"),
            "raw_path": path,
            "query_string": query,
            "headers": self._headers,
            "client": client,
        }
        self._begin(
            Exchange(
                self,
                scope,
                is_modern=version == "1.1",
                keeps_alive=self._parser.should_keep_alive(),
                expects_continue=b"expect" in fields and version == "1.1",
            )
        )

    def on_body(self, piece: bytes) -> None:
        if self._incoming is not None and self._incoming.add(piece):
            self._pause_reading()

    def on_message_complete(self) -> None:
        exchange = self._incoming
        if exchange is None or self._parser.should_upgrade():
            return
        exchange.complete()
        self._incoming = None
        self._touched = 0
        if not exchange.keeps_alive:
            self._is_deaf = True
        if self._exchange is None:
            # What was left of a body that nobody wanted.
            self._is_under_way = False
            self._since_s = self._loop.time()

    def _find_fault(self, version: str, fields: dict[bytes, bytes]) -> int | None:
        """The status of what cannot be answered otherwise."""
        if version not in _VERSIONS:
            return 505
        # RFC 9112, section 3.2: one Host, and only HTTP/1.0 has none.
        if b"host" not in fields and version == "1.1":
            return 400
        if len(fields) < len(self._headers) and [name for name, _ in self._headers].count(b"host") > 1:
            return 400
        coding = fields.get(b"transfer-encoding")
        if coding is not None and (version == "1.0" or coding.lower() != b"chunked"):
            # Section 6.1: HTTP/1.0 has no such thing; and of codings we know this one.
            return 400 if version == "1.0" else 501
        if fields.get(b"expect", b"100-continue").lower() != b"100-continue":
            return 417
        if self._touched > MAX_HEAD_BYTES and self._head_bytes() > MAX_HEAD_BYTES:
            return 431
        # Section 3.2: what is behind `#` is not sent; and we are no proxy, to which CONNECT belongs.
        return 400 if b"#" in self._target or self._parser.get_method() == b"CONNECT" else None

    def _head_bytes(self) -> int:
        return len(self._target) + sum(len(name) + len(value) + 4 for name, value in self._headers)

    def _refuse_upgrade(self, rest: bytes) -> None:
        """Go on in HTTP/1.1 where the parser thinks that something else begins: it has not looked at the body.

        Spec: RFC 9110, section 7.8: a server may ignore Upgrade.
        """
        framing = [
            b"%b: %b\r\n" % header
            for header in self._headers
            if header[0] in (b"content-length", b"transfer-encoding")
        ]
        connection = b"" if self._incoming is None or self._incoming.keeps_alive else CLOSE
        self._parser = httptools.HttpRequestParser(self)
        self._is_without_upgrade = True
        head = b"".join((b"POST / HTTP/1.1\r\n", *framing, connection, b"\r\n"))
        self._parser.feed_data(head)
        self._is_without_upgrade = False
        if rest:
            self.data_received(rest)

    # Exchanges

    def _begin(self, exchange: Exchange) -> None:
        if len(self._waiting) >= MAX_WAITING:
            self._misunderstand(429)
            return
        self._incoming = exchange
        if self._exchange is None:
            self._start(exchange)
        else:
            # RFC 9112, section 9.3.2: answers in the order of the requests.
            self._waiting.append(exchange)
            self._pause_reading()

    def _start(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._is_under_way = False
        self._keeper.answering(self._loop.create_task(exchange.run(self._app)))

    def ended(self, exchange: Exchange) -> None:
        """An exchange is over."""
        self._exchange = None
        self._since_s = self._loop.time()
        if self._transport.is_closing():
            return
        if not exchange.keeps_alive:
            self._close()
        elif self._waiting:
            self._start(self._waiting.popleft())
            self.resume_reading()
        elif self._fault is not None:
            self._tell_fault(self._fault)
        elif self._is_leaving:
            self._close()
        else:
            # What is left of its body is dropped. That, too, has to come in time, as what has come of another request.
            self._is_under_way = self._incoming is not None or self._is_in_head
            self.resume_reading()

    def _misunderstand(self, status: int) -> None:
        """What came is no request: say so when those before it are answered, and hear no more."""
        self._is_deaf = True
        if self._incoming is not None:
            # In the middle of a body, so there is an answer to come; or it has been given already.
            is_over = self._incoming.is_over
            self._incoming.break_off()
            self._incoming = None
            if is_over:
                self._close()
        elif self._exchange is None:
            self._tell_fault(status)
        else:
            self._fault = status

    def _tell_fault(self, status: int) -> None:
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_NO_REQUEST))]
        self.write(encode_head(status, headers, int(time()), CLOSE) + _NO_REQUEST)
        self._close()

    # For exchanges

    @property
    def is_leaving(self) -> bool:
        """Whether there will be no other exchange."""
        return self._is_leaving

    @property
    def may_write(self) -> "asyncio.Future[None] | None":
        """To be awaited before anything is written; None: now."""
        return self._may_write

    def write(self, data: bytes) -> None:
        if not self._transport.is_closing():
            self._written += len(data)
            self._transport.write(data)

    def resume_reading(self) -> None:
        """Read on, if nobody waits who came before."""
        if self._is_paused and not self._waiting and not self._transport.is_closing():
            self._is_paused = False
            self._transport.resume_reading()

    def _pause_reading(self) -> None:
        if not self._is_paused and not self._transport.is_closing():
            self._is_paused = True
            self._transport.pause_reading()

    def abort(self) -> None:
        """Cut it off: what was begun cannot be ended as it should."""
        self._is_deaf = True
        self._transport.abort()

    # The server's side

    def check(self, now_s: float, patience_s: float) -> None:
        """Cut it off if nothing has moved for too long. To be called now and then."""
        unsent = self._transport.get_write_buffer_size()
        if unsent:
            taken = self._written - unsent
            if taken != self._taken:
                self._taken, self._taken_s = taken, now_s
            elif now_s - self._taken_s > patience_s:
                self.abort()
        elif self._exchange is None:
            limit_s = patience_s if self._is_under_way else KEEP_ALIVE_S
            if now_s - max(self._since_s, self._taken_s) > limit_s:
                self.abort()

    def leave(self) -> None:
        """The server stops: who is not being answered goes at once."""
        self._is_leaving = True
        if self._exchange is None:
            self._close()
        self._part(is_closing=False)

    def _close(self) -> None:
        self._is_deaf = True
        self._transport.close()

    def _part(self, *, is_closing: bool) -> None:
        """See that a connection that is closed ends: under TLS, closing waits for the other side to say goodbye, and
        one that is merely kept open may never do."""
        if is_closing and not self._transport.get_write_buffer_size():
            self._transport.abort()
        else:
            is_closing = self._transport.is_closing()
            self._loop.call_later(GOODBYE_S, lambda: self._part(is_closing=is_closing))


def _split(target: bytes) -> tuple[bytes, bytes]:
    """The path and the query of a target. Raises: HttpParserInvalidURLError."""
    path, _, query = target.partition(b"?")
    if path.startswith(b"/") or path == b"*":
        return path, query
    # RFC 9112, section 3.2.2: the absolute form is to be understood, too.
    url = httptools.parse_url(target)
    return url.path or b"/", url.query or b""


_NO_REQUEST: Final = b'{"errcode":"M_UNKNOWN","error":"This is no request that can be understood."}'
