"""The disk is full, or slow; the database goes away and comes back: nothing acknowledged is lost, and when the
trouble is over the server goes on by itself.
"""

import asyncio
import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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
#include <stdlib.h>
#include <unistd.h>
#include <sys/syscall.h>
/* Always, or while the file that SLOW names is there. */
static int late(int nr, int fd) {
    const char *sign = getenv("SLOW");
    if (!sign || !access(sign, F_OK)) usleep(150000);
    return syscall(nr, fd);
}
int fsync(int fd) { return late(SYS_fsync, fd); }
int fdatasync(int fd) { return late(SYS_fdatasync, fd); }
"""


NEEDS_COMPILER = pytest.mark.skipif(
    shutil.which("cc") is None, reason="NOT TESTED: a slow or full disk needs a C compiler"
)


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


@NEEDS_COMPILER
async def test_on_a_slow_disk_many_share_a_commit(tmp_path: Path) -> None:
    """Each fsync takes 150 ms. Forty senders are not forty times as slow, and reading does not wait for it."""
    library = await asyncio.to_thread(compiled, SLOW_FSYNC, tmp_path)
    server = ServerProcess(tmp_path, LD_PRELOAD=library)
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
    with running_postgres() as postgres:
        yield postgres


@contextmanager
def running_postgres(**more: str) -> Iterator[Postgres]:
    """`more`: of the environment of its processes."""
    environment = {
        name: value for name, value in os.environ.items() if name != "RANVIER_TEST_POSTGRES"
    } | more
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


FULL_DISK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
/* While the file that FULL names is there, no file grows; what there is can be written over. */
static int is_full(int fd, off_t end) {
    struct stat file;
    const char *sign = getenv("FULL");
    if (!sign || access(sign, F_OK) || fstat(fd, &file) || !S_ISREG(file.st_mode) || end <= file.st_size) return 0;
    errno = ENOSPC;
    return 1;
}
static off_t length(const struct iovec *parts, int count) {
    off_t sum = 0;
    for (int i = 0; i < count; i++) sum += parts[i].iov_len;
    return sum;
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    static ssize_t (*real)(int, const void *, size_t, off_t);
    if (!real) real = dlsym(RTLD_NEXT, "pwrite");
    return is_full(fd, at + size) ? -1 : real(fd, data, size, at);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off_t at) { return pwrite(fd, data, size, at); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) {
    static ssize_t (*real)(int, const struct iovec *, int, off_t);
    if (!real) real = dlsym(RTLD_NEXT, "pwritev");
    return is_full(fd, at + length(parts, count)) ? -1 : real(fd, parts, count, at);
}
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t at) { return pwritev(fd, parts, count, at); }
int posix_fallocate(int fd, off_t at, off_t size) {
    static int (*real)(int, off_t, off_t);
    if (!real) real = dlsym(RTLD_NEXT, "posix_fallocate");
    return is_full(fd, at + size) ? ENOSPC : real(fd, at, size);
}
int posix_fallocate64(int fd, off_t at, off_t size) { return posix_fallocate(fd, at, size); }
"""


@pytest.fixture
def readable() -> Iterator[Path]:
    """A directory into which the user that PostgreSQL runs as can look."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def compiled(source: str, directory: Path) -> str:
    """A library for LD_PRELOAD."""
    (directory / "fault.c").write_text(source)
    command = [
        "cc",
        "-shared",
        "-fPIC",
        "-o",
        str(directory / "fault.so"),
        str(directory / "fault.c"),
        "-ldl",
    ]
    subprocess.run(command, check=True)
    return str(directory / "fault.so")


@NEEDS_COMPILER
async def test_postgresql_on_a_full_disk(tmp_path: Path, readable: Path) -> None:
    """Its tables cannot grow. Reading goes on; when there is room again, so does writing, and nothing that was
    acknowledged is lost (`load_on` looks)."""
    library = await asyncio.to_thread(compiled, FULL_DISK, readable)
    sign = readable / "full"
    with running_postgres(LD_PRELOAD=library, FULL=str(sign)) as postgres:
        server = ServerProcess(tmp_path, RANVIER__DATABASE__URL=postgres.url)
        try:
            server.start()
            async with load_on(server) as load:
                await load.until_acknowledged(30)
                sign.touch()
                await load.until_failed(20, seconds=120)
                assert set(load.failures) <= {"500", "503", "507"}, load.failures
                told = await call(load.http, "GET", f"{C}/sync?timeout=0", load.token)
                assert load.room in told["rooms"]["join"], "reading goes on"
                sign.unlink()
                await load.until_acknowledged(30, seconds=40)
                await _hears_what_is_said(load.http, load.token, load.room)
            server.stop()
        finally:
            server.kill()


@NEEDS_COMPILER
async def test_postgresql_on_a_slow_disk(tmp_path: Path, readable: Path) -> None:
    """Each fsync takes 150 ms. Many share a commit, and reading does not wait for it."""
    library = await asyncio.to_thread(compiled, SLOW_FSYNC, readable)
    sign = readable / "slow"
    with running_postgres(LD_PRELOAD=library, SLOW=str(sign), RANVIER_TEST_FSYNC="on") as postgres:
        server = ServerProcess(tmp_path, RANVIER__DATABASE__URL=postgres.url)
        try:
            server.start()
            async with load_on(server, senders=40) as load:
                await load.until_acknowledged(40)
                sign.touch()
                await load.until_acknowledged(40, seconds=60)
                began = count_flushes(postgres)
                await load.until_acknowledged(200, seconds=120)
                # One after the other, each would have its own.
                assert count_flushes(postgres) - began < 100
                for _ in range(5):
                    await call(load.http, "GET", f"{C}/joined_rooms", load.token)
                sign.unlink()
                assert not load.failures
            server.stop()
        finally:
            server.kill()


def count_flushes(postgres: Postgres) -> int:
    """How often the log was written to the disk."""
    with psycopg.connect(postgres.url, autocommit=True) as conn:
        conn.execute("SELECT pg_stat_force_next_flush()")
        row = conn.execute("SELECT wal_sync FROM pg_stat_wal").fetchone()
        assert row is not None
        return int(row[0])


async def _hears_what_is_said(http: aiohttp.ClientSession, token: str, room: str) -> None:
    """Waiting clients are woken again: the connection that listens came back as well."""
    since = (await call(http, "GET", f"{C}/sync?timeout=0", token))["next_batch"]
    for _ in range(20):
        told = await call(http, "GET", f"{C}/sync?timeout=2000&since={quote(since)}", token)
        since = told["next_batch"]
        if room in told.get("rooms", {}).get("join", {}):
            return
    raise AssertionError("nobody is woken any more")
