"""Over real sockets, with real certificates: servers that answer too slowly, too much, or from somewhere else. Whoever
waits for them gets an answer in time, nobody else waits, and memory stays as it is."""

import asyncio
import ssl
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from ranvier.app.config import FederationConfig
from ranvier.services.remote import keyring

from ..http.client import segment
from ..http.homeserver import Homeserver, running_homeserver
from ..unit.certificates import Authority
from .test_https import free_port

C = "/_matrix/client/v3"
ROOM = segment("!room:bad.test")

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


class Bad:
    """The server bad.test: whatever it is asked, it answers in one way."""

    def __init__(self) -> None:
        self.port = free_port()
        self.answer: Answer = _nothing
        self.asked: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.asked.append(head.split(b" ")[1].decode())
                await self.answer(writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


async def _nothing(writer: asyncio.StreamWriter) -> None:
    """Say nothing at all."""
    await asyncio.Event().wait()


async def _drip(writer: asyncio.StreamWriter) -> None:
    """One byte of a header after the other."""
    writer.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.02)


async def _drip_body(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


async def _flood(writer: asyncio.StreamWriter) -> None:
    """A body without end."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"10000\r\n" + b" " * 65_536 + b"\r\n"
    while not writer.is_closing():
        writer.write(chunk)
        await writer.drain()
        await asyncio.sleep(0)  # whoever reads is on the same loop


async def _headers(writer: asyncio.StreamWriter) -> None:
    """Headers without end."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while not writer.is_closing():
        writer.write(b"X-More: " + b"x" * 4_000 + b"\r\n")
        await writer.drain()
        await asyncio.sleep(0)


def _redirect_to(port: int) -> Answer:
    async def redirect(writer: asyncio.StreamWriter) -> None:
        place = f"https://127.0.0.1:{port}/_matrix/key/v2/server".encode()
        writer.write(b"HTTP/1.1 307 Moved\r\nLocation: " + place + b"\r\nContent-Length: 0\r\n\r\n")

    return redirect


@asynccontextmanager
async def _server(directory: Path, bad: Bad, networks: tuple[str, ...]) -> AsyncIterator[Homeserver]:
    authority = Authority(directory)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(*authority.issue("DNS:bad.test,IP:127.0.0.1"))
    federation = FederationConfig(
        ca_file=authority.ca_file,
        allow_private_addresses=networks,
        addresses={"bad.test": f"127.0.0.1:{bad.port}"},
    )
    listening = await asyncio.start_server(bad.serve, "127.0.0.1", bad.port, ssl=tls)
    try:
        async with running_homeserver(
            directory / "one", server_name="one.test", federation=federation
        ) as server:
            yield server
    finally:
        listening.close()


@pytest.fixture
def bad(monkeypatch: pytest.MonkeyPatch) -> Bad:
    monkeypatch.setattr(keyring, "FETCH_TIMEOUT_S", 0.5)
    return Bad()


@pytest.fixture
async def server(tmp_path: Path, bad: Bad) -> AsyncIterator[Homeserver]:
    async with _server(tmp_path, bad, ("127.0.0.0/8",)) as server:
        yield server


async def _claim_to_be_bad(server: Homeserver) -> Any:
    """A transaction that bad.test seems to have signed: its keys are asked for."""
    body = orjson.dumps({"origin": "bad.test", "origin_server_ts": 1, "pdus": []})
    header = 'X-Matrix origin="bad.test",destination="one.test",key="ed25519:k",sig="' + "A" * 86 + '"'
    return await server.client.request(
        "PUT", "/_matrix/federation/v1/send/1", body=body, headers={"authorization": header}
    )


@pytest.mark.parametrize("answer", [_nothing, _drip, _drip_body, _flood, _headers])
async def test_keys_that_never_come(server: Homeserver, bad: Bad, answer: Answer) -> None:
    bad.answer = answer
    alice = await server.register("alice")
    asking = asyncio.create_task(_claim_to_be_bad(server))
    tracemalloc.start()
    try:
        async with asyncio.timeout(60):
            # Others are served meanwhile.
            created = await alice.post(f"{C}/createRoom", {})
            assert created.status == 200, created.body
            assert (await asking).status == 401
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 32 * 1_048_576
    count = len(bad.asked)
    assert count in (1, 2)
    # It is left alone for a while.
    assert (await _claim_to_be_bad(server)).status == 401
    assert len(bad.asked) == count


@pytest.mark.parametrize("answer", [_flood, _headers, _redirect_to(1)])
async def test_a_room_that_cannot_be_entered(server: Homeserver, bad: Bad, answer: Answer) -> None:
    bad.answer = answer
    alice = await server.register("alice")
    async with asyncio.timeout(60):
        joined = await alice.post(f"{C}/join/{ROOM}?server_name=bad.test", {})
    assert joined.status == 502, joined.body


async def test_redirects_are_not_followed_with_our_signature(server: Homeserver, bad: Bad) -> None:
    """Nothing between servers redirects; and the place it leads to may be one that only this server reaches."""
    reached: list[bytes] = []

    async def inside(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.append(await reader.read(100))
        writer.close()

    secret = await asyncio.start_server(inside, "127.0.0.1", 0)
    bad.answer = _redirect_to(secret.sockets[0].getsockname()[1])
    assert (await _claim_to_be_bad(server)).status == 401
    secret.close()
    assert bad.asked
    assert reached == []


async def test_private_addresses_are_not_reached_at_all(tmp_path: Path, bad: Bad) -> None:
    async with _server(tmp_path, bad, ()) as server:
        assert (await _claim_to_be_bad(server)).status == 401
        alice = await server.register("alice")
        joined = await alice.post(f"{C}/join/{ROOM}?server_name=bad.test", {})
        assert joined.status == 502, joined.body
    assert bad.asked == []
