"""State that came with a join, and that is redacted afterwards: its place in the timeline is not known here."""

import asyncio
from typing import Any

import pytest

from ranvier.app.config import FederationConfig

from ..http.client import segment
from ..http.homeserver import Homeserver, User
from .network import Network

C = "/_matrix/client/v3"


class Rooms:
    """A room of `ann` on `one`; `bob` on `two` came in after its topic was set."""

    def __init__(self, network: Network, *, partial_joins: bool) -> None:
        self.network = network
        self.config = FederationConfig(partial_joins=partial_joins)

    async def start(self) -> None:
        self.one = await self.network.server("one", federation=self.config)
        self.two = await self.network.server("two", federation=self.config)
        self.ann = await self.one.register("ann")
        self.bob = await self.two.register("bob")
        levels = {"users": {self.ann.user_id: 100, self.bob.user_id: 50}}
        body = {"preset": "public_chat", "room_version": "11", "power_level_content_override": levels}
        answer = await self.ann.post(f"{C}/createRoom", body)
        assert answer.status == 200, answer.body
        self.path = f"{C}/rooms/{segment(answer.json['room_id'])}"
        self.topic = await self.put(self.ann, "state/m.room.topic/", {"topic": "a secret"})
        room = segment(answer.json["room_id"])
        answer = await self.bob.post(f"{C}/join/{room}?server_name=one.test", {})
        assert answer.status == 200, answer.body
        assert await self.read_topic(self.bob) == {"topic": "a secret"}

    async def put(self, user: User, path: str, body: Any) -> str:
        answer = await user.put(f"{self.path}/{path}", body)
        assert answer.status == 200, answer.body
        return str(answer.json["event_id"])

    async def say(self, user: User, text: str) -> str:
        return await self.put(user, f"send/m.room.message/{text}", {"body": text, "msgtype": "m.text"})

    async def redact_topic(self, user: User) -> str:
        return await self.put(user, f"redact/{segment(self.topic)}/r", {})

    async def read_topic(self, user: User) -> Any:
        answer = await user.get(f"{self.path}/state/m.room.topic/")
        assert answer.status == 200, answer.body
        return answer.json

    async def until_there(self, user: User, event_id: str) -> None:
        for _ in range(3_000):
            if (await user.get(f"{self.path}/event/{segment(event_id)}")).status == 200:
                return
            await asyncio.sleep(0.01)
        raise TimeoutError


@pytest.fixture(params=[False, True], ids=["whole join", "partial join"])
async def rooms(network: Network, request: pytest.FixtureRequest) -> Rooms:
    rooms = Rooms(network, partial_joins=request.param)
    await rooms.start()
    return rooms


async def _restart(rooms: Rooms) -> User:
    """What is in memory is read anew."""
    await rooms.network.stop("two")
    two: Homeserver = await rooms.network.server("two", federation=rooms.config)
    return two.user({"access_token": rooms.bob.token, "user_id": rooms.bob.user_id, "device_id": ""})


async def test_a_redaction_on_the_head_takes_effect_on_it(rooms: Rooms) -> None:
    redaction = await rooms.redact_topic(rooms.ann)
    await rooms.until_there(rooms.bob, redaction)
    assert await rooms.read_topic(rooms.bob) == {}
    told = (await rooms.bob.get(f"{C}/sync?full_state=true")).body
    assert b"a secret" not in told
    assert await rooms.read_topic(await _restart(rooms)) == {}


async def test_a_redaction_beside_the_head_takes_effect_on_it(rooms: Rooms) -> None:
    rooms.network.cut("one", "two")
    await rooms.say(rooms.bob, "meanwhile")
    redaction = await rooms.redact_topic(rooms.ann)
    rooms.network.heal()
    rooms.network.clock.skip(60)
    await rooms.say(rooms.ann, "after")
    await rooms.until_there(rooms.bob, redaction)
    assert await rooms.read_topic(rooms.bob) == {}


async def test_who_may_redact_it_can(rooms: Rooms) -> None:
    redaction = await rooms.redact_topic(rooms.bob)
    assert await rooms.read_topic(rooms.bob) == {}
    await rooms.until_there(rooms.ann, redaction)
    assert await rooms.read_topic(rooms.ann) == {}
