"""SIGKILL of either of two servers that federate over TLS, while people of both talk in five rooms: afterwards both
hold the same events and the same state, and all that was acknowledged.
"""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from yarl import URL

from tests.federation.test_synapse import RANVIER, Person, Server, start_ranvier
from tests.http.client import segment
from tests.unit.certificates import Authority

C: Final = "/_matrix/client/v3"
ROOMS: Final = 5
KILLS: Final = 4
PATIENCE_S: Final = 60.0


class Sender:
    """Somebody who talks in one room without a pause, and says again what was not acknowledged."""

    def __init__(self, person: Person, room_id: str) -> None:
        self.person, self.room_id = person, room_id
        self.count = 0
        self.acknowledged: list[str] = []

    async def talk(self, is_over: asyncio.Event) -> None:
        while not is_over.is_set():
            self.count += 1
            await self._say(self.count)
            await asyncio.sleep(0.02)

    async def _say(self, number: int) -> None:
        """Until it is acknowledged: a message, or now and then a change of state."""
        name = f"{self.person.user_id[1]}{number}"
        room = f"{C}/rooms/{segment(self.room_id)}"
        if number % 10:
            path, body = f"{room}/send/m.room.message/{name}", {"msgtype": "m.text", "body": name}
        else:
            path, body = f"{room}/state/m.number/{self.person.user_id[1]}", {"number": number}
        while True:
            try:
                event_id = await _put(self.person, path, body)
            except (aiohttp.ClientError, ConnectionError, json.JSONDecodeError):
                await asyncio.sleep(0.05)  # the server is gone; the same transaction is repeated
            else:
                self.acknowledged.append(event_id)
                return


async def _put(person: Person, path: str, body: Any) -> str:
    url = URL(f"http://127.0.0.1:{person.server.client_port}{path}", encoded=True)
    headers = {"Authorization": f"Bearer {person.token}"}
    async with person.session.put(url, json=body, headers=headers) as response:
        answer = await response.json()
        assert response.status == 200, answer
        return str(answer["event_id"])


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Person, Person]]:
    authority = Authority(tmp_path)
    servers = [start_ranvier(tmp_path / name, authority) for name in ("one", "two")]
    try:
        async with aiohttp.ClientSession() as session:
            people = []
            for server, name in zip(servers, ("alice", "bob"), strict=True):
                await server.wait(session)
                person = Person(session, server)
                await person.register(name)
                people.append(person)
            yield people[0], people[1]
    finally:
        for server in servers:
            server.stop()


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_both_sides_hold_the_same_after_kills(pair: tuple[Person, Person]) -> None:
    alice, bob = pair
    rooms = [await _room_of_both(alice, bob) for _ in range(ROOMS)]
    senders = [Sender(person, room_id) for room_id in rooms for person in pair]
    is_over = asyncio.Event()
    randomness = random.Random(11)
    async with asyncio.TaskGroup() as tasks:
        for sender in senders:
            tasks.create_task(sender.talk(is_over))
        for number in range(KILLS):
            await asyncio.sleep(0.5 + randomness.random())
            await _kill_and_start(pair[number % 2])
        await asyncio.sleep(0.5)
        is_over.set()
    assert min(len(sender.acknowledged) for sender in senders) > 10, "too little was said to show anything"
    # A word of each, so that nobody waits for a pause to end.
    for room_id in rooms:
        for person in pair:
            await person.say(room_id, f"the end, {person.user_id}")
    for room_id in rooms:
        said = {one for sender in senders if sender.room_id == room_id for one in sender.acknowledged}
        await _agree(room_id, said, pair)
    for person in pair:
        log = (person.server.directory / "log").read_text()
        assert "Traceback" not in log, log[-5000:]


async def _room_of_both(alice: Person, bob: Person) -> str:
    powers = {"state_default": 0}
    body = {"preset": "public_chat", "power_level_content_override": powers}
    room_id = str((await alice.call("POST", f"{C}/createRoom", body))["room_id"])
    await bob.call("POST", f"{C}/join/{segment(room_id)}?server_name={alice.server.name}", {})
    await alice.sees(room_id, bob.user_id, "join")
    return room_id


async def _kill_and_start(person: Person) -> None:
    server: Server = person.server
    assert server.process is not None
    server.process.kill()
    await asyncio.to_thread(server.process.wait)
    server.start(str(RANVIER), "serve", "--config", str(server.directory / "ranvier.toml"))
    await server.wait(person.session)


async def _agree(room_id: str, said: set[str], pair: tuple[Person, Person]) -> None:
    what = ""
    deadline = asyncio.get_running_loop().time() + PATIENCE_S
    while asyncio.get_running_loop().time() < deadline:
        (mine, my_state), (theirs, their_state) = [await _view(person, room_id) for person in pair]
        assert len(mine) == len(set(mine)), "an event is there twice"
        if set(mine) == set(theirs) and my_state == their_state and said <= set(mine):
            return
        what = (
            f"{room_id}: {len(set(mine) ^ set(theirs))} events and {my_state ^ their_state} of the state differ;"
            f" of what was acknowledged, {len(said - set(mine))} and {len(said - set(theirs))} are not there"
        )
        await asyncio.sleep(0.5)
    raise AssertionError(what)


async def _view(person: Person, room_id: str) -> tuple[list[str], set[tuple[str, str, str]]]:
    """All events that the person is shown, and the room's state."""
    room = f"{C}/rooms/{segment(room_id)}"
    event_ids: list[str] = []
    token = ""
    while True:
        page = await person.call("GET", f"{room}/messages?dir=b&limit=200{token}")
        event_ids += [event["event_id"] for event in page["chunk"]]
        if "end" not in page:
            break
        token = f"&from={segment(page['end'])}"
    state = await person.call("GET", f"{room}/state")
    return event_ids, {(e["type"], e["state_key"], e["event_id"]) for e in state}
