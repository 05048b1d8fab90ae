"""What a sync costs: nothing is read when nothing changed, and what many wait for is read once."""

import asyncio
import types
from collections import Counter

import pytest

from ranvier.services.sync import reading
from ranvier.services.sync.reading import SyncReader
from ranvier.services.sync.rooms import RoomsReader
from ranvier.services.sync.sync import Sync

from .client import segment
from .rooms import create, do, say
from .test_sync import as_filter, begin, bodies, joined, sync


@pytest.fixture
def reads(homeserver, monkeypatch):
    """The names of the functions that read transactions ran, as they come."""
    seen = []
    db = homeserver.foundation.ports.db
    read = type(db).read

    async def counted(self, fn, *args, **kwargs):
        seen.append(fn.__name__)
        return await read(self, fn, *args, **kwargs)

    monkeypatch.setattr(type(db), "read", counted)
    return seen


class Counting:
    """A transaction that notes its statements."""

    def __init__(self, txn, statements):
        self._txn = txn
        self._statements = statements

    @property
    def position(self):
        return self._txn.position

    def __getattr__(self, name):
        def run(sql, /, **params):
            self._statements.append(sql)
            return getattr(self._txn, name)(sql, **params)

        return run


@pytest.fixture
def statements(monkeypatch):
    """The statements of syncs, as they come; those of other readers are not among them."""
    seen = []
    read_all = SyncReader.read_all
    monkeypatch.setattr(
        SyncReader, "read_all", lambda self, txn, jobs: read_all(self, Counting(txn, seen), jobs)
    )
    return seen


async def test_without_changes_nothing_is_read(homeserver, reads):
    alice = await homeserver.register("alice")
    for _ in range(3):
        await create(alice)
    since = await begin(alice)
    since = await begin(alice, since=since)
    reads.clear()
    for _ in range(3):
        assert "rooms" not in await sync(alice, since)
    assert reads == []


async def test_what_others_do_elsewhere_costs_nothing(homeserver, reads):
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    await create(alice)
    other = await create(bob)
    since = await begin(alice)
    await say(bob, other, "hello")
    reads.clear()
    assert "rooms" not in await sync(alice, since)
    assert reads == []


@pytest.fixture
def wakes(monkeypatch):
    """user_id -> how often their syncs that are under way went on after they had waited for something."""
    seen = Counter()
    whole = Sync.sync

    async def counted(self, requester, request):
        return await steps(requester.user_id, whole(self, requester, request))

    @types.coroutine
    def steps(user_id, coroutine):
        try:
            awaited = coroutine.send(None)
            while True:
                yield awaited
                seen[user_id] += 1
                awaited = coroutine.send(None)
        except StopIteration as end:
            return end.value

    monkeypatch.setattr(Sync, "sync", counted)
    return seen


async def meet(homeserver, count, **query):
    """A room, who made it, and others in it who have seen all there is."""
    alice = await homeserver.register("alice")
    room = await create(alice, preset="public_chat")
    members = [await homeserver.register(f"member{number}") for number in range(count)]
    for member in members:
        await do(member, room, "join")
    return room, alice, {member: await begin(member, **query) for member in members}


async def wait_all(homeserver, tokens, **query):
    """Tasks of syncs that all wait."""
    tasks = [
        asyncio.create_task(sync(member, since, timeout=30_000, **query)) for member, since in tokens.items()
    ]
    async with asyncio.timeout(60):
        while homeserver.foundation.waiters.waiting_count() < len(tasks):  # noqa: ASYNC110
            await asyncio.sleep(0)
    return tasks


async def test_who_waits_together_is_answered_by_one_read_and_wakes_once(homeserver, reads, wakes):
    room, alice, tokens = await meet(homeserver, 10)
    tasks = await wait_all(homeserver, tokens)
    reads.clear()
    wakes.clear()
    await say(alice, room, "hello")
    for told in await asyncio.gather(*tasks):
        assert bodies(joined(told, room)) == ["hello"]
    assert reads.count("read_all") == 1
    assert wakes == {member.user_id: 1 for member in tokens}


