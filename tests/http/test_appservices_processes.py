"""Several processes deliver to one application service: what each sees, how late it hears, and how it ends.

Another process is played by a second delivery with its own view of the database.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import msgspec
import pytest
from aiohttp import web

from ranvier.services.appservices import delivery
from ranvier.services.appservices.delivery import Deliveries, Delivery
from ranvier.store.database import Unavailable
from ranvier.store.tables import appservices
from ranvier.store.tables.appservices import find_progress

from .appservice import AS_TOKEN
from .homeserver import eventually
from .test_appservices import add_ghost
from .test_appservices_delivery import CRYPTO, TRANSACTIONS, ghost_room, played, say, start

__all__ = ["played", "start"]


class LateTxn:
    """A transaction of a process that sees less than there is."""

    def __init__(self, txn, position: int) -> None:
        self._txn = txn
        self.position = min(position, txn.position)

    def __getattr__(self, name: str):
        return getattr(self._txn, name)


class View:
    """How one process sees the database."""

    def __init__(self, db) -> None:
        self._db = db
        self.sees_upto: int | None = None  # None: everything
        self.before: Callable[[object], Awaitable[None]] | None = None
        self.done: list[tuple[object, object]] = []  # functions, and what they returned

    def position(self) -> int:
        newest = self._db.position()
        return newest if self.sees_upto is None else min(newest, self.sees_upto)

    async def read(self, fn, *args):
        return await self._run(self._db.read, fn, *args)

    async def write(self, fn, *args, **more):
        return await self._run(self._db.write, fn, *args, **more)

    async def _run(self, how, fn, *args, **more):
        if self.before is not None:
            await self.before(fn)
        upto = self.sees_upto
        value = await how(lambda txn: fn(txn if upto is None else LateTxn(txn, upto), *args, **more))
        self.done.append((fn, value))
        return value


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(delivery, "STAND_BY_S", 0.02)
    monkeypatch.setattr(delivery, "MIN_RETRY_MS", 20)


def first_of(homeserver) -> Delivery:
    (worker,) = [one for one in homeserver.workers if one.name == Deliveries.name]
    (only,) = worker._all.values()
    return only


def watch(one: Delivery) -> View:
    view = View(one._wires.db)
    one._wires = msgspec.structs.replace(one._wires, db=view)
    return view


def second_of(homeserver) -> tuple[Delivery, View]:
    """Another process, which does not run yet."""
    first = first_of(homeserver)
    wires = msgspec.structs.replace(first._wires, holder="second", is_shared=True)
    second = Delivery(wires, first.service, first._reader)
    homeserver.foundation.ports.db.subscribe(second.hear)
    return second, watch(second)


@asynccontextmanager
async def running(one: Delivery):
    task = asyncio.create_task(one.run())
    try:
        yield task
    finally:
        await end(task)


def task_of_first() -> asyncio.Task:
    (task,) = [one for one in asyncio.all_tasks() if one.get_name() == "deliver to bridge"]
    return task


async def end(task: asyncio.Task) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def until(check: Callable[[], object]) -> None:
    async def holds() -> bool:
        return bool(check())

    await eventually(holds)


def hold_answers(played) -> asyncio.Event:
    """The service takes transactions, and answers when the event is set."""
    may_answer = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        played.take(request.path.rpartition("/")[2], await request.read())
        await may_answer.wait()
        return web.json_response({})

    played.answers[TRANSACTIONS] = answer
    return may_answer


def has_each_once(played) -> bool:
    return len({txn_id for txn_id, _ in played.attempts}) == len(played.attempts)


async def test_who_stands_by_takes_over_when_the_other_has_ended(start, played, quick):
    """It saw a transaction under way, whose lease would have lasted for minutes."""
    homeserver = await start()
    alice = await homeserver.register("alice")
    _, room_id = await ghost_room(homeserver, alice)
    await played.until(lambda: len(played.events) == 2)
    may_answer = hold_answers(played)
    await say(alice, room_id, "one")
    await until(lambda: "one" in played.bodies())
    second, view = second_of(homeserver)
    async with running(second):
        await until(lambda: any(fn is find_progress and value.pending for fn, value in view.done))
        may_answer.set()
        await until(lambda: first_of(homeserver)._progress.pending is None)
        await end(task_of_first())
        await say(alice, room_id, "two")
        await played.until(lambda: "two" in played.bodies())
    assert played.bodies() == ["one", "two"]
    assert has_each_once(played)


async def test_who_sees_less_than_was_told_tells_nothing_again(start, played, quick):
    """PostgreSQL shows a process the other one's position in the row before all up to it is settled for itself."""
    homeserver = await start()
    alice = await homeserver.register("alice")
    _, room_id = await ghost_room(homeserver, alice)
    await played.until(lambda: len(played.events) == 2)
    second, view = second_of(homeserver)
    view.sees_upto = homeserver.foundation.ports.db.position()
    await say(alice, room_id, "one")
    await played.until(lambda: "one" in played.bodies())
    await until(lambda: first_of(homeserver)._progress.pending is None)
    await end(task_of_first())
    async with running(second):
        await until(lambda: any(isinstance(value, delivery.News) for _, value in view.done))
        view.sees_upto = None
        await say(alice, room_id, "two")
        await played.until(lambda: "two" in played.bodies())
    assert played.bodies() == ["one", "two"]


