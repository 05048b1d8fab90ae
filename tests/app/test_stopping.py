"""Whoever merely holds a connection open does not hold up the end; whoever is being answered is answered."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ranvier.app import listeners
from ranvier.app.config import ListenerConfig
from ranvier.app.listeners import Listener
from tests.unit.certificates import Authority

GET = b"GET /%s HTTP/1.1\r\nHost: one.test\r\n\r\n"
LONG = 4_000_000


class App:
    """Answers at once; what is LONG, in one piece; what is "slow", when it is told to."""

    def __init__(self) -> None:
        self.is_asked = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b"x" * (LONG if scope["raw_path"] == b"/long" else 2)
        if scope["raw_path"] == b"/slow":
            self.is_asked.set()
            await self.may_answer.wait()
        length = (b"content-length", str(len(body)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": body})


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> App:
    # Who were waited for would be waited for until the test gives up.
    monkeypatch.setattr(listeners, "GRACE_SECONDS", 600)
    return App()


@asynccontextmanager
async def serving(
    app: App, directory: Path
) -> AsyncIterator[tuple[Listener, asyncio.Task[None], ssl.SSLContext]]:
    authority = Authority(directory)
    certificate, key = authority.issue("DNS:one.test")
    listener = Listener(
        ListenerConfig(bind="127.0.0.1:0", tls_certificate=certificate, tls_private_key=key), app
    )
    running = asyncio.create_task(listener.run())
    try:
        yield listener, running, ssl.create_default_context(cafile=str(authority.ca_file))
    finally:
        app.may_answer.set()
        listener.stop()
        await running


def speak(listener: Listener, tls: ssl.SSLContext, path: bytes, read: int) -> ssl.SSLSocket:
    """Ask for something, read so many bytes, and then neither read nor close."""
    address = listener.url.removeprefix("https://").split(":")
    connection = socket.create_connection((address[0], int(address[1])), timeout=30)
    secured = tls.wrap_socket(connection, server_hostname="one.test")
    secured.sendall(GET % path)
    while read > 0:
        read -= len(secured.recv(read))
    return secured


async def test_connections_that_are_kept_open_do_not_hold_up_the_end(app: App, tmp_path: Path) -> None:
    """Under TLS, as other servers hold them; these do not say goodbye."""
    async with serving(app, tmp_path) as (listener, running, tls):
        held = await asyncio.gather(*(asyncio.to_thread(speak, listener, tls, b"", 20) for _ in range(3)))
        listener.stop()
        async with asyncio.timeout(20):
            await running
        for connection in held:
            connection.close()


@pytest.mark.parametrize("path", [b"slow", b"long"])
async def test_an_answer_that_has_begun_comes_whole(app: App, tmp_path: Path, path: bytes) -> None:
    async with serving(app, tmp_path) as (listener, running, tls):
        asking = asyncio.create_task(asyncio.to_thread(speak, listener, tls, path, 20))
        if path == b"slow":
            await app.is_asked.wait()
        else:
            await asking
        listener.stop()
        # Longer than it is waited for others to say goodbye.
        await asyncio.sleep(1)
        app.may_answer.set()
        connection = await asking
        rest = await asyncio.to_thread(read_all, connection)
        assert rest.endswith(b"x" * (LONG - 100 if path == b"long" else 2))
        async with asyncio.timeout(20):
            await running
        connection.close()


def read_all(connection: ssl.SSLSocket) -> bytes:
    parts = []
    try:
        while part := connection.recv(65_536):
            parts.append(part)
    except (ssl.SSLError, ConnectionError):
        pass  # cut off, once everything was sent
    return b"".join(parts)
