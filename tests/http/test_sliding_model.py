"""Whatever happens, and however a client looks at it, it ends up with what a first classic sync tells.

A cheaper test would miss the histories that nobody thinks of: rooms that change while they are out of sight,
windows that move, requests that are sent twice, answers that are lost, restarts.
"""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from ..sliding_client import ALL_EXTENSIONS, FORMS, Form, SlidingClient, assert_knows
from ..sync_equivalent import Follower
from .client import segment
from .homeserver import Homeserver, User, running_homeserver
from .rooms import C, ask, create, put_state, say

SEEDS = range(6)
ROUNDS = 30
LAZY = (("m.room.create", ""), ("m.room.name", ""), ("m.room.member", "$LAZY"), ("m.room.member", "$ME"))
SOME = (("m.room.topic", "*"), ("*", ""))


class World:
    """People who do things at random. Alice is the one whose client is looked at."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.users: dict[str, User] = {}
        self.rooms: list[str] = []
        self.said = 0

    async def enter(self, homeserver: Homeserver) -> None:
        """The same people after a restart."""
        if not self.users:
            for name in ("alice", "bob", "carol"):
                self.users[name] = await homeserver.register(name)
            for _ in range(4):
                self.rooms.append(await create(self.users["alice"], preset="public_chat"))
            return
        self.users = {
            name: homeserver.user(
                {"access_token": user.token, "user_id": user.user_id, "device_id": user.device_id}
            )
            for name, user in self.users.items()
        }

    async def act(self) -> None:
        """One thing. What is not allowed does not happen."""
        chance = self.chance
        user = self.users[chance.choice(("alice", "bob", "bob", "carol"))]
        other = self.users[chance.choice(("alice", "bob", "carol"))]
        room = chance.choice(self.rooms)
        self.said += 1
        actions: list[Callable[[], Any]] = [
            lambda: self._say(user, room),
            lambda: self._say(user, room),
            lambda: self._mention(user, room),
            lambda: put_state(user, room, "m.room.name", {"name": chance.choice(("", f"Tea {self.said}"))}),
            lambda: put_state(user, room, "m.room.topic", {"topic": str(self.said)}),
            lambda: put_state(
                user,
                room,
                "m.room.member",
                {"membership": "join", "displayname": str(self.said)},
                user.user_id,
            ),
            lambda: user.post(f"{C}/join/{segment(room)}", {}),
            lambda: user.post(f"{C}/join/{segment(room)}", {}),
            lambda: ask(user, room, "leave"),
            lambda: ask(user, room, "invite", user_id=other.user_id),
            lambda: ask(user, room, "kick", user_id=other.user_id),
            lambda: ask(user, room, "ban", user_id=other.user_id),
            lambda: ask(user, room, "unban", user_id=other.user_id),
            lambda: user.put(
                f"{C}/rooms/{segment(room)}/typing/{segment(user.user_id)}",
                {"typing": chance.random() < 0.5, "timeout": 60_000},
            ),
            lambda: self._read(user, room),
            lambda: self._read(self.users["alice"], room),
            lambda: user.put(
                f"{C}/user/{segment(user.user_id)}/rooms/{segment(room)}/account_data/test.{chance.randrange(3)}",
                {"n": self.said},
            ),
            lambda: user.put(f"{C}/user/{segment(user.user_id)}/account_data/test.a", {"n": self.said}),
            lambda: user.put(
                f"{C}/user/{segment(user.user_id)}/account_data/m.direct",
                {other.user_id: chance.sample(self.rooms, 2)},
            ),
            lambda: self._create(user, other),
        ]
        await chance.choice(actions)()

    async def _say(self, user: User, room: str) -> None:
        path = f"{C}/rooms/{segment(room)}/send/m.room.message/{self.said}"
        await user.put(path, {"msgtype": "m.text", "body": f"message {self.said}"})

    async def _mention(self, user: User, room: str) -> None:
        path = f"{C}/rooms/{segment(room)}/send/m.room.message/{self.said}"
        mentions = {"user_ids": [self.users["alice"].user_id]}
        await user.put(path, {"msgtype": "m.text", "body": "you", "m.mentions": mentions})

    async def _read(self, user: User, room: str) -> None:
        page = await user.get(f"{C}/rooms/{segment(room)}/messages", dir="b", limit=3)
        if page.status == 200 and page.json["chunk"]:
            event_id = self.chance.choice(page.json["chunk"])["event_id"]
            kind = self.chance.choice(("m.read", "m.read.private"))
            await ask(user, room, f"receipt/{kind}/{segment(event_id)}")

    async def _create(self, user: User, other: User) -> None:
        self.rooms.append(
            await create(user, preset="public_chat", invite=[other.user_id] if other != user else [])
        )


@pytest.fixture
async def restart(tmp_path: Path) -> AsyncIterator[Callable]:
    """Stops the homeserver that runs, if one does, and starts it (again)."""
    async with AsyncExitStack() as outer:
        stack = await outer.enter_async_context(AsyncExitStack())

        async def again() -> Homeserver:
            await stack.aclose()
            return await stack.enter_async_context(running_homeserver(tmp_path / "data"))

        yield again


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", SEEDS)
async def test_a_client_ends_up_knowing_what_a_first_sync_tells(
    restart: Callable, form: Form, seed: int
) -> None:
    chance = random.Random(f"{form} {seed}")
    world = World(chance)
    await world.enter(await restart())
    alice = world.users["alice"]
    sliding = SlidingClient(alice, form, user_id=alice.user_id)
    sliding.extensions = ALL_EXTENSIONS
    for number in range(ROUNDS):
        for _ in range(chance.randrange(4)):
            await world.act()
        if chance.random() < 0.07 and number > 1:  # what was never shown is not stored
            await world.enter(await restart())
            alice = world.users["alice"]
            sliding.client = alice
        look_elsewhere(sliding, world, chance)
        for _ in range(chance.choice((0, 0, 0, 1, 2))):
            # An answer that is lost on its way: the client asks again, perhaps for something else.
            lost = await sliding.ask(pos=sliding.pos)
            assert lost.status == 200, lost.body
            look_elsewhere(sliding, world, chance)
        await sliding.sync()
    sliding.subscriptions, sliding.extensions = {}, ALL_EXTENSIONS
    sliding.lists = {"all": sliding.config(20, window=(0, 1000))}
    await sliding.sync()
    await assert_knows(sliding, Follower(alice, room_filter={"timeline": {"limit": 40}}))
    quiet = await sliding.sync()
    assert not quiet["rooms"], "everything was told"
    assert not any(quiet["extensions"].get("receipts", {}).get("rooms", {}))
    if form == "simplified":
        assert len(set(sliding.shown["all"])) == sliding.counts["all"] >= len(sliding.rooms)


def look_elsewhere(sliding: SlidingClient, world: World, chance: random.Random) -> None:
    if chance.random() < 0.5:
        return
    first = chance.randrange(3)
    state = chance.choice((LAZY, SOME, (), (("*", "*"),)))
    limit = chance.choice((0, 1, 3, 10))
    sliding.lists = {"some": sliding.config(limit, state, (first, first + chance.randrange(4)))}
    if chance.random() < 0.3:
        filters = chance.choice(({"is_dm": True}, {"is_encrypted": False}, {"not_room_types": ["m.space"]}))
        sliding.lists["other"] = sliding.config(2, LAZY, (0, 1), **filters)
    sliding.subscriptions = {
        room: sliding.config(chance.choice((1, 5)), chance.choice((LAZY, (("*", "*"),))))
        for room in chance.sample(world.rooms, chance.randrange(3))
    }
    if chance.random() < 0.2:
        sliding.extensions = {
            name: body
            for name, body in ALL_EXTENSIONS.items()
            if name in ("e2ee", "to_device") or chance.random() < 0.7
        }
    else:
        sliding.extensions = ALL_EXTENSIONS


@pytest.mark.parametrize("form", FORMS)
async def test_a_connection_outlives_a_restart(restart: Callable, form: Form) -> None:
    world = World(random.Random(0))
    await world.enter(await restart())
    alice = world.users["alice"]
    sliding = SlidingClient(alice, form, user_id=alice.user_id)
    sliding.lists = {"all": sliding.config(5, LAZY, (0, 19))}
    sliding.extensions = ALL_EXTENSIONS
    await sliding.sync()
    await sliding.sync()
    for number in range(3):
        # What the client shows is an answer that it had not shown before, so it may know more than is stored.
        await world.enter(await restart())
        sliding.client = alice = world.users["alice"]
        await say(alice, world.rooms[number], f"after restart {number}")
        told = await sliding.sync()
        assert list(told["rooms"]) == [world.rooms[number]], "the others are as they were"
        assert (await sliding.sync())["rooms"] == {}