async def test_what_is_read_before_its_hint_is_heard_is_told(start, played):
    """Messages to devices are looked for where hints tell: a read that sees more than was heard must not pass it."""
    homeserver = await start(**CRYPTO)
    alice = await homeserver.register("alice")
    bridge = homeserver.client.as_user(AS_TOKEN)
    await add_ghost(bridge, "ghost_1", device_id="G")
    first = first_of(homeserver)
    await until(lambda: not first._news.is_set())
    view = watch(first)
    sent = 0

    async def write_first(fn: object) -> None:
        """What the read that is about to begin sees, though its hint came after the puller took those it had."""
        nonlocal sent
        if fn == first._reader.read and not sent:
            sent += 1
            body = {"messages": {"@ghost_1:test": {"G": {"number": sent}}}}
            answer = await alice.put(f"/_matrix/client/v3/sendToDevice/m.test/{sent}", body)
            assert answer.status == 200

    view.before = write_first
    status = "/_matrix/client/v3/profile/@alice:test/displayname"
    assert (await alice.put(status, {"displayname": "Alice"})).status == 200
    await played.until(lambda: played.messages)
    assert [one["content"]["number"] for one in played.messages] == [1]


async def test_who_stops_waits_for_the_answer(start, played, quick, monkeypatch):
    """The service has taken the transaction: whoever goes on does not send it again."""
    monkeypatch.setattr(delivery, "FINISH_S", 60.0)
    homeserver = await start()
    alice = await homeserver.register("alice")
    _, room_id = await ghost_room(homeserver, alice)
    await played.until(lambda: len(played.events) == 2)
    may_answer = hold_answers(played)
    await say(alice, room_id, "one")
    await until(lambda: "one" in played.bodies())
    task = task_of_first()
    task.cancel()
    await asyncio.sleep(0)
    may_answer.set()
    async with asyncio.timeout(60):
        with suppress(asyncio.CancelledError):
            await task
    second, _ = second_of(homeserver)
    async with running(second):
        await say(alice, room_id, "two")
        await played.until(lambda: "two" in played.bodies())
    assert played.bodies() == ["one", "two"]
    assert has_each_once(played)


async def test_who_stops_does_not_wait_for_ever(start, played, quick, monkeypatch):
    monkeypatch.setattr(delivery, "FINISH_S", 0.05)
    homeserver = await start()
    alice = await homeserver.register("alice")
    _, room_id = await ghost_room(homeserver, alice)
    await played.until(lambda: len(played.events) == 2)
    hold_answers(played)
    await say(alice, room_id, "one")
    await until(lambda: "one" in played.bodies())
    async with asyncio.timeout(60):
        await end(task_of_first())
    progress = await homeserver.foundation.ports.db.read(find_progress, "bridge")
    assert progress.pending is not None
    assert progress.lease is None, "another process may send it at once"
    played.answers.clear()


async def test_what_was_taken_is_not_sent_again_while_the_database_is_away(start, played, quick):
    homeserver = await start()
    alice = await homeserver.register("alice")
    _, room_id = await ghost_room(homeserver, alice)
    await played.until(lambda: len(played.events) == 2)
    view = watch(first_of(homeserver))
    failures = 0

    async def fail(fn: object) -> None:
        nonlocal failures
        if fn is appservices.acknowledge and failures < 3:
            failures += 1
            raise Unavailable("the database is away")

    view.before = fail
    await say(alice, room_id, "one")
    await say(alice, room_id, "two")
    await played.until(lambda: "two" in played.bodies())
    await until(lambda: failures == 3 and first_of(homeserver)._progress.pending is None)
    assert played.bodies() == ["one", "two"]
    assert has_each_once(played)
