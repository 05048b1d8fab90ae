"""Hours of ordinary life: memory, file handles, the database and answers stay what they were.

A quarter of a minute by default; `make soak MINUTES=60` for what the name says. Little memory is given to caches, so
that they are full soon: what grows after that is a leak.
"""

import asyncio
import logging
import os
import random
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import aiohttp
import msgspec
import pytest

from tests.clients.process import ServerProcess

from .load import C, call, register

log = logging.getLogger(__name__)

SLIDING = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
MINUTES = float(os.environ.get("SOAK_MINUTES", "0.25"))
PEOPLE = 12
SAMPLES = 40
CACHES_MIB = 14
MOST_MIB = 128.0
TOLERATED_FILES = 8
BYTES_PER_EVENT = 8 * 1024  # in the database

WARM_UP_EVENTS = 20_000
"""After so many every cache has reached its bound."""
TELLING_EVENTS = 20_000
"""Fewer, after those, do not tell growth from chance."""
TOLERATED_BYTES = 60.0
"""Of memory, an event: what a leak of 100 bytes an event surpasses."""


class Sample(msgspec.Struct, frozen=True):
    memory_mib: float
    files: int
    database_bytes: int
    events: int
    latency_ms: float  # of an answer, in the middle


class Person:
    """Somebody who talks, listens, reads, looks things up, and sometimes comes or goes."""

    def __init__(
        self, http: aiohttp.ClientSession, token: str, rooms: list[str], tally: "Tally", seed: int
    ) -> None:
        self._http = http
        self._token = token
        self._rooms = rooms
        self._tally = tally
        self._random = random.Random(seed)
        self._sent = 0
        self._last: dict[str, str] = {}  # room -> newest event
        # Most of it is talking; what makes something new that stays is rare.
        self._habits: list[Callable[[], Awaitable[Any]]] = [
            *[self._say] * 10, *[self._type] * 3, *[self._read] * 4, *[self._look_back] * 2,
            self._react, self._rename, self._come_and_go, self._search, self._show, self._keep,
            self._slide, self._tell_devices, self._be_refused,
        ]  # fmt: skip

    async def live(self, until: float) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._listen(until))
            while time.monotonic() < until:
                started = time.perf_counter()
                await self._random.choice(self._habits)()
                self._tally.latencies_ms.append((time.perf_counter() - started) * 1000)
                await asyncio.sleep(0.02 + self._random.random() / 20)

    async def _listen(self, until: float) -> None:
        since = ""
        while time.monotonic() < until:
            told = await self._ask("GET", f"/sync?timeout=2000{since}")
            since = f"&since={told['next_batch']}"

    async def _ask(self, method: str, path: str, body: Any = None) -> Any:
        return await call(self._http, method, C + path, self._token, body)

    def _room(self) -> str:
        return quote(self._random.choice(self._rooms), safe="")

    async def _say(self) -> None:
        room, self._sent = self._room(), self._sent + 1
        body = {"msgtype": "m.text", "body": f"number {self._sent} " + "word " * self._random.randrange(40)}
        self._last[room] = (await self._ask("PUT", f"/rooms/{room}/send/m.room.message/{self._sent}", body))[
            "event_id"
        ]
        self._tally.events += 1

    async def _react(self) -> None:
        for room, event_id in self._last.items():
            self._sent += 1
            relation = {"rel_type": "m.annotation", "event_id": event_id, "key": str(self._sent)}
            await self._ask("PUT", f"/rooms/{room}/send/m.reaction/{self._sent}", {"m.relates_to": relation})
            self._tally.events += 1
            return

    async def _type(self) -> None:
        await self._ask(
            "PUT", f"/rooms/{self._room()}/typing/{await self._me()}", {"typing": True, "timeout": 2000}
        )

    async def _read(self) -> None:
        for room, event_id in self._last.items():
            await self._ask("POST", f"/rooms/{room}/receipt/m.read/{quote(event_id, safe='')}", {})
            return

    async def _look_back(self) -> None:
        await self._ask("GET", f"/rooms/{self._room()}/messages?dir=b&limit=30")

    async def _rename(self) -> None:
        await self._ask(
            "PUT",
            f"/profile/{await self._me()}/displayname",
            {"displayname": f"N{self._random.randrange(9)}"},
        )
        self._tally.events += len(self._rooms)

    async def _come_and_go(self) -> None:
        room = self._room()
        await self._ask("POST", f"/rooms/{room}/leave", {})
        await self._ask("POST", f"/rooms/{room}/join", {})
        self._tally.events += 2

    async def _search(self) -> None:
        wanted = {"search_categories": {"room_events": {"search_term": "number"}}}
        await self._ask("POST", "/search", wanted)

    async def _show(self) -> None:
        """Everything anew, as a client that was just installed."""
        await self._ask("GET", "/sync?timeout=0")

    async def _keep(self) -> None:
        await self._ask(
            "PUT", f"/user/{await self._me()}/account_data/org.soak", {"x": self._random.randrange(99)}
        )

    async def _slide(self) -> None:
        """The same for a client of today."""
        body = {"lists": {"all": {"ranges": [[0, 20]], "timeline_limit": 5, "required_state": [["*", "*"]]}}}
        await call(self._http, "POST", f"{SLIDING}?timeout=0", self._token, body)

    async def _tell_devices(self) -> None:
        """A message to each of one's own devices, which the next answer of /sync takes away."""
        self._sent += 1
        me = unquote(await self._me())
        await self._ask("PUT", f"/sendToDevice/org.soak/{self._sent}", {"messages": {me: {"*": {"x": 1}}}})

    async def _be_refused(self) -> None:
        """What fails leaves nothing behind."""
        room, nothing = self._room(), quote(f"{self._random.random()}:localhost", safe="")
        for method, path, status in (
            ("GET", f"/rooms/{room}/event/%24{nothing}", 404),
            ("POST", f"/rooms/{room}/receipt/m.read/%24{nothing}", 404),
            ("POST", f"/join/%23{nothing}", 404),
            ("POST", f"/rooms/!{nothing}/leave", 403),
            ("DELETE", f"/pushrules/global/override/{nothing}", 404),
            ("GET", f"/user/@{nothing}/filter/1", 403),
        ):
            headers = {"Authorization": f"Bearer {self._token}"}
            async with self._http.request(method, C + path, json={}, headers=headers) as answer:
                assert answer.status == status, f"{path}: {await answer.text()}"

    async def _me(self) -> str:
        return quote((await self._ask("GET", "/account/whoami"))["user_id"], safe="")


