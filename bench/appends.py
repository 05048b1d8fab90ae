"""How many writes a second are acknowledged, each on disk before its answer (PostgreSQL: as its server has it).

A plain insert shows what the engine costs; the append of an event is what a message costs in the store.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from hashlib import sha256
from itertools import count
from typing import Final

import orjson

from bench.figure import Figure
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID, RoomID, ServerName, UserID
from ranvier.store.connect import open_database
from ranvier.store.database import Database, WriteTxn
from ranvier.store.tables import rooms
from ranvier.store.tables.append import append, remember_appended
from ranvier.store.tables.interned import Interner
from ranvier.store.tables.prepared import Batch, Outcome, PreparedEvent
from ranvier.store.tables.state_nodes import NodeCache

SECONDS: Final = 2.0
CONCURRENCY: Final = (1, 16, 64)

Once = Callable[[], Awaitable[None]]


def run() -> list[Figure]:
    # As the server does: a thread that wants the interpreter gets it soon.
    sys.setswitchinterval(0.0005)
    return [figure for url in _urls() for figure in asyncio.run(_measure(url))]


def _urls() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        yield f"sqlite:{folder}/bench.db"
    if url := os.environ.get("RANVIER_TEST_POSTGRES"):
        yield url


async def _measure(url: str) -> list[Figure]:
    engine = url.partition(":")[0]
    figures = []
    async with _opened(url) as database:
        await database.write(_create)
        run_id = str(time.time_ns())
        interner, cache = Interner(ServerName("here")), NodeCache()
        for at_once in CONCURRENCY:
            rate = await _rate([_inserter(database) for _ in range(at_once)])
            figures.append(Figure(f"{engine}: plain inserts, {at_once} at once", rate, "1/s"))
        for at_once in CONCURRENCY:
            names = (f"{run_id}-{at_once}-{n}" for n in range(at_once))
            senders = [await _appender(database, interner, cache, name) for name in names]
            rate = await _rate(senders)
            figures.append(Figure(f"{engine}: events, {at_once} at once, a room each", rate, "1/s"))
        await database.write(_drop)
    return figures


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[Database]:
    database = await open_database(url)
    try:
        yield database
    finally:
        await database.close()


async def _rate(workers: list[Once]) -> float:
    done = 0
    started = time.perf_counter()
    end = started + SECONDS

    async def work(once: Once) -> None:
        nonlocal done
        while time.perf_counter() < end:
            await once()
            done += 1

    await asyncio.gather(*(work(once) for once in workers))
    return done / (time.perf_counter() - started)


def _create(txn: WriteTxn) -> None:
    txn.execute("CREATE TABLE bench_rows (id {int} PRIMARY KEY, json {bytes} NOT NULL)")


def _drop(txn: WriteTxn) -> None:
    txn.execute("DROP TABLE bench_rows")


def _insert(txn: WriteTxn, json: bytes) -> None:
    txn.execute("INSERT INTO bench_rows (id, json) VALUES (:id, :json)", id=txn.next_position(), json=json)


def _inserter(database: Database) -> Once:
    json = b"x" * 600

    async def once() -> None:
        await database.write(_insert, json)

    return once


async def _appender(database: Database, interner: Interner, cache: NodeCache, name: str) -> Once:
    room = await database.write(rooms.insert_room, RoomID(f"!{name}:here"), "11")
    revision = room.revision
    numbers = count()

    async def once() -> None:
        nonlocal revision
        event = PreparedEvent(
            pdu=_message(room.room_id, f"{name}-{next(numbers)}"), outcome=Outcome.ACCEPTED, is_local=True
        )
        batch = Batch(room_nid=room.room_nid, events=(event,), now_ms=1, revision=revision)
        appended = await database.write(append, interner, cache, batch)
        remember_appended(interner, cache, appended)
        revision = appended.revision

    return once


def _message(room_id: RoomID, name: str) -> Pdu:
    content = {"msgtype": "m.text", "body": "x" * 60}
    return Pdu(
        event_id=EventID("$" + sha256(name.encode()).hexdigest()[:43]),
        room_id=room_id,
        sender=UserID("@alice:here"),
        type="m.room.message",
        origin_server_ts=1,
        depth=1,
        prev_events=(),
        auth_events=(),
        signatures={},
        content=content,
        json=orjson.dumps({"content": content, "padding": "x" * 500}),
    )
