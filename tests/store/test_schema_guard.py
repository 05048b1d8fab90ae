"""A process that runs while a later version brings the database up to date writes no more, and says why; one that
starts meanwhile waits, and tells."""

import asyncio
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ranvier.store import progress, sqlite
from ranvier.store.connect import parse_url
from ranvier.store.database import Database, Hint, Kind, SchemaTooNew, WriteTxn
from ranvier.store.dialect import Engine
from ranvier.store.migrate import Migration, list_migrations, migrate_sqlite
from ranvier.store.migrate_postgres import ADVISORY_LOCK, migrate_postgres
from ranvier.store.probe import probe
from ranvier.store.progress import telling

PATIENCE_S = 60
LATER = Migration(9001, "later", "CREATE TABLE later (x INTEGER);")
TOLD = r"the database has migration 9001 \(later\)"


@contextmanager
def connected(engine: Engine, url: str) -> Iterator[Any]:
    opened: Any
    if engine is Engine.SQLITE:
        opened = sqlite3.connect(
            parse_url(url)[1], isolation_level=None, check_same_thread=False, timeout=0.01
        )
    else:
        opened = psycopg.connect(url, autocommit=True)
    with closing(opened):
        yield opened


def migrate(engine: Engine, url: str) -> None:
    """As a process of a later version does when it starts."""
    with connected(engine, url) as conn:
        run = migrate_sqlite if engine is Engine.SQLITE else migrate_postgres
        assert run(conn, [*list_migrations(engine), LATER]) == [LATER]


def note(txn: WriteTxn) -> int:
    position = txn.next_position()
    txn.execute("INSERT INTO servers (server_nid, server_name) VALUES (:nid, 'x')", nid=position)
    return position


def count_notes(engine: Engine, url: str) -> int:
    with connected(engine, url) as conn:
        return int(conn.execute("SELECT COUNT(*) FROM servers").fetchone()[0])


async def test_nothing_is_written_into_a_later_schema(
    db: Database, engine: Engine, database_url: str
) -> None:
    await db.write(note)
    await asyncio.to_thread(migrate, engine, database_url)
    results = await asyncio.gather(*(db.write(note) for _ in range(5)), return_exceptions=True)
    for told in results:
        with pytest.raises(SchemaTooNew, match=TOLD):
            raise told if isinstance(told, BaseException) else AssertionError("it was written")
    with pytest.raises(SchemaTooNew, match=TOLD):
        await db.read(probe)
    assert count_notes(engine, database_url) == 1


async def test_a_process_that_does_nothing_finds_out(db: Database, engine: Engine, database_url: str) -> None:
    """Whoever waits for changes is woken, and told when it looks for them."""
    woken = asyncio.Event()
    heard: list[Hint] = []
    db.subscribe(lambda hints: (heard.extend(hints), woken.set()))
    await asyncio.to_thread(migrate, engine, database_url)
    async with asyncio.timeout(PATIENCE_S):
        await woken.wait()
    assert {hint.kind for hint in heard} == {Kind.GAP}
    with pytest.raises(SchemaTooNew, match=TOLD):
        await db.read(probe)


@pytest.mark.parametrize("engine", [Engine.POSTGRES], indirect=True)
async def test_a_migration_sees_what_was_being_written(
    db: Database, engine: Engine, database_url: str
) -> None:
    """No transaction of an earlier version ends after a migration that did not see it. (SQLite has one writer.)"""
    may_end, order = threading.Event(), []

    def slow(txn: WriteTxn) -> None:
        note(txn)
        may_end.wait(PATIENCE_S)
        order.append("written")

    writing = asyncio.create_task(db.write(slow))
    migrating = asyncio.create_task(asyncio.to_thread(migrate, engine, database_url))
    migrating.add_done_callback(lambda _: order.append("migrated"))
    with connected(engine, database_url) as conn:
        sql = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'migrations'::regclass"
        await eventually(lambda: migrating.done() or conn.execute(sql).fetchone())
    may_end.set()
    await asyncio.gather(writing, migrating)
    assert order == ["written", "migrated"]
    with pytest.raises(SchemaTooNew):
        await db.write(note)


async def test_who_starts_during_a_migration_waits_and_tells(
    db: Database, engine: Engine, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with connected(engine, database_url) as other:
        sqls = {
            Engine.SQLITE: ("BEGIN IMMEDIATE", "COMMIT"),
            Engine.POSTGRES: [f"SELECT pg_advisory{kind}lock({ADVISORY_LOCK})" for kind in ("_", "_un")],
        }
        begin, end = sqls[engine]
        other.execute(begin)
        starting = asyncio.create_task(asyncio.to_thread(migrate, engine, database_url))
        await eventually(lambda: starting.done() or "waiting" in caplog.text)
        assert not starting.done()
        other.execute(end)
    await starting
    assert "bringing the database up to date: 9001 (later), 1 of 1" in caplog.text


def test_a_new_database_tells_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with closing(sqlite.connect(tmp_path / "new.db", writes=True)) as conn:
        migrate_sqlite(conn)
    assert caplog.text == ""


async def test_a_long_work_tells_again_and_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "REMIND_S", 0.001)
    caplog.set_level(logging.INFO)
    threads = threading.active_count()
    with telling("a long work"):
        await eventually(lambda: len(caplog.records) > 3)
    assert caplog.records[0].getMessage() == "a long work"
    assert {one.getMessage() for one in caplog.records[1:]} == {"a long work: for 0 s by now"}
    assert threading.active_count() == threads


async def eventually(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
