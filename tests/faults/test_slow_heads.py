"""Who never finishes a request is cut off; who was served may wait, and who sends a large body in time, too."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from ranvier.app.config import ListenerConfig
from ranvier.app.listeners import Listener
from ranvier.http import exchange
from ranvier.http.endpoint import Api

from ..http.homeserver import PASSWORD, running_homeserver

PATIENCE_S = 0.3
HEAD = b"POST /_matrix/client/v3/login HTTP/1.1\r\nHost: a\r\n"


@asynccontextmanager
async def listening(directory: Path) -> AsyncIterator[int]:
    """The port of a server without patience."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with running_homeserver(directory) as homeserver:
        listener = Listener(
            ListenerConfig(bind=f"127.0.0.1:{port}"), homeserver.app(frozenset(Api)), PATIENCE_S
        )
        serving = asyncio.create_task(listener.run())
        try:
            async with asyncio.timeout(10):
                while True:
                    try:
                        _, writer = await asyncio.open_connection("127.0.0.1", port)
                        writer.close()
                        break
                    except OSError:
                        await asyncio.sleep(0.01)
            yield port
        finally:
            listener.stop()
            await serving


async def test_a_head_that_does_not_end(tmp_path: Path) -> None:
    async with listening(tmp_path) as port, asyncio.timeout(10):
        for begin_with in (b"", b"GE", HEAD + b"X-Slow: ", HEAD):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(begin_with)
            assert await _until_closed(reader) == b""
            writer.close()


async def test_a_head_that_drips(tmp_path: Path) -> None:
    async with listening(tmp_path) as port, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        closed = asyncio.create_task(_until_closed(reader))
        writer.write(HEAD)
        while not closed.done():
            writer.write(b"X-More: yes\r\n")
            await asyncio.sleep(0.02)
        writer.close()


async def test_a_head_too_large_to_keep(tmp_path: Path) -> None:
    async with listening(tmp_path) as port, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        closed = asyncio.create_task(_until_closed(reader))
        writer.write(HEAD)
        sent = 0
        while not closed.done():
            writer.write(b"X-More: " + b"x" * 8_000 + b"\r\n")
            sent += 8_000
            await asyncio.sleep(0)
            assert sent < 16 * 1024 * 1024
        writer.close()


async def test_who_was_served_may_be_silent_and_send_a_lot(tmp_path: Path) -> None:
    async with listening(tmp_path) as port, asyncio.timeout(20):
        connector = aiohttp.TCPConnector(limit=1)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", connector=connector) as client:
            body = {"username": "alice", "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
            async with client.post("/_matrix/client/v3/register", json=body) as answer:
                token = (await answer.json())["access_token"]
            await asyncio.sleep(3 * PATIENCE_S)
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "image/png"}

            async def slowly() -> AsyncIterator[bytes]:
                for _ in range(10):
                    yield bytes(100_000)
                    await asyncio.sleep(PATIENCE_S / 4)

            async with client.post("/_matrix/media/v3/upload", data=slowly(), headers=headers) as answer:
                assert answer.status == 200


async def test_a_body_that_drips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "GRACE_S", PATIENCE_S)
    async with listening(tmp_path) as port, asyncio.timeout(10):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD + b"Content-Length: 60000\r\n\r\n{")
        answer = await _until_closed(reader)
        assert answer.startswith(b"HTTP/1.1 408")
        writer.close()


async def _until_closed(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""
