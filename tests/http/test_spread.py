"""What a client sees does not depend on which process of a homeserver answers: two on one PostgreSQL, and every request
goes to either.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ranvier.services.sliding import handover
from ranvier.store.tables.to_device import list_messages

from ..postgres import PostgresDatabase
from ..sliding_client import ALL_EXTENSIONS, FORMS, Form, SlidingClient, assert_knows
from ..store.conftest import postgres_database, postgres_server
from ..sync_equivalent import Follower, assert_equivalent, check_full_members
from .client import segment
from .homeserver import User, eventually
from .rooms import C, create, do, say
from .spread import Spread, running_spread
from .test_sliding_model import LAZY, World, look_elsewhere

__all__ = ["postgres_database", "postgres_server"]

SEEDS = range(2)
ROUNDS = 15


@pytest.fixture
async def spread(
    tmp_path: Path, postgres_database: PostgresDatabase, request: pytest.FixtureRequest
) -> AsyncIterator[Spread]:
    chance = random.Random(request.node.name)
    async with running_spread(tmp_path, postgres_database.url, chance) as running:
        yield running
    postgres_database.reset()


@pytest.fixture
async def alice(spread: Spread) -> User:
    return await spread.register("alice")


@pytest.fixture
async def bob(spread: Spread) -> User:
    return await spread.register("bob")


async def settle_world(spread: Spread, chance: random.Random) -> World:
    world = World(chance)
    for name in ("alice", "bob", "carol"):
        world.users[name] = await spread.register(name)
    for _ in range(4):
        world.rooms.append(await create(world.users["alice"], preset="public_chat"))
    return world


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", SEEDS)
async def test_sliding_sync_ends_up_knowing_what_a_first_sync_tells(
    spread: Spread, form: Form, seed: int
) -> None:
    chance = random.Random(f"{form} {seed}")
    world = await settle_world(spread, chance)
    alice = world.users["alice"]
    sliding = SlidingClient(alice, form, user_id=alice.user_id)
    for number in range(ROUNDS):
        for _ in range(chance.randrange(4)):
            await world.act()
        if chance.random() < 0.1 and number > 1:
            await spread.start(chance.randrange(2))
        look_elsewhere(sliding, world, chance)
        for _ in range(chance.choice((0, 0, 0, 1, 2))):
            # An answer that is lost on its way: the client asks again, perhaps for something else.
            lost = await sliding.ask(pos=sliding.pos)
            assert lost.status == 200, lost.body
            look_elsewhere(sliding, world, chance)
        await sliding.sync()
    await spread.settled()
    sliding.subscriptions, sliding.extensions = {}, ALL_EXTENSIONS
    sliding.lists = {"all": sliding.config(20, window=(0, 1000))}
    await sliding.sync()
    await assert_knows(sliding, Follower(alice, room_filter={"timeline": {"limit": 40}}))


@pytest.mark.parametrize("seed", SEEDS)
async def test_classic_sync_ends_up_knowing_what_a_first_one_tells(spread: Spread, seed: int) -> None:
    chance = random.Random(seed)
    world = await settle_world(spread, chance)
    profile: Any = {"room_filter": {"timeline": {"limit": 3}}}
    follower = Follower(world.users["alice"], **profile)
    for _ in range(ROUNDS):
        for _ in range(chance.randrange(4)):
            await world.act()
        await follower.sync()
    await spread.settled()
    fresh = Follower(world.users["alice"], **profile)
    await assert_equivalent(follower, fresh)
    check_full_members(follower, fresh)


@pytest.mark.parametrize("form", FORMS)
async def test_who_wanders_is_told_nothing_twice(spread: Spread, alice: User, form: Form) -> None:
    rooms = [await create(alice) for _ in range(5)]
    sliding = SlidingClient(alice, form, user_id=alice.user_id)
    sliding.lists = {"all": sliding.config(5, LAZY, (0, 19))}
    sliding.extensions = {**ALL_EXTENSIONS, "io.element.msc4308.thread_subscriptions": {"enabled": True}}
    await alice.put(f"{C}/rooms/{segment(rooms[0])}/typing/{segment(alice.user_id)}", {"typing": True})
    thread = (
        f"io.element.msc4306/rooms/{segment(rooms[1])}/thread/{segment(await say(alice, rooms[1], 'root'))}"
    )
    answer = await alice.put(f"/_matrix/client/unstable/{thread}/subscription", {})
    assert answer.status == 200, answer.body
    await spread.settled()
    await sliding.sync()
    for number in range(8):
        sliding.client = spread.at(number % 2, alice)
        told = await sliding.sync()
        assert told["rooms"] == {}
        extensions = told["extensions"]
        assert not any(extensions["account_data"].values())
        assert extensions["receipts"]["rooms"] == {}
        assert extensions[sliding._key("typing")]["rooms"] == {}, "typing was told, and has not changed"
        threads = extensions["io.element.msc4308.thread_subscriptions"]
        assert not threads.get("subscribed"), "so were threads"
        room = rooms[number % 5]
        await say(spread.at(number // 2 % 2, alice), room, str(number))
        await spread.settled()
        told = await sliding.sync()
        assert list(told["rooms"]) == [room]
        assert "initial" not in told["rooms"][room]
        assert [event["content"]["body"] for event in told["rooms"][room]["timeline"]] == [str(number)]


async def test_an_answer_that_was_lost_is_given_again_by_the_other(spread: Spread, alice: User) -> None:
    room = await create(alice)
    await spread.settled()
    here, there = spread.both(alice)
    sliding = SlidingClient(here, "simplified", user_id=alice.user_id)
    sliding.lists = {"all": sliding.config(5, LAZY, (0, 19))}
    await sliding.sync()
    oldest = sliding.pos
    await say(here, room, "one")
    await spread.settled()
    lost = (await sliding.ask(pos=sliding.pos)).json
    sliding.client = there
    again = (await sliding.ask(pos=sliding.pos)).json
    for told in (lost, again):
        assert [event["content"]["body"] for event in told["rooms"][room]["timeline"]] == ["one"]
    # Either may be gone on with, at either: the client got one of them.
    sliding.client = here
    sliding.fold(again)
    assert (await sliding.sync())["rooms"] == {}
    for client in (here, there):
        sliding.client = client
        refused = await sliding.ask(pos=oldest)
        assert (refused.status, refused.errcode) == (400, "M_UNKNOWN_POS")
        assert (await sliding.sync())["rooms"] == {}, "what was refused changes nothing"


async def test_a_client_begins_anew_at_the_other(spread: Spread, alice: User) -> None:
    room = await create(alice)
    await spread.settled()
    here, there = spread.both(alice)
    sliding = SlidingClient(here, "simplified", user_id=alice.user_id)
    sliding.lists = {"all": sliding.config(5, LAZY, (0, 19))}
    for _ in range(2):
        await sliding.sync()
    sliding.client, sliding.pos = there, None
    assert (await sliding.sync())["rooms"][room]["initial"]
    for client in (here, there, there, here):
        sliding.client = client
        assert (await sliding.sync())["rooms"] == {}


async def test_what_a_process_took_with_it_is_told_anew(
    spread: Spread, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has ended without storing what its clients know: those get more than they have to, and lack nothing."""
    monkeypatch.setattr(handover, "WAIT_S", 0.01)
    rooms = [await create(alice) for _ in range(2)]
    await spread.settled()
    here, there = spread.both(alice)
    sliding = SlidingClient(here, "simplified", user_id=alice.user_id)
    sliding.lists = {"all": sliding.config(5, LAZY, (0, 19))}
    for _ in range(3):
        await sliding.sync()
    await say(there, rooms[0], "one")
    await spread.settled()
    await sliding.sync()
    await spread.start(0)
    sliding.client = there
    await say(there, rooms[0], "two")
    told = await sliding.sync()
    assert list(told["rooms"]) == [rooms[0]], "the other is as it was"
    assert told["rooms"][rooms[0]]["initial"]
    assert [event["content"].get("body") for event in told["rooms"][rooms[0]]["timeline"]][-2:] == [
        "one",
        "two",
    ]


