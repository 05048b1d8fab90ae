"""SIGKILL of one of two processes on one PostgreSQL, again and again, while people talk and listen through both: each
client hears of everything that was acknowledged, once, and in the order of the room.
"""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import pytest

from ..clients.process import ServerProcess
from ..postgres import PostgresDatabase
from ..store.conftest import postgres_database, postgres_server

__all__ = ["postgres_database", "postgres_server"]

C: Final = "/_matrix/client/v3"
ROOMS: Final = 2
PEOPLE: Final = 4
KILLS: Final = 4
PATIENCE_S: Final = 120.0
GONE: Final = (aiohttp.ClientError, ConnectionError, json.JSONDecodeError)


class Person:
    """Asks any of the processes, and another one when that does not answer."""

    def __init__(self, http: aiohttp.ClientSession, servers: Sequence[ServerProcess], seed: int) -> None:
        self._http, self._servers = http, servers
        self.random = random.Random(seed)
        self.token = self.user_id = self.device_id = ""

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """Until it is answered: what is asked may be asked again."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        last = ""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    url = self.random.choice(self._servers).url + path
                    try:
                        async with self._http.request(method, url, json=body, headers=headers) as answer:
                            content = await answer.json()
                    except GONE as error:
                        last = repr(error)
                    else:
                        if answer.status == 200:
                            return content
                        last = f"{answer.status}: {content}"
                        assert answer.status == 503, last
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"{method} {path} gets no answer; the last was {last!r}") from None

    async def register(self, name: str) -> None:
        auth = {"type": "m.login.dummy"}
        body = {"username": name, "password": "correct horse", "auth": auth}
        answer = await self.call("POST", f"{C}/register", body)
        self.token, self.user_id, self.device_id = (
            answer[key] for key in ("access_token", "user_id", "device_id")
        )


class Talker:
    """Says numbered things in all rooms, and to devices; each until it is acknowledged."""

    def __init__(self, person: Person, rooms: Sequence[str]) -> None:
        self.person, self.rooms = person, rooms
        self.acknowledged: dict[str, set[str]] = {room: set() for room in rooms}
        self.told: set[str] = set()

    async def talk(self, others: Sequence[Person], is_over: asyncio.Event) -> None:
        number = 0
        while not is_over.is_set():
            number += 1
            name = f"{self.person.user_id[1]}{number}"
            room = self.person.random.choice(self.rooms)
            body: dict[str, Any]
            if number % 7:
                path, body = f"send/m.room.message/{name}", {"msgtype": "m.text", "body": name}
            else:
                path, body = f"state/m.number/{self.person.user_id[1]}", {"number": number}
            answer = await self.person.call("PUT", f"{C}/rooms/{quote(room)}/{path}", body)
            self.acknowledged[room].add(answer["event_id"])
            messages = {other.user_id: {other.device_id: {"name": name}} for other in others}
            await self.person.call("PUT", f"{C}/sendToDevice/m.test/{name}", {"messages": messages})
            self.told.add(name)
            await asyncio.sleep(0.02)


class Listener:
    """Follows the rooms by /sync as a client does, and fills what is left out from /messages."""

    def __init__(self, person: Person, rooms: Sequence[str], limit: int) -> None:
        self.person = person
        self.heard: dict[str, list[str]] = {room: [] for room in rooms}
        self.told: list[str] = []
        sync_filter = {"room": {"timeline": {"limit": limit}}, "presence": {"types": []}}
        self._filter = quote(json.dumps(sync_filter))
        self._since = ""

    async def listen(self) -> None:
        while True:
            await self.sync()

    async def sync(self) -> None:
        query = f"timeout=1000&filter={self._filter}{self._since and f'&since={self._since}'}"
        answer = await self.person.call("GET", f"{C}/sync?{query}")
        for room, told in answer.get("rooms", {}).get("join", {}).items():
            timeline = told.get("timeline", {})
            event_ids = [event["event_id"] for event in timeline.get("events", ())]
            if timeline.get("limited"):
                event_ids = await self._fill(room, timeline["prev_batch"]) + event_ids
            self.heard[room] += event_ids
        self.told += [event["content"]["name"] for event in answer.get("to_device", {}).get("events", ())]
        self._since = answer["next_batch"]

    async def _fill(self, room: str, place: str) -> list[str]:
        """What lies between the last that was heard and a place, oldest first."""
        known = set(self.heard[room][-1:])
        found: list[str] = []
        while True:
            path = f"{C}/rooms/{quote(room)}/messages?dir=b&limit=7&from={quote(place)}"
            page = await self.person.call("GET", path)
            for event in page["chunk"]:
                if event["event_id"] in known:
                    return found[::-1]
                found.append(event["event_id"])
            if "end" not in page:
                return found[::-1]
            place = page["end"]


@pytest.fixture
async def servers(tmp_path: Path, postgres_database: PostgresDatabase) -> AsyncIterator[list[ServerProcess]]:
    """Two processes that share all that is on disk."""
    pair = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        pair.append(ServerProcess(tmp_path / name, RANVIER__DATABASE__URL=postgres_database.url))
    (tmp_path / "one" / "data").mkdir()
    (tmp_path / "two" / "data").symlink_to(tmp_path / "one" / "data")
    try:
        for server in pair:  # the first one makes the signing key
            await asyncio.to_thread(server.start)
        yield pair
    finally:
        for server in pair:
            server.kill()
        postgres_database.reset()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [3])
async def test_nobody_misses_or_hears_twice(servers: list[ServerProcess], seed: int) -> None:
    randomness = random.Random(seed)
    async with aiohttp.ClientSession() as http:
        people = [Person(http, servers, seed + number) for number in range(2 * PEOPLE)]
        for number, person in enumerate(people):
            await person.register("abcdefghijkl"[number])
        rooms = [await _room_of_all(people) for _ in range(ROOMS)]
        talkers = [Talker(person, rooms) for person in people[:PEOPLE]]
        limits = (2, 5, 20, 50)
        listeners = [Listener(one, rooms, limit) for one, limit in zip(people[PEOPLE:], limits, strict=True)]
        for listener in listeners:
            await listener.sync()
        talk_is_over = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            talking = [tasks.create_task(one.talk(people[PEOPLE:], talk_is_over)) for one in talkers]
            listening = [tasks.create_task(one.listen()) for one in listeners]
            for _ in range(KILLS):
                await asyncio.sleep(0.3 + randomness.random())
                server = randomness.choice(servers)
                server.kill()
                await asyncio.sleep(randomness.random())
                await asyncio.to_thread(server.start)
            talk_is_over.set()
            await asyncio.wait(talking)
            said = {room: set().union(*(talker.acknowledged[room] for talker in talkers)) for room in rooms}
            told = set().union(*(talker.told for talker in talkers))
            assert min(len(some) for some in said.values()) > 10, "too little was said to show anything"
            await _all_heard(listeners, said, told)
            for task in listening:
                task.cancel()
        for room in rooms:
            await _check_room(room, people, listeners, said[room])
    for listener in listeners:
        assert sorted(listener.told) == sorted(told), "of what was sent to a device"
    for server in servers:
        assert "Traceback" not in server.log(), server.log()[-5000:]


async def _room_of_all(people: Sequence[Person]) -> str:
    powers = {"state_default": 0}
    body = {"preset": "public_chat", "power_level_content_override": powers}
    room = str((await people[0].call("POST", f"{C}/createRoom", body))["room_id"])
    for person in people[1:]:
        await person.call("POST", f"{C}/join/{quote(room)}", {})
    return room


async def _all_heard(listeners: Sequence[Listener], said: dict[str, set[str]], told: set[str]) -> None:
    """Wait until nothing is missing, or it is clear that it never comes."""
    missing: list[str] = []
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while asyncio.get_running_loop().time() < deadline:
        missing = [
            one
            for listener in listeners
            for wanted, heard in [
                (told, listener.told),
                *((said[room], listener.heard[room]) for room in said),
            ]
            for one in wanted - set(heard)
        ]
        if not missing:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"never heard: {missing}")


async def _check_room(
    room: str, people: Sequence[Person], listeners: Sequence[Listener], said: set[str]
) -> None:
    """All processes show the same, and each listener has heard just that since it began."""

    async def read(person: Person) -> list[str]:
        found: list[str] = []
        place = ""
        while True:
            path = f"{C}/rooms/{quote(room)}/messages?dir=b&limit=100{place}"
            page = await person.call("GET", path)
            found += [event["event_id"] for event in page["chunk"]]
            if "end" not in page:
                return found[::-1]
            place = f"&from={quote(page['end'])}"

    shown = await read(people[0])
    assert len(shown) == len(set(shown))
    assert said <= set(shown)
    for listener in listeners:
        heard = listener.heard[room]
        assert len(heard) == len(set(heard)), "heard twice"
        begin = shown.index(heard[0])
        assert heard == shown[begin:], "not in the order of the room, or something is missing"