class Tally:
    """What the people did."""

    def __init__(self) -> None:
        self.events = 0
        self.latencies_ms: list[float] = []

    def take_latency(self) -> float:
        middle = statistics.median(self.latencies_ms) if self.latencies_ms else 0.0
        self.latencies_ms.clear()
        return middle


def look_at(server: ServerProcess, tally: Tally) -> Sample:
    status = Path(f"/proc/{server.pid}/status").read_text()
    # Not VmRSS: what is mapped of the database file grows with the file, and is the system's to take back.
    own = next(line for line in status.splitlines() if line.startswith("RssAnon"))
    return Sample(
        memory_mib=int(own.split()[1]) / 1024,
        files=len(list(Path(f"/proc/{server.pid}/fd").iterdir())),
        database_bytes=sum(file.stat().st_size for file in (server.directory / "data").glob("*.db")),
        events=tally.events,
        latency_ms=tally.take_latency(),
    )


async def observe(server: ServerProcess, tally: Tally, until: float) -> list[Sample]:
    samples = []
    while (left := until - time.monotonic()) > 0:
        await asyncio.sleep(min(left, MINUTES * 60 / SAMPLES))
        samples.append(look_at(server, tally))
        log.info("%s", samples[-1])
    return samples


@pytest.mark.timeout(MINUTES * 60 + 120)
async def test_ordinary_life_leaves_everything_level(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, RANVIER__MEMORY__CACHES_MIB=str(CACHES_MIB))
    server.start()
    tally = Tally()
    try:
        async with aiohttp.ClientSession(server.url, connector=aiohttp.TCPConnector(limit=0)) as http:
            tokens = [await register(http, f"person{number}") for number in range(PEOPLE)]
            rooms = []
            for token in tokens[:4]:
                made = await call(http, "POST", f"{C}/createRoom", token, {"preset": "public_chat"})
                rooms.append(made["room_id"])
            for token in tokens:
                for room in rooms:
                    await call(http, "POST", f"{C}/join/{quote(room, safe='')}", token, {})
            until = time.monotonic() + MINUTES * 60
            people = [Person(http, token, rooms, tally, seed) for seed, token in enumerate(tokens)]
            watching = asyncio.create_task(observe(server, tally, until))
            async with asyncio.TaskGroup() as tasks:
                for person in people:
                    tasks.create_task(person.live(until))
            samples = await watching
        judge(samples)
        server.stop()
        assert not [line for line in server.log().splitlines() if " error " in line or "Traceback" in line]
    finally:
        server.kill()


