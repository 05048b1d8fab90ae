"""The proxy as a process of its own, over sockets: it is started, killed, started again, and stopped."""

import asyncio
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from ...clients.process import RANVIER, ServerProcess, free_port
from ...http.homeserver import eventually
from ...http.rooms import create, do
from .client import V3, RemoteServer, RemoteUser, names
from .test_scenarios import numbers, send_to


class ProxyProcess:
    """Its database stays in `directory`."""

    def __init__(self, directory: Path, upstream: str) -> None:
        self.directory, self.port = directory, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.command = [str(RANVIER), "sync-v3-proxy", "--upstream", upstream]
        self.command += ["--database", "sqlite:proxy.db", "--bind", f"127.0.0.1:{self.port}"]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.directory / "proxy.log").open("ab") as log:
            self.process = subprocess.Popen(self.command, cwd=self.directory, stdout=log, stderr=log)

    def log(self) -> str:
        return (self.directory / "proxy.log").read_text()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@pytest.fixture
def upstream(tmp_path: Path) -> Iterator[ServerProcess]:
    (tmp_path / "upstream").mkdir()
    server = ServerProcess(tmp_path / "upstream")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def proxy(tmp_path: Path, upstream: ServerProcess) -> Iterator[ProxyProcess]:
    process = ProxyProcess(tmp_path, f"{upstream.url}/")
    process.start()
    yield process
    process.kill()


async def test_nothing_is_lost_when_it_is_killed(upstream, proxy):
    async with aiohttp.ClientSession() as session:
        people = RemoteServer(session, upstream.url)
        alice, bob = [await people.register(name) for name in ("alice", "bob")]
        room_id = await create(alice, preset="public_chat")
        client = V3(RemoteUser(session, proxy.url, alice.token))
        health = RemoteUser(session, proxy.url)

        async def is_up():
            try:
                return (await health.get("/health")).status == 200
            except aiohttp.ClientError:
                return False

        await eventually(is_up)
        body = {"room_members": {"room_id": room_id, "sort": "by_name"}, "to_device": {}}
        token = (await client.sync(body))["next"]
        got = []
        for n in range(3):
            await send_to(bob, alice, n)
            waiting = asyncio.create_task(client.ask({}, token, wait_ms=10_000))
            await asyncio.sleep(0.02 * n)
            proxy.kill()
            try:
                answer = await waiting
                token = answer.json["next"]
                got += numbers(answer.json)
            except aiohttp.ClientError:
                pass
            proxy.start()
            await eventually(is_up)
        await do(bob, room_id, "join")
        while len(set(got)) < 3:
            answer = await client.sync({}, token, wait_ms=5_000)
            got += numbers(answer)
            token = answer["next"]

        async def has_come():
            page = await client.sync({"room_members": {"p": {"since": "1"}}}, token)
            return names(page["room_members"]) == ["@alice", "@bob"]

        await eventually(has_come)
        assert sorted(set(got)) == [0, 1, 2]
        waiting = asyncio.create_task(client.ask({"room_members": None}, token, wait_ms=60_000))
        await asyncio.sleep(0.3)
        began = time.monotonic()
        proxy.process.send_signal(signal.SIGTERM)
        # A clean stop: who waits is answered.
        answer = await waiting
        assert answer.status == 200
        assert await asyncio.to_thread(proxy.process.wait, 10) == 0, proxy.log()[-2000:]
        assert time.monotonic() - began < 10
        assert alice.token not in proxy.log()


FAULTS = [
    (["--upstream", "example.org"], "--upstream"),
    (["--upstream", "ftp://example.org"], "--upstream"),
    (["--upstream", "http://h:99999"], "--upstream"),
    (["--upstream", "http://h", "--database", "mysql:x"], "--database"),
    (["--upstream", "http://h", "--database", "sqlite:no/such/directory/p.db"], "cannot open"),
    (["--upstream", "http://h", "--bind", "nowhere"], "--bind"),
    (["--upstream", "http://h", "--bind", "203.0.113.1:1"], "cannot listen"),
]


@pytest.mark.parametrize(("arguments", "says"), FAULTS)
def test_a_fault_is_told_in_one_line(tmp_path, arguments, says):
    command = [str(RANVIER), "sync-v3-proxy", *arguments]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert says in ended.stderr


def test_an_upstream_is_needed(tmp_path):
    command = [str(RANVIER), "sync-v3-proxy"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 2


def test_the_database_of_a_homeserver_is_refused(tmp_path, upstream):
    upstream.stop()
    url = f"sqlite:{upstream.directory / 'data' / 'ranvier.db'}"
    command = [str(RANVIER), "sync-v3-proxy", "--upstream", "http://h", "--database", url]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
