"""Thousands who say nothing, and no file handles left: others are served, and what was taken comes back."""

import asyncio
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from tests.clients.process import ServerProcess

from .load import C, call, load_on, register

SLOW_CLIENTS = 1_500
FILES = 100


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path)
    server.start()
    yield server
    server.kill()


@asynccontextmanager
async def connections(server: ServerProcess, count: int, begin_with: bytes) -> AsyncIterator[int]:
    """Connections that begin to say something and never end; how many were taken."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8_192), hard))
    writers = []
    try:
        for _ in range(count):
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", server.port)
                writer.write(begin_with)
                writers.append(writer)
        yield len(writers)
    finally:
        for writer in writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def memory_mib(server: ServerProcess) -> float:
    status = Path(f"/proc/{server.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024


def files_open(server: ServerProcess) -> int:
    return len(list(Path(f"/proc/{server.pid}/fd").iterdir()))


@pytest.mark.parametrize(
    "begin_with",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"GET /_matrix/client/versions HTTP/1.1\r\nHost: a\r\nX-Slow: ", id="half a head"),
        pytest.param(
            b"POST /_matrix/client/v3/login HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n{",
            id="half a body",
        ),
    ],
)
async def test_slow_clients_hold_up_nobody(server: ServerProcess, begin_with: bytes) -> None:
    async with load_on(server) as load:
        await load.until_acknowledged(20)
        before = memory_mib(server)
        async with connections(server, SLOW_CLIENTS, begin_with) as taken:
            assert taken == SLOW_CLIENTS
            await load.until_acknowledged(200)
            assert memory_mib(server) - before < 60
        await load.until_acknowledged(20)
        assert not load.failures
    server.stop()
    assert "Traceback" not in server.log()


async def test_without_file_handles_it_waits_and_recovers(server: ServerProcess) -> None:
    async with aiohttp.ClientSession(server.url) as http:
        token = await register(http, "alice")
        _, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (files_open(server) + FILES, hard))
        async with connections(server, 3 * FILES, b"GET /"):
            # Who is connected already is served.
            room = (await call(http, "POST", f"{C}/createRoom", token, {}))["room_id"]
        async with aiohttp.ClientSession(server.url) as another:
            for _ in range(50):
                with suppress(aiohttp.ClientError, TimeoutError):
                    told = await call(another, "GET", f"{C}/joined_rooms", token)
                    break
                await asyncio.sleep(0.2)
            assert told["joined_rooms"] == [room]
    server.stop()
