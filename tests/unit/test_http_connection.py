"""HTTP/1.1 over the wire: whole or in pieces, one after the other or at once, strict or wrong, fast or slow."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranvier.http import message
from ranvier.http.connection import KEEP_ALIVE_S, MAX_HEAD_BYTES, MAX_WAITING, PATIENCE_S, Connection

HOST = b"Host: a\r\n"
LONG = b"x" * 300_000


class Transport(asyncio.Transport):
    """What a connection does to a socket."""

    def __init__(self, peer: str = "192.0.2.1") -> None:
        super().__init__({"peername": (peer, 4000)})
        self.out = b""
        self.is_closed = self.is_aborted = self.is_paused = False
        self.unsent = 0

    def write(self, data: Any) -> None:
        assert not self.is_closed
        self.out += data

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = self.is_aborted = True

    def is_closing(self) -> bool:
        return self.is_closed

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False

    def get_write_buffer_size(self) -> int:
        return self.unsent


class Keeper:
    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self.connections: set[Connection] = set()

    def opened(self, connection: Connection) -> None:
        self.connections.add(connection)

    def closed(self, connection: Connection) -> None:
        self.connections.discard(connection)

    def answering(self, task: asyncio.Task[None]) -> None:
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


class App:
    """Answers with what was asked. Some paths are special."""

    def __init__(self) -> None:
        self.scopes: list[Any] = []
        self.bodies: list[bytes | None] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        path = scope["raw_path"]
        body: bytes | None = None
        if path not in (b"/unread", b"/head-first"):
            body = await read(receive)
        self.bodies.append(body)
        await self.may_answer.wait()
        if path == b"/fails":
            raise LookupError("a bug")
        if path == b"/silent":
            return
        headers = [(b"content-type", b"text/plain")]
        if path == b"/bad-header":
            headers.append((b"x", b"a\r\nb: c"))
        content = b"%b %b" % (scope["method"].encode(), path) if path != b"/long" else LONG
        if path == b"/empty":
            await send({"type": "http.response.start", "status": 204, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return
        if path == b"/closes":
            headers.append((b"connection", b"close"))
        if path not in (b"/stream", b"/stream-fails"):
            length = len(content) + (1 if path == b"/short" else 0)
            headers.append((b"content-length", b"%d" % length))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if path in (b"/stream", b"/stream-fails"):
            await send({"type": "http.response.body", "body": b"one ", "more_body": True})
            if path == b"/stream-fails":
                raise LookupError("a bug")
            await send({"type": "http.response.body", "body": b"", "more_body": True})
        await send({"type": "http.response.body", "body": content})


async def read(receive: Any) -> bytes | None:
    """The body; None: it broke off."""
    parts = []
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            return None
        parts.append(event["body"])
        if not event["more_body"]:
            return b"".join(parts)


class Client:
    """One connection and what is behind it."""

    def __init__(self, peer: str = "192.0.2.1") -> None:
        self.app = App()
        self.keeper = Keeper()
        self.transport = Transport(peer)
        self.connection = Connection(self.app, self.keeper)
        self.connection.connection_made(self.transport)

    async def say(self, data: bytes, size: int = 1 << 18) -> bytes:
        """What comes back on some bytes, which go in pieces."""
        for start in range(0, len(data), size):
            if not self.transport.is_closed:
                self.connection.data_received(data[start : start + size])
            if size < 4096:
                await asyncio.sleep(0)
        await self.rest()
        out, self.transport.out = self.transport.out, b""
        return out

    async def rest(self) -> None:
        for _ in range(100):
            await asyncio.sleep(0)


class Answers:
    """The answers in some bytes, read as a client reads them."""

    def __init__(self, out: bytes) -> None:
        self.statuses: list[int] = []
        self.bodies: list[bytes] = []
        self.heads: list[dict[bytes, bytes]] = []
        self._parser: Any = httptools.HttpResponseParser(self)
        self._parser.feed_data(out)

    def on_message_begin(self) -> None:
        self.heads.append({})
        self.bodies.append(b"")

    def on_header(self, name: bytes, value: bytes) -> None:
        assert name not in self.heads[-1], "each header once"
        self.heads[-1][name] = value

    def on_headers_complete(self) -> None:
        self.statuses.append(self._parser.get_status_code())

    def on_body(self, body: bytes) -> None:
        self.bodies[-1] += body


def get(path: bytes = b"/", more: bytes = b"") -> bytes:
    return b"GET %b HTTP/1.1\r\n%b%b\r\n" % (path, HOST, more)


def post(body: bytes, path: bytes = b"/", more: bytes = b"") -> bytes:
    return b"POST %b HTTP/1.1\r\n%b%bContent-Length: %d\r\n\r\n%b" % (path, HOST, more, len(body), body)


def chunked(*pieces: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    body = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return b"POST / HTTP/1.1\r\n%bTransfer-Encoding: chunked\r\n\r\n%b%b" % (HOST, body, end)


# What is sent; the statuses of the answers; the bodies that the application saw; whether the connection is closed.
CASES: dict[str, tuple[bytes, list[int], list[bytes | None], bool]] = {
    "one": (get(), [200], [b""], False),
    "empty lines before it": (b"\r\n\r\n" + get(), [200], [b""], False),
    "two at once": (get() + post(b"ab"), [200, 200], [b"", b"ab"], False),
    "many at once": (post(b"a") + get() * 20 + post(b"b"), [200] * 22, [b"a", *[b""] * 20, b"b"], False),
    "a chunked body": (chunked(b"abc", b"de") + get(), [200, 200], [b"abcde", b""], False),
    "a trailer": (chunked(b"a", end=b"0\r\nX: 9\r\nHost: b\r\n\r\n") + get(), [200, 200], [b"a", b""], False),
    "an absolute target": (get(b"http://elsewhere/x?y=1"), [200], [b""], False),
    "an asterisk": (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", [200], [b""], False),
    "asked to close": (get(more=b"Connection: close\r\n") + get(), [200], [b""], True),
    "closed by the application": (get(b"/closes") + get(), [200], [b""], True),
    "HTTP/1.0": (b"GET / HTTP/1.0\r\n\r\n", [200], [b""], True),
    "HTTP/1.0 that wants to stay": (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", [200], [b""], True),
    "an upgrade without a body": (
        get(more=b"Upgrade: h2c\r\nConnection: Upgrade\r\n") + get(),
        [200, 200],
        [b"", b""],
        False,
    ),
    "an upgrade with a body": (
        post(b"abc", more=b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n") + get(),
        [200, 200],
        [b"abc", b""],
        False,
    ),
    "an upgrade with chunks": (
        chunked(b"abc").replace(HOST, HOST + b"Upgrade: websocket\r\nConnection: upgrade\r\n") + get(),
        [200, 200],
        [b"abc", b""],
        False,
    ),
    "an upgrade that closes": (
        get(more=b"Upgrade: h2c\r\nConnection: close, Upgrade\r\n") + get(),
        [200],
        [b""],
        True,
    ),
    "no content": (get(b"/empty") + get(), [204, 200], [b"", b""], False),
    "a stream": (get(b"/stream") + get(), [200, 200], [b"", b""], False),
    "a bug": (get(b"/fails") + get(), [500], [b""], True),
    "no answer": (get(b"/silent") + get(), [500], [b""], True),
    "a header in a header": (get(b"/bad-header"), [500], [b""], True),
    "unread": (post(b"abc", b"/unread") + get(), [200, 200], [None, b""], False),
    "no such expectation": (get(more=b"Expect: tea\r\n"), [417], [], True),
    # RFC 9112, section 3.2
    "no host": (b"GET / HTTP/1.1\r\n\r\n", [400], [], True),
    "two hosts": (get(more=b"host: b\r\n"), [400], [], True),
    "a fragment": (get(b"/a#b"), [400], [], True),
    "CONNECT": (b"CONNECT a:1 HTTP/1.1\r\n" + HOST + b"\r\n", [400], [], True),
    "HTTP/2 right away": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [400], [], True),
    "HTTP/2.0": (b"GET / HTTP/2.0\r\n" + HOST + b"\r\n", [505], [], True),
    "HTTP/0.9": (b"GET /\r\n\r\n", [505], [], True),
    "a TLS hello": (b"\x16\x03\x01\x02\x00\x01", [400], [], True),
    # Section 11.2: two lengths, or another one than we take it for, smuggle requests.
    "length and chunks": (chunked(b"a").replace(HOST, HOST + b"Content-Length: 3\r\n"), [400], [], True),
    "chunks and length": (
        chunked(b"a").replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\n", 1),
        [400],
        [],
        True,
    ),
    "two lengths": (post(b"a", more=b"Content-Length: 1\r\n"), [400], [], True),
    "a list of lengths": (post(b"a").replace(b": 1", b": 1, 1"), [400], [], True),
    "a signed length": (post(b"a").replace(b": 1", b": +1"), [400], [], True),
    "a length in hex": (post(b"a").replace(b": 1", b": 0x1"), [400], [], True),
    "a coding that we do not know": (
        chunked(b"a").replace(b": chunked", b": gzip, chunked"),
        [501],
        [],
        True,
    ),
    "chunked, but not in the end": (chunked(b"a").replace(b": chunked", b": chunked, gzip"), [400], [], True),
    "chunked twice": (chunked(b"a").replace(HOST, HOST + b"Transfer-Encoding: chunked\r\n"), [400], [], True),
    "chunked in HTTP/1.0": (chunked(b"a").replace(b"HTTP/1.1", b"HTTP/1.0"), [400], [], True),
    "another white space": (chunked(b"a").replace(b": chunked", b":\x0bchunked"), [400], [], True),
    "a space before the colon": (get(more=b"Content-Length : 1\r\n"), [400], [], True),
    "a folded header": (get(more=b"A: b\r\n c\r\n"), [400], [], True),
    "a bare line feed": (b"GET / HTTP/1.1\n" + HOST + b"\r\n", [400], [], True),
    "a bare carriage return": (get(more=b"A: b\rTransfer-Encoding: chunked\r\n"), [400], [], True),
    "a null": (get(more=b"A: \x00\r\n"), [400], [], True),
    "a space in the target": (get(b"/a b"), [400], [], True),
    "wrong after right": (get() + b"nonsense\r\n\r\n" + get(), [200, 400], [b""], True),
    # In the middle of a body an answer is to come already: the application says that it broke off.
    "a length behind the body": (
        chunked(b"a", end=b"0\r\nContent-Length: 9\r\n\r\n") + get(),
        [200],
        [None],
        True,
    ),
    "a bad chunk": (chunked(b"a", end=b"x\r\n"), [200], [None], True),
    "a chunk without its end": (chunked(b"a", end=b"3\r\nabcd\r\n0\r\n\r\n"), [200], [None], True),
    "a bad chunk behind": (get() + chunked(b"a", end=b"x\r\n"), [200, 200], [b"", None], True),
    "a bad chunk that nobody reads": (
        chunked(end=b"x\r\n").replace(b" / ", b" /unread "),
        [200],
        [None],
        True,
    ),
}


@pytest.mark.parametrize("size", [1 << 18, 1], ids=["whole", "bytes"])
@pytest.mark.parametrize("case", CASES)
async def test_what_comes_and_what_is_answered(case: str, size: int) -> None:
    data, statuses, bodies, is_closed = CASES[case]
    client = Client()
    answers = Answers(await client.say(data, size))
    assert answers.statuses == statuses
    assert client.app.bodies == bodies
    assert client.transport.is_closed == is_closed
    assert not client.keeper.tasks
    if is_closed:
        assert answers.heads[-1].get(b"connection") == b"close" or case in ("a bad chunk that nobody reads",)


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"http://a", 200),
        (b"https://a:1/b?c", 200),
        (b"http://a:99999999/b", 400),
        (b"http://a:b/c", 400),
        (b"http:///b", 400),
        (b"http://[::1/b", 400),
        (b"http://a@b@c/", 400),
        (b"a://b", 200),
        (b"http:a", 400),
    ],
)
async def test_absolute_targets(target: bytes, status: int) -> None:
    assert Answers(await Client().say(get(target))).statuses == [status]


async def test_who_waits_to_write_may_be_cancelled() -> None:
    client = Client()
    client.connection.pause_writing()
    await client.say(get())
    (task,) = client.keeper.tasks
    task.cancel()
    await client.rest()
    client.connection.resume_writing()
    assert client.transport.is_aborted


async def test_how_many_requests_may_wait_for_their_turn() -> None:
    client = Client()
    client.app.may_answer.clear()
    await client.say(get() * (2 * MAX_WAITING))
    client.app.may_answer.set()
    for _ in range(5):
        await client.rest()
    assert Answers(client.transport.out).statuses == [200] * (MAX_WAITING + 1) + [429]
    assert client.transport.is_closed


async def test_what_an_application_is_told() -> None:
    client = Client()
    out = await client.say(get(b"/a%2Fb?c=%20&d", b"X-One: 1\r\nX-ONE: \xff\r\n"))
    (scope,) = client.app.scopes
    assert scope == {
        "type": "http",
        "method": "GET",
        "raw_path": b"/a%2Fb",
        "query_string": b"c=%20&d",
        "headers": [(b"host", b"a"), (b"x-one", b"1"), (b"x-one", b"\xff")],
        "client": ("192.0.2.1", 4000),
    }
    head, _, body = out.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 200 OK"
    assert lines[1].startswith(b"date: ")
    assert lines[1].endswith(b" GMT")
    assert lines[2:] == [b"content-type: text/plain", b"content-length: 10"]
    assert body == b"GET /a%2Fb"


@pytest.mark.parametrize(
    ("peer", "forwarded", "seen"),
    [
        ("192.0.2.1", [b"198.51.100.7"], "192.0.2.1"),  # no proxy of ours
        ("127.0.0.1", [b"198.51.100.7"], "198.51.100.7"),
        ("::1", [b"2001:db8::7"], "2001:db8::7"),
        (
            "127.0.0.1",
            [b"6.6.6.6, 198.51.100.7"],
            "198.51.100.7",
        ),  # what is before it, the client may have said
        ("127.0.0.1", [b"6.6.6.6", b"198.51.100.7, 127.0.0.1"], "198.51.100.7"),
        ("127.0.0.1", [b"198.51.100.7:1234"], "198.51.100.7"),
        ("127.0.0.1", [b"[2001:db8::7]:1234"], "2001:db8::7"),
        ("127.0.0.1", [b"unknown"], "127.0.0.1"),
        ("127.0.0.1", [b""], "127.0.0.1"),
        ("127.0.0.1", [b"127.0.0.2"], "127.0.0.2"),
    ],
)
async def test_who_asks(peer: str, forwarded: list[bytes], seen: str) -> None:
    client = Client(peer)
    await client.say(get(more=b"".join(b"X-Forwarded-For: %b\r\n" % value for value in forwarded)))
    assert client.app.scopes[0]["client"][0] == seen


async def test_head_has_no_body() -> None:
    client = Client()
    for path in (b"/", b"/stream", b"/fails"):
        out = await client.say(b"HEAD %b HTTP/1.1\r\n%b\r\n" % (path, HOST))
        assert out.endswith(b"\r\n\r\n")
        assert out.count(b"\r\n\r\n") == 1


async def test_a_stream_for_http_1_0_ends_with_the_connection() -> None:
    client = Client()
    out = await client.say(b"GET /stream HTTP/1.0\r\n\r\n")
    assert out.endswith(b"\r\nconnection: close\r\n\r\none GET /stream")
    assert client.transport.is_closed


@pytest.mark.parametrize("path", [b"/stream-fails", b"/short"])
async def test_what_cannot_be_ended_is_cut_off(path: bytes) -> None:
    """Otherwise a client would take a part for the whole."""
    client = Client()
    out = await client.say(get(path))
    assert not out.endswith(b"0\r\n\r\n")
    assert client.transport.is_aborted


async def test_continue_is_said_when_the_body_is_wanted() -> None:
    client = Client()
    head, _, body = post(b"abc", more=b"Expect: 100-Continue\r\n").partition(b"abc")
    assert await client.say(head) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert Answers(await client.say(b"abc" + body)).statuses == [200]
    assert client.app.bodies == [b"abc"]
    assert not client.transport.is_closed


async def test_continue_is_not_said_of_a_body_that_is_here_or_unwanted() -> None:
    client = Client()
    assert Answers(await client.say(post(b"abc", more=b"Expect: 100-continue\r\n"))).statuses == [200]
    assert not client.transport.is_closed
    answers = Answers(await client.say(post(b"abc", b"/unread", b"Expect: 100-continue\r\n")[:-3]))
    # Whether those bytes will come, nobody knows.
    assert answers.statuses == [200]
    assert answers.heads[0][b"connection"] == b"close"
    assert client.transport.is_closed


async def test_nothing_is_said_to_who_has_gone() -> None:
    client = Client()
    client.app.may_answer.clear()
    await client.say(get() + get() + post(b"abc")[:-1])
    client.transport.is_closed = True
    client.connection.connection_lost(None)
    client.app.may_answer.set()
    await client.rest()
    assert client.app.bodies == [b""]  # those that had to wait were not begun
    assert not client.keeper.tasks
    assert not client.keeper.connections


async def test_a_body_that_breaks_off_with_the_connection() -> None:
    client = Client()
    await client.say(post(b"abc")[:-1])
    client.transport.is_closed = True
    client.connection.connection_lost(ConnectionResetError())
    await client.rest()
    assert client.app.bodies == [None]
    assert not client.keeper.tasks


async def test_a_body_is_read_as_fast_as_it_is_wanted() -> None:
    client = Client()
    client.app.may_answer.clear()
    await client.say(get())
    body = b"x" * (message.MAX_UNREAD_BYTES + 1)
    await client.say(post(body + b"y")[:-1])
    assert client.transport.is_paused
    client.app.may_answer.set()
    await client.rest()
    assert not client.transport.is_paused
    await client.say(b"y")
    assert client.app.bodies == [b"", body + b"y"]


async def test_an_answer_waits_until_there_is_room_for_it() -> None:
    client = Client()
    client.connection.pause_writing()
    assert await client.say(get(b"/stream")) == b""
    client.connection.resume_writing()
    await client.rest()
    assert Answers(client.transport.out).bodies == [b"one GET /stream"]


async def test_a_long_answer_comes_whole() -> None:
    client = Client()
    assert Answers(await client.say(get(b"/long"))).bodies == [LONG]


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (get(b"/" + b"x" * MAX_HEAD_BYTES), 431),
        (get(more=b"X: %b\r\n" % (b"x" * MAX_HEAD_BYTES)), 431),
        (get(more=b"X: y\r\n" * (MAX_HEAD_BYTES // 5)), 431),
        (get(more=b"X: %b\r\n" % (b"x" * (MAX_HEAD_BYTES - 100))), 200),
        (post(b"x" * 500_000, more=b"X: %b\r\n" % (b"x" * 60_000)), 200),
    ],
)
@pytest.mark.parametrize("size", [1 << 18, 8192])
async def test_how_long_a_head_may_be(head: bytes, status: int, size: int) -> None:
    client = Client()
    assert Answers(await client.say(head, size)).statuses == [status]


@pytest.mark.parametrize("begin", [b"GET / HTTP/1.1\r\n" + HOST, b"GET /", b"\r\n" * 100])
async def test_a_head_without_an_end_is_not_kept(begin: bytes) -> None:
    client = Client()
    sent = 0
    out = await client.say(begin)
    while not client.transport.is_closed:
        out += await client.say(
            (b"x" if begin[-1:] != b"\n" else b"\r\n" if begin[0] == 13 else b"X: y\r\n") * 8192
        )
        sent += 8192
        assert sent < 1_000_000
    assert Answers(out).statuses == [431]


def looking(client: Client, now_s: float) -> Callable[[float], bool]:
    """Whether a connection is cut off when it is looked at after some time."""

    def check(after_s: float) -> bool:
        client.connection.check(now_s + after_s, PATIENCE_S)
        return client.transport.is_aborted

    return check


async def test_how_long_it_is_waited_for_a_request() -> None:
    now_s = asyncio.get_running_loop().time()
    for said, limit_s in (
        (b"", PATIENCE_S),
        (b"GE", PATIENCE_S),
        (get(), KEEP_ALIVE_S),
        (get() + b"GE", PATIENCE_S),
    ):
        client = Client()
        await client.say(said)
        check = looking(client, now_s)
        assert not check(limit_s - 1), said
        assert check(limit_s + 5), said
    # A body that nobody wanted and that does not end.
    client = Client()
    await client.say(post(b"abc", b"/unread")[:-1])
    assert not looking(client, now_s)(PATIENCE_S - 1)
    assert looking(client, now_s)(PATIENCE_S + 5)


async def test_who_is_being_answered_may_wait() -> None:
    client = Client()
    client.app.may_answer.clear()
    await client.say(get())
    assert not looking(client, asyncio.get_running_loop().time())(100 * PATIENCE_S)
    client.app.may_answer.set()
    await client.rest()


async def test_an_answer_that_is_not_taken() -> None:
    client = Client()
    await client.say(get(b"/long"))
    check = looking(client, asyncio.get_running_loop().time())
    for minute in range(10):
        client.transport.unsent = 200_000 - 1_000 * minute
        assert not check(PATIENCE_S * minute)
    assert not check(PATIENCE_S * 10 - 1)
    assert check(PATIENCE_S * 10 + 1)


async def test_the_end_of_the_server() -> None:
    idle, busy = Client(), Client()
    await idle.say(get())
    busy.app.may_answer.clear()
    await busy.say(get())
    for client in (idle, busy):
        client.connection.leave()
    assert idle.transport.is_closed
    assert not busy.transport.is_closed
    busy.app.may_answer.set()
    await busy.rest()
    assert Answers(busy.transport.out).heads[0][b"connection"] == b"close"
    assert busy.transport.is_closed


async def test_who_is_cancelled_is_cut_off() -> None:
    client = Client()
    client.app.may_answer.clear()
    await client.say(get())
    (task,) = client.keeper.tasks
    task.cancel()
    await client.rest()
    assert client.transport.is_aborted
    assert not client.transport.out


REQUESTS = st.lists(
    st.tuples(st.sampled_from([b"/", b"/unread", b"/stream"]), st.binary(max_size=40), st.booleans()),
    max_size=6,
)
CUTS = st.lists(st.integers(0, 3000), max_size=8)


def write_request(path: bytes, body: bytes, is_chunked: bool) -> bytes:
    if not is_chunked:
        return post(body, path)
    pieces = [piece for piece in (body[:7], body[7:]) if piece]
    return chunked(*pieces).replace(b" / ", b" %b " % path)


@settings(max_examples=60, deadline=None)
@given(REQUESTS, CUTS)
def test_requests_in_any_pieces_are_the_same_requests(
    requests: list[tuple[bytes, bytes, bool]], cuts: list[int]
) -> None:
    async def run() -> None:
        client = Client()
        data = b"".join(write_request(*one) for one in requests)
        places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
        for start, end in itertools.pairwise(places):
            client.connection.data_received(data[start:end])
            await asyncio.sleep(0)
        await client.rest()
        assert client.app.bodies == [None if path == b"/unread" else body for path, body, _ in requests]
        answers = Answers(client.transport.out)
        prefix = {b"/stream": b"one "}
        assert answers.bodies == [prefix.get(path, b"") + b"POST " + path for path, _, _ in requests]
        assert not client.transport.is_closed
        assert not client.transport.is_paused

    asyncio.run(run())


MUTATIONS = st.lists(
    st.tuples(
        st.integers(0, 400),
        st.sampled_from(
            [
                b"",
                b"\r",
                b"\n",
                b"\r\n",
                b"\0",
                b":",
                b" ",
                b"0",
                b"\xff",
                b"Upgrade: x\r\nConnection: upgrade\r\n",
            ]
        ),
    ),
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(REQUESTS, MUTATIONS, st.integers(1, 60))
def test_whatever_comes_every_answer_is_one(
    requests: list[tuple[bytes, bytes, bool]], mutations: list[tuple[int, bytes]], size: int
) -> None:
    """Nothing raises, nobody waits for ever, and what goes out is HTTP."""

    async def run() -> None:
        client = Client()
        data = b"".join(write_request(*one) for one in requests)
        for place, new in mutations:
            data = data[:place] + new + data[place + 1 :]
        out = await client.say(data, size)
        answers = Answers(out)
        # Each request has one answer, and what is no request has one more, the last.
        assert len(client.app.scopes) - len(answers.statuses) in (0, 1, -1)
        if not client.transport.is_closed:
            client.transport.is_closed = True
            client.connection.connection_lost(None)
            await client.rest()
        assert not client.keeper.tasks

    asyncio.run(run())
