"""What every caller of a database relies on, on both engines."""

import asyncio
import gc
import logging
import weakref
from contextlib import suppress

import psycopg
import pytest

from ranvier.core.errors import BadText
from ranvier.store import sqlite, threads
from ranvier.store.connect import open_database
from ranvier.store.database import (
    Conflict,
    Database,
    Hint,
    Integrity,
    Kind,
    ReadTxn,
    StoreFault,
    Unavailable,
    WriteTxn,
)
from ranvier.store.dialect import Engine
from ranvier.store.positions import Observation
from ranvier.store.postgres import Link


@pytest.fixture
async def notes(db: Database) -> Database:
    await db.write(lambda txn: txn.execute("CREATE TABLE notes (id {int} PRIMARY KEY, text {text} NOT NULL)"))
    return db


def note(txn: WriteTxn, text: str) -> int:
    position = txn.next_position()
    txn.execute("INSERT INTO notes (id, text) VALUES (:id, :text)", id=position, text=text)
    txn.hint(Kind.ROOM, 7)
    return position


def texts(txn: ReadTxn) -> list[str]:
    return [text for (text,) in txn.all("SELECT text FROM notes WHERE id <= :p ORDER BY id", p=txn.position)]


class Refused(Exception):
    pass


def note_and_refuse(txn: WriteTxn, error: BaseException) -> None:
    note(txn, "never seen")
    txn.hint(Kind.USER, 1)
    raise error


class Burden:
    """What a job works on."""


def refuse(_txn: ReadTxn, _burden: Burden, error: type[BaseException]) -> None:
    raise error("no")


@pytest.mark.parametrize("error", [Refused, Conflict, StopIteration])
async def test_what_fails_leaves_nothing_in_memory(notes: Database, error: type[BaseException]):
    """Not even until cycles are looked for, which is rare: a client may make it fail as often as it likes."""
    gc.disable()
    try:
        for run in (notes.read, notes.write):
            burden, gone = Burden(), asyncio.Event()
            weakref.finalize(burden, asyncio.get_running_loop().call_soon_threadsafe, gone.set)
            with suppress(error, RuntimeError):
                await run(refuse, burden, error)
            del burden
            # A thread puts a job out of its hand after it has handed the outcome over.
            async with asyncio.timeout(20):
                await gone.wait()
    finally:
        gc.enable()


async def test_a_write_is_read_and_told_of(notes: Database):
    heard: list[Hint] = []
    notes.subscribe(heard.extend)
    position = await notes.write(note, "one")
    assert notes.position() == position
    assert await notes.read(texts) == ["one"]
    assert heard == [Hint(Kind.ROOM, 7, position)]


async def test_writes_take_effect_in_the_order_of_the_calls(notes: Database):
    positions = await asyncio.gather(*(notes.write(note, str(n)) for n in range(600)))
    assert positions == sorted(set(positions))
    assert await notes.read(texts) == [str(n) for n in range(600)]


async def test_a_failure_strikes_its_own_write_only(notes: Database):
    heard: list[Hint] = []
    notes.subscribe(heard.extend)
    results = await asyncio.gather(
        notes.write(note, "before"),
        notes.write(note_and_refuse, Refused()),
        notes.write(note_and_refuse, Conflict("changed")),
        notes.write(note_and_refuse, StopIteration()),
        notes.write(lambda txn: txn.execute("INSERT INTO notes (id, text) VALUES (-1, NULL)")),
        notes.write(lambda txn: txn.execute("SELECT nonsense")),
        notes.write(note, "after"),
        return_exceptions=True,
    )
    kinds = [type(result) for result in results]
    assert kinds == [int, Refused, Conflict, RuntimeError, Integrity, StoreFault, int]
    assert await notes.read(texts) == ["before", "after"]
    assert {hint.kind for hint in heard} == {Kind.ROOM}


@pytest.mark.parametrize("takes_position", [False, True])
async def test_who_is_answered_has_been_told_of_what_it_wrote(db: Database, takes_position: bool):
    """The next request must not be served from what the write made stale."""
    heard: list[Hint] = []
    db.subscribe(heard.extend)

    def change(txn: WriteTxn, key: int) -> None:
        txn.hint(Kind.SESSION, key)
        if takes_position:
            txn.next_position()

    for key in range(20):
        await db.write(change, key)
        assert [hint.key for hint in heard] == list(range(key + 1))