async def test_who_waits_at_one_hears_what_is_done_at_the_other(
    spread: Spread, alice: User, bob: User
) -> None:
    room = await create(alice, preset="public_chat")
    await do(bob, room, "join")
    await spread.settled()
    here = spread.at(0, alice)
    sliding = SlidingClient(here, "final", user_id=alice.user_id)
    sliding.lists = {"all": sliding.config(5, LAZY, (0, 19))}
    sliding.extensions = ALL_EXTENSIONS
    await sliding.sync()
    follower = Follower(here)
    await follower.sync()
    typing = f"{C}/rooms/{segment(room)}/typing/{segment(bob.user_id)}"
    bob_there = spread.at(1, bob)

    async def waiters() -> bool:
        return spread.processes[0].foundation.waiters.waiting_count() == 2

    async def hear(act: Any) -> None:
        waiting = [
            asyncio.create_task(one)
            for one in (sliding.sync(timeout_ms=30_000), follower.sync(timeout=30_000))
        ]
        await eventually(waiters)
        await act
        await asyncio.gather(*waiting)

    await hear(say(bob_there, room, "hello"))
    for timeline in (sliding.rooms[room].timeline, follower.joined[room].timeline):
        assert timeline[-1]["content"]["body"] == "hello"
    event_id = follower.joined[room].timeline[-1]["event_id"]
    await hear(bob_there.put(typing, {"typing": True, "timeout": 60_000}))
    assert sliding.typing[room] == follower.joined[room].typing == [bob.user_id]
    await hear(do(bob_there, room, f"receipt/m.read/{segment(event_id)}"))
    key = ("m.read", bob.user_id, None)
    assert sliding.receipts[room][key] == follower.joined[room].receipts[key] == event_id


async def test_messages_to_devices_come_once_and_go(spread: Spread, alice: User, bob: User) -> None:
    """Whichever process gave them, and whichever is told that they arrived."""
    db = spread.processes[0].foundation.ports.db
    ((device_nid,),) = await db.read(
        lambda txn: txn.all("SELECT device_nid FROM devices WHERE device_id = :it", it=bob.device_id)
    )
    follower, heard = Follower(bob), []

    async def are_gone() -> bool:
        told = await follower.sync()
        assert "to_device" not in told
        return not await db.read(list_messages, device_nid, 0, 2**62, 100)

    await follower.sync()
    for number in range(12):
        message = {bob.user_id: {bob.device_id: {"n": number}}}
        answer = await alice.put(f"{C}/sendToDevice/test.type/{number}", {"messages": message})
        assert answer.status == 200, answer.body
        await spread.settled()
        told = await follower.sync()
        heard += [event["content"]["n"] for event in told.get("to_device", {}).get("events", ())]
        await eventually(are_gone)
    assert heard == list(range(12))
