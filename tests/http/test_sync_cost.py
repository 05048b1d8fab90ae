"""What a sync costs: nothing is read when nothing changed, and what many wait for is read once."""

import asyncio

import pytest

from ranvier.services.sync.reading import SyncReader

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


async def test_who_waits_together_is_answered_by_one_read(homeserver, reads):
    alice = await homeserver.register("alice")
    room = await create(alice, preset="public_chat")
    members = [await homeserver.register(f"member{number}") for number in range(10)]
    for member in members:
        await do(member, room, "join")
    tokens = [await begin(member) for member in members]
    tasks = [
        asyncio.create_task(sync(member, since, timeout=30_000))
        for member, since in zip(members, tokens, strict=True)
    ]
    for _ in range(10_000):
        if homeserver.foundation.waiters.waiting_count() == len(members):
            break
        await asyncio.sleep(0)
    reads.clear()
    await say(alice, room, "hello")
    for told in await asyncio.gather(*tasks):
        assert bodies(joined(told, room)) == ["hello"]
    assert reads.count("read_all") == 1


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