@pytest.mark.parametrize("engine", [Engine.POSTGRES], ids=["postgres"], indirect=True)
async def test_a_failure_leaves_statements_prepared(notes: Database):
    """Else each refusal would have the next hundred statements parsed and planned again."""
    prepared = "SELECT COUNT(*) FROM pg_prepared_statements WHERE statement LIKE 'SELECT text%'"
    for _ in range(4):
        await notes.write(texts)
    assert await notes.write(lambda txn: txn.value(prepared)) == 1
    results = await asyncio.gather(
        notes.write(note_and_refuse, Refused()), notes.write(note, "beside"), return_exceptions=True
    )
    assert isinstance(results[0], Refused)
    with pytest.raises(Refused):
        await notes.write(note_and_refuse, Refused())
    assert await notes.write(lambda txn: txn.value(prepared)) == 1


async def test_a_text_that_an_engine_cannot_hold_is_no_fault_of_ours(notes: Database):
    for ask in (notes.read, notes.write):
        with suppress(BadText):
            assert (
                await ask(lambda txn: txn.all("SELECT id FROM notes WHERE text = :text", text="a\0b")) == []
            )
    assert await notes.write(note, "after")


async def test_a_read_sees_one_moment(notes: Database):
    await notes.write(note, "one")
    loop = asyncio.get_running_loop()
    began, go_on = asyncio.Event(), loop.create_future()

    def look_twice(txn: ReadTxn) -> tuple[list[str], list[str], int]:
        first = texts(txn)
        loop.call_soon_threadsafe(began.set)
        asyncio.run_coroutine_threadsafe(_wait(go_on), loop).result(10)
        return first, [text for (text,) in txn.all("SELECT text FROM notes")], txn.position

    before = notes.position()
    reading = asyncio.create_task(notes.read(look_twice))
    await began.wait()
    await notes.write(note, "two")
    go_on.set_result(None)
    assert await reading == (["one"], ["one"], before)
    assert await notes.read(texts) == ["one", "two"]


async def _wait(future: asyncio.Future[None]) -> None:
    await future


async def test_a_reading_function_cannot_write(notes: Database):
    with pytest.raises(StoreFault):
        await notes.read(lambda txn: txn.all("INSERT INTO notes (id, text) VALUES (1, 'x') RETURNING id"))


async def test_a_cancelled_caller_does_not_undo(notes: Database, caplog: pytest.LogCaptureFixture):
    writing = [
        asyncio.create_task(notes.write(note, "kept")),
        asyncio.create_task(notes.write(note_and_refuse, Refused())),
    ]
    await asyncio.sleep(0)
    for task in writing:
        task.cancel()
    with caplog.at_level(logging.WARNING):
        await notes.write(note, "later")
    assert await notes.read(texts) == ["kept", "later"]
    assert "after its caller had gone" in caplog.text


