"""What a place shows to who looks at it: its certificate, or why there is none that counts."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from ranvier.io.ports import TimedOut, Unreachable
from ranvier.io.tls import client_context, connect, fetch_certificate
from tests.unit.certificates import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@asynccontextmanager
async def serving(
    files: tuple[Path, Path] | None, speak: Callable[[asyncio.StreamWriter], None] = lambda writer: None
) -> AsyncIterator[int]:
    """A port that takes connections, with TLS if there are certificate and key."""
    context = None
    if files is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)

    ends: list[asyncio.Task[None]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        ends.append(task)
        with suppress(OSError):
            speak(writer)
            await reader.read()
        writer.transport.abort()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.gather(*ends)


async def test_a_certificate_that_is_trusted(authority: Authority) -> None:
    context = client_context(authority.ca_file)
    async with serving(authority.issue("DNS:a.example,IP:127.0.0.1")) as port:
        for name in ("a.example", "127.0.0.1"):
            certificate = await fetch_certificate(context, "127.0.0.1", port, name)
            days_left = (certificate.valid_until_ms / 1000 - time.time()) / 86_400
            assert 1 < days_left <= 2
        await connect("127.0.0.1", port)


async def test_certificates_that_do_not_count(authority: Authority) -> None:
    context = client_context(authority.ca_file)
    async with serving(authority.issue("DNS:a.example")) as port:
        with pytest.raises(Unreachable, match="not trusted: Hostname mismatch"):
            await fetch_certificate(context, "127.0.0.1", port, "b.example")
        with pytest.raises(Unreachable, match=r"not trusted: .*unable to get local issuer"):
            await fetch_certificate(client_context(), "127.0.0.1", port, "a.example")
    async with serving(authority.issue_expired("DNS:a.example")) as port:
        with pytest.raises(Unreachable, match="not trusted: certificate has expired"):
            await fetch_certificate(context, "127.0.0.1", port, "a.example")


async def test_who_does_not_speak_tls(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    context = client_context(authority.ca_file)
    async with serving(None, lambda writer: writer.write(b"220 hello\r\n")) as port:
        with pytest.raises(Unreachable):
            await fetch_certificate(context, "127.0.0.1", port, "a.example")
    monkeypatch.setattr("ranvier.io.tls.CONNECT_TIMEOUT_S", 0.1)
    async with serving(None) as port:
        with pytest.raises(TimedOut):
            await fetch_certificate(context, "127.0.0.1", port, "a.example")


async def test_where_nobody_listens(authority: Authority) -> None:
    async with serving(None) as port:
        pass
    with pytest.raises(Unreachable, match=r"^Connection refused$"):
        await connect("127.0.0.1", port)
    with pytest.raises(Unreachable, match=r"^Connection refused$"):
        await fetch_certificate(client_context(authority.ca_file), "127.0.0.1", port, "a.example")
    with pytest.raises(Unreachable):
        await connect("no-such-host.invalid", 1)