def judge(samples: Sequence[Sample]) -> None:
    """Memory does not grow once caches are full; all else is in the last quarter as it was in the second one."""
    quarter = len(samples) // 4
    early, late = samples[quarter : 2 * quarter], samples[-quarter:]

    def middle(part: Sequence[Sample], name: str) -> float:
        return statistics.median(getattr(sample, name) for sample in part)

    events = samples[-1].events - samples[0].events
    log.info("%d events; first %s, early %s, late %s", events, samples[0], early[0], late[-1])
    judge_memory(samples)
    assert middle(late, "files") - middle(early, "files") < TOLERATED_FILES
    assert middle(late, "latency_ms") < 3 * middle(early, "latency_ms") + 30
    per_event = (samples[-1].database_bytes - samples[0].database_bytes) / max(1, events)
    assert per_event < BYTES_PER_EVENT, f"{per_event:.0f} bytes an event in the database"


def judge_memory(samples: Sequence[Sample]) -> None:
    most = max(sample.memory_mib for sample in samples)
    assert most < MOST_MIB, f"{most:.0f} MiB"
    warm = [sample for sample in samples if sample.events >= WARM_UP_EVENTS]
    if not warm or warm[-1].events - warm[0].events < TELLING_EVENTS:
        log.info("too few events to tell whether memory is level; at most %.0f MiB", most)
        return
    # The middle of all slopes between two samples: a few that are far off do not count.
    slope = statistics.median(
        (two.memory_mib - one.memory_mib) * 1024 * 1024 / (two.events - one.events)
        for one, two in combinations(warm, 2)
        if two.events > one.events
    )
    log.info("memory grows by %.0f bytes an event, to %.1f MiB at most", slope, most)
    assert slope < TOLERATED_BYTES, f"memory grows by {slope:.0f} bytes an event"


@pytest.mark.parametrize(("bytes_per_event", "is_leak"), [(0, False), (100, True)])
def test_a_leak_of_a_hundred_bytes_an_event_is_found(bytes_per_event: int, is_leak: bool) -> None:
    """Though memory goes up and down by more than that, and grew by much until caches were full."""
    chance = random.Random(1)
    samples = [
        Sample(
            memory_mib=60
            + 30 * min(1, events / WARM_UP_EVENTS)
            + events * bytes_per_event / 1024 / 1024
            + 3 * chance.random(),
            files=49,
            database_bytes=events * 1024,
            events=events,
            latency_ms=10.0,
        )
        for events in range(0, 100_000, 100_000 // SAMPLES)
    ]
    if is_leak:
        with pytest.raises(AssertionError, match="bytes an event"):
            judge(samples)
    else:
        judge(samples)
