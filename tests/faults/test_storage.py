"""The disk is full, or slow; the database goes away and comes back: nothing acknowledged is lost, and when the
trouble is over the server goes on by itself.
"""

import asyncio
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import aiohttp
import psycopg
import pytest

from tests.clients.process import ServerProcess

from .load import C, call, load_on

WITH_POSTGRES = Path(__file__).parents[2] / "scripts" / "with-postgres"
SLOW_FSYNC = """
#define _GNU_SOURCE
#include <unistd.h>
#include <sys/syscall.h>
static int late(int nr, int fd) { usleep(150000); return syscall(nr, fd); }
int fsync(int fd) { return late(SYS_fsync, fd); }
int fdatasync(int fd) { return late(SYS_fdatasync, fd); }
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path)
    yield server
    server.kill()


async def test_a_full_disk_refuses_writes_and_nothing_else(server: ServerProcess) -> None:
    """Files may not grow beyond what they are: to a process that is what a full disk looks like."""
    server.start()
    async with load_on(server) as load:
        await load.until_acknowledged(50)
        largest = max(file.stat().st_size for file in (server.directory / "data").glob("*.db*"))
        _, hard = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (largest, hard))
        await load.until_failed(20, seconds=60)
        assert set(load.failures) <= {"500", "503", "507"}, load.failures
        told = await call(load.http, "GET", f"{C}/sync?timeout=0", load.token)
        assert load.room in told["rooms"]["join"], "reading goes on"
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (hard, hard))
        await load.until_acknowledged(50)
    server.stop()
    server.start()
    server.stop()


@pytest.mark.skipif(shutil.which("cc") is None, reason="NOT TESTED: a slow disk needs a C compiler")
async def test_on_a_slow_disk_many_share_a_commit(tmp_path: Path) -> None:
    """Each fsync takes 150 ms. Forty senders are not forty times as slow, and reading does not wait for it."""
    source, library = tmp_path / "slow.c", tmp_path / "slow.so"
    source.write_text(SLOW_FSYNC)
    compile_library = ["cc", "-shared", "-fPIC", "-o", str(library), str(source)]
    await asyncio.to_thread(subprocess.run, compile_library, check=True)
    server = ServerProcess(tmp_path, LD_PRELOAD=str(library))
    try:
        server.start()
        async with load_on(server, senders=40) as load:
            await load.until_acknowledged(40)
            loop = asyncio.get_running_loop()
            started = loop.time()
            await load.until_acknowledged(200, seconds=60)
            # Alone, each would take an fsync of its own: 200 of them take 30 s.
            assert loop.time() - started < 10
            started = loop.time()
            for _ in range(5):
                await call(load.http, "GET", f"{C}/joined_rooms", load.token)
            assert loop.time() - started < 0.5, "reading waits for the disk"
            assert not load.failures
        server.stop()
    finally:
        server.kill()


class Postgres:
    """A server of its own, which a test may end."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._directory = Path(parse_qs(urlsplit(url).query)["host"][0]) / "data"

    def restart(self) -> None:
        """As after a crash: nothing is told to anybody, nothing is written in order."""
        owner = self._directory.stat()
        program = Path(os.readlink(f"/proc/{self._pid()}/exe")).parent / "pg_ctl"
        subprocess.run(
            [str(program), "restart", "-w", "-m", "immediate", "-D", str(self._directory)],
            check=True,
            user=owner.st_uid if os.getuid() == 0 else None,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def end_connections(self) -> None:
        """What a failover does to those who are connected."""
        with psycopg.connect(self.url, autocommit=True) as conn:
            conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                "AND backend_type = 'client backend'"
            )

    def stop(self) -> None:
        os.kill(self._pid(), 3)  # SIGQUIT

    def _pid(self) -> int:
        return int((self._directory / "postmaster.pid").read_text().split()[0])


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    environment = {name: value for name, value in os.environ.items() if name != "RANVIER_TEST_POSTGRES"}
    with subprocess.Popen(
        [WITH_POSTGRES, "bash", "-c", 'echo "${RANVIER_TEST_POSTGRES:-}"; read -r _ || true'],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as keeper:
        assert keeper.stdin
        assert keeper.stdout
        url = keeper.stdout.readline().strip()
        if not url:
            keeper.stdin.close()
            pytest.skip("NOT TESTED ON POSTGRESQL: its programs are not installed")
        postgres = Postgres(url)
        yield postgres
        # The one that was started anew is nobody's child.
        postgres.stop()
        keeper.stdin.close()


async def test_postgresql_may_restart_and_fail_over(tmp_path: Path, postgres: Postgres) -> None:
    server = ServerProcess(tmp_path, RANVIER__DATABASE__URL=postgres.url)
    try:
        server.start()
        async with load_on(server) as load:
            await load.until_acknowledged(30)
            await asyncio.to_thread(postgres.restart)
            await load.until_acknowledged(30, seconds=40)
            await asyncio.to_thread(postgres.end_connections)
            await load.until_acknowledged(30, seconds=40)
            assert set(load.failures) <= {"500", "503"}, load.failures
            await _hears_what_is_said(load.http, load.token, load.room)
        server.stop()
    finally:
        server.kill()


async def _hears_what_is_said(http: aiohttp.ClientSession, token: str, room: str) -> None:
    """Waiting clients are woken again: the connection that listens came back as well."""
    since = (await call(http, "GET", f"{C}/sync?timeout=0", token))["next_batch"]
    for _ in range(20):
        told = await call(http, "GET", f"{C}/sync?timeout=2000&since={quote(since)}", token)
        since = told["next_batch"]
        if room in told.get("rooms", {}).get("join", {}):
            return
    raise AssertionError("nobody is woken any more")