async def test_who_asks_a_moment_later_gets_what_was_read_already(homeserver, monkeypatch):
    """Who was just being answered when a message came is not among those who waited for it: only what is unread is
    asked for anew."""
    monkeypatch.setattr(reading, "KEPT_S", 600.0)
    room, alice, tokens = await meet(homeserver, 3)
    tasks = await wait_all(homeserver, tokens)
    read_all, statements, count = SyncReader.read_all, [], 0

    def read_twice(self, txn, jobs):
        nonlocal count
        count += 1
        results = read_all(self, txn, jobs)
        again = read_all(self, Counting(txn, statements), jobs)
        assert [result.body for result in again] == [result.body for result in results]
        return results

    monkeypatch.setattr(SyncReader, "read_all", read_twice)
    await say(alice, room, "hello")
    for told in await asyncio.gather(*tasks):
        assert bodies(joined(told, room)) == ["hello"]
    assert len(statements) <= 3 * count


async def test_what_is_not_for_a_client_does_not_end_its_sync(homeserver):
    """It is read for the client, has nothing for it, and what comes next is told."""
    nothing_of_typing = as_filter(ephemeral={"not_types": ["m.typing"]})
    room, alice, tokens = await meet(homeserver, 1, filter=nothing_of_typing)
    (task,) = await wait_all(homeserver, tokens, filter=nothing_of_typing)
    typing = f"/_matrix/client/v3/rooms/{segment(room)}/typing/{segment(alice.user_id)}"
    assert (await alice.put(typing, {"typing": True, "timeout": 30_000})).status == 200
    await say(alice, room, "hello")
    assert bodies(joined(await task, room)) == ["hello"]


async def test_clients_that_load_members_lazily_share_what_is_alike(homeserver, monkeypatch):
    """A room is put together once for all who lack the sender, and once for all who do not."""
    made = []
    read = RoomsReader.read

    def counted(self, txn, asked, *rest):
        made.append(asked.requester.user_id)
        return read(self, txn, asked, *rest)

    lazy = as_filter(state={"lazy_load_members": True}, timeline={"limit": 1})
    room, alice, tokens = await meet(homeserver, 10, filter=lazy)
    knowing = [member for number, member in enumerate(tokens) if number % 2]
    await say(alice, room, "one")
    for member in knowing:
        tokens[member] = await begin(member, since=tokens[member], filter=lazy)
    for member in tokens:
        if member not in knowing:
            # The answer that told of the sender is not the one that the client goes on from.
            tokens[member] = await begin(member, filter=as_filter(timeline={"limit": 1}))
    tasks = await wait_all(homeserver, tokens, filter=lazy)
    monkeypatch.setattr(RoomsReader, "read", counted)
    await say(alice, room, "two")
    for member, task in zip(tokens, tasks, strict=True):
        section = joined(await task, room)
        assert bodies(section) == ["two"]
        members = [event["state_key"] for event in section["state"]["events"]]
        assert members == ([] if member in knowing else [alice.user_id])
    assert len(made) == 2


async def test_a_first_sync_is_not_read_twice_while_nothing_happens(homeserver):
    """The rooms come from memory; what happens in one of them is told nevertheless."""
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    room = await create(alice, preset="public_chat")
    await do(bob, room, "join")
    await say(alice, room, "one")
    first = joined(await sync(bob), room)
    assert joined(await sync(bob), room)["timeline"].keys() == first["timeline"].keys()
    assert bodies(joined(await sync(bob), room)) == bodies(first)
    await say(alice, room, "two")
    assert bodies(joined(await sync(bob), room))[-1] == "two"


async def test_a_first_sync_takes_as_many_statements_for_many_rooms_as_for_few(homeserver, statements):
    """Rooms that the user made, and such that the user came into; told for the first time, and told again."""
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    lazy = as_filter(state={"lazy_load_members": True})

    async def add_rooms(count):
        for _ in range(count):
            await say(bob, await create(bob), "hello")
            await do(bob, await create(alice, preset="public_chat"), "join")

    async def cost(**more):
        statements.clear()
        assert (await sync(bob, **more))["rooms"]
        return len(statements)

    await add_rooms(2)
    few = [await cost(), await cost(), await cost(filter=lazy), await cost(filter=lazy)]
    await add_rooms(8)
    many = [await cost(), await cost(), await cost(filter=lazy), await cost(filter=lazy)]
    assert many[1] == few[1] <= 12, "told again"
    assert many[3] == few[3] <= 14
    # Told for the first time: what is in memory of users and states decides on a few.
    assert many[0] <= 50
    assert many[2] <= 50