async def test_too_many_waiting_are_refused(notes: Database, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(threads, "MAX_WAITING", 5)
    for call, fn in ((notes.write, lambda txn: 1), (notes.read, lambda txn: 1)):
        results = await asyncio.gather(*(call(fn) for _ in range(8)), return_exceptions=True)
        assert [type(result) for result in results] == [int] * 5 + [Unavailable] * 3
        assert await call(fn) == 1


async def test_closing_finishes_what_waits(notes: Database, database_url: str):
    writing = [asyncio.create_task(notes.write(note, str(n))) for n in range(20)]
    await asyncio.sleep(0)
    await asyncio.gather(notes.close(), notes.close())
    assert len({await task for task in writing}) == 20
    for call in (notes.read, notes.write):
        with pytest.raises(Unavailable):
            await call(texts)
    await notes.close()


async def test_a_failing_subscriber_harms_nobody(notes: Database, caplog: pytest.LogCaptureFixture):
    heard: list[Hint] = []

    def fail(_: object) -> None:
        raise Refused

    notes.subscribe(fail)
    notes.subscribe(heard.extend)
    await notes.write(note, "one")
    assert heard
    assert "a subscriber failed" in caplog.text


@pytest.mark.parametrize("engine", [Engine.SQLITE], ids=["sqlite"], indirect=True)
async def test_a_commit_that_fails_acknowledges_nothing(notes: Database):
    await notes.write(
        lambda txn: txn.execute("CREATE TABLE late (id REFERENCES notes(id) DEFERRABLE INITIALLY DEFERRED)")
    )
    results = await asyncio.gather(
        notes.write(note, "innocent"),
        notes.write(lambda txn: txn.execute("INSERT INTO late (id) VALUES (12345)")),
        return_exceptions=True,
    )
    assert [type(result) for result in results] == [Unavailable, Unavailable]
    assert await notes.read(texts) == []
    assert await notes.write(note, "next")
    assert await notes.read(texts) == ["next"]


@pytest.mark.parametrize("engine", [Engine.SQLITE], ids=["sqlite"], indirect=True)
async def test_a_full_disk_is_told_and_survived(notes: Database):
    (pages,) = await notes.write(lambda txn: txn.first("PRAGMA page_count"))
    await notes.write(lambda txn: txn.value(f"PRAGMA max_page_count = {pages + 5}"))
    results = await asyncio.gather(
        notes.write(note, "small"), notes.write(note, "x" * 200_000), return_exceptions=True
    )
    assert isinstance(results[1], Unavailable)
    await notes.write(lambda txn: txn.value("PRAGMA max_page_count = 1000000"))
    kept = ["small"] if isinstance(results[0], int) else []
    assert await notes.read(texts) == kept
    await notes.write(note, "y" * 200_000)


@pytest.mark.parametrize("engine", [Engine.SQLITE], ids=["sqlite"], indirect=True)
async def test_the_log_of_sqlite_stays_bounded(notes: Database, monkeypatch: pytest.MonkeyPatch, tmp_path):
    await notes.close()
    monkeypatch.setattr(sqlite, "MAX_WAL_BYTES", 1_000_000)
    monkeypatch.setattr(sqlite, "CHECKPOINT_PAGES", 1_000_000)
    database = await open_database(f"sqlite:{tmp_path / 'ranvier.db'}")
    for _ in range(20):
        await database.write(note, "z" * 100_000)
    await database.read(texts)
    assert (tmp_path / "ranvier.db-wal").stat().st_size < 1_500_000
    await database.close()


@pytest.mark.parametrize("engine", [Engine.POSTGRES], ids=["postgres"], indirect=True)
async def test_lost_connections_are_opened_again(notes: Database):
    heard: list[Hint] = []
    notes.subscribe(heard.extend)
    await notes.write(note, "one")
    kill = (
        "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = 'ranvier'"
    )
    assert await notes.read(lambda txn: txn.value(kill)) >= 2
    await notes.write(note, "two")
    await notes.write(lambda txn: txn.value(kill))
    assert await notes.read(texts) == ["one", "two"]


@pytest.mark.parametrize("engine", [Engine.POSTGRES], ids=["postgres"], indirect=True)
async def test_what_collides_between_processes_is_run_again(notes: Database, open_another):
    other = await open_another()
    await notes.write(lambda txn: txn.execute("INSERT INTO notes (id, text) VALUES (0, '0')"))

    def add_one(txn: WriteTxn) -> None:
        count = int(txn.value("SELECT text FROM notes WHERE id = 0"))
        txn.execute("UPDATE notes SET text = :text WHERE id = 0", text=str(count + 1))

    await asyncio.gather(*(database.write(add_one) for database in (notes, other) for _ in range(40)))
    assert await other.read(lambda txn: txn.value("SELECT text FROM notes WHERE id = 0")) == "80"


async def test_another_process_is_heard_of(notes: Database, open_another):
    """Told by its own hints on PostgreSQL, and found as a gap on SQLite."""
    other = await open_another()
    woken = asyncio.Event()
    heard: list[Hint] = []
    notes.subscribe(lambda hints: (heard.extend(hints), woken.set()))
    position = await other.write(note, "from outside")
    async with asyncio.timeout(60):
        await woken.wait()
    assert notes.position() >= position
    assert {hint.kind for hint in heard} <= {Kind.ROOM, Kind.GAP}
    assert await notes.read(texts) == ["from outside"]
    assert await notes.write(note, "own") > position


@pytest.mark.parametrize("engine", [Engine.POSTGRES], ids=["postgres"], indirect=True)
@pytest.mark.parametrize("reached_the_server", [True, False])
async def test_a_commit_without_an_answer_takes_effect_once(
    notes: Database, database_url: str, monkeypatch: pytest.MonkeyPatch, reached_the_server: bool
):
    """The connection breaks around a COMMIT: the server knows what became of it, and the caller is told that."""
    broken = []
    observe = Link.observe

    def break_once(link: Link, sql: bytes, skip: int = 0) -> Observation:
        if skip == 0 or broken:
            return observe(link, sql, skip)
        broken.append(link)
        if reached_the_server:
            observe(link, sql, skip)
        with psycopg.connect(database_url, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", (link.conn.info.backend_pid,))
        return observe(link, sql, skip)

    monkeypatch.setattr(Link, "observe", break_once)
    position = await notes.write(note, "once")
    assert broken
    assert await notes.read(lambda txn: txn.all("SELECT id, text FROM notes")) == [(position, "once")]
    assert await notes.write(note, "next") > position
