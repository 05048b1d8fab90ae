"""Each migration is applied once, whole or not at all, and never under the feet of a newer program."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from ranvier.store import postgres, sqlite
from ranvier.store.connect import BadDatabaseUrl, open_database, parse_url
from ranvier.store.database import SchemaTooNew, StoreFault, Unavailable
from ranvier.store.dialect import Engine
from ranvier.store.migrate import (
    Migration,
    list_migrations,
    migrate_sqlite,
)
from ranvier.store.migrate_postgres import migrate_postgres

from ..postgres import PostgresDatabase

ONE = Migration(9001, "one", "CREATE TABLE one (x INTEGER); -- first\nINSERT INTO one VALUES (1);\n")
BAD = Migration(9002, "bad", "CREATE TABLE two (x INTEGER);\nINSERT INTO nowhere VALUES (1);\n")
TWO = Migration(9002, "two", "CREATE TABLE two (x INTEGER);\n")


@pytest.fixture
def conn(engine: Engine, database_url: str) -> Iterator[sqlite3.Connection | psycopg.Connection]:
    is_file = engine is Engine.SQLITE
    opened = (
        sqlite.connect(Path(parse_url(database_url)[1]), writes=True)
        if is_file
        else postgres.connect(database_url)
    )
    if not is_file:
        opened.execute("ALTER TABLE migrations RENAME TO kept_migrations")
    yield opened
    if not is_file:
        opened.execute("DROP TABLE IF EXISTS migrations, one, two")
        opened.execute("ALTER TABLE kept_migrations RENAME TO migrations")
    opened.close()


def migrate(conn: sqlite3.Connection | psycopg.Connection, migrations: list[Migration]) -> list[Migration]:
    run = migrate_sqlite if isinstance(conn, sqlite3.Connection) else migrate_postgres
    return run(conn, migrations)


def test_what_is_missing_is_applied_once(conn):
    assert migrate(conn, [ONE]) == [ONE]
    assert migrate(conn, [ONE]) == []
    assert migrate(conn, [ONE, TWO]) == [TWO]
    assert conn.execute("SELECT x FROM one").fetchall() == [(1,)]
    assert conn.execute("SELECT number, name FROM migrations").fetchall() == [(9001, "one"), (9002, "two")]


def test_a_migration_that_fails_leaves_nothing(conn):
    with pytest.raises((sqlite3.Error, psycopg.Error)):
        migrate(conn, [ONE, BAD])
    assert migrate(conn, [ONE, TWO]) == [TWO]


@pytest.mark.parametrize("later", [[ONE], [ONE, BAD]])
def test_a_newer_schema_is_refused(conn, later):
    migrate(conn, [ONE, TWO])
    with pytest.raises(SchemaTooNew, match=r"migration 9002 \(two\)"):
        migrate(conn, later)


async def test_processes_that_start_at_once_take_turns(engine: Engine, tmp_path: Path, request):
    if engine is Engine.SQLITE:
        url = f"sqlite:{tmp_path / 'new.db'}"
    else:
        server = request.getfixturevalue("postgres_server")
        with psycopg.connect(server, autocommit=True) as conn:
            conn.execute("DROP DATABASE IF EXISTS starting")
            conn.execute("CREATE DATABASE starting TEMPLATE template0")
        url = server.replace("/postgres?", "/starting?")
    opened = await asyncio.gather(*(open_database(url) for _ in range(3)))
    for database in opened:
        await database.write(lambda txn: txn.next_position())
        await database.close()


@pytest.mark.parametrize("engine", list(Engine))
def test_files_are_well_formed_and_the_same_for_both(engine):
    ours, theirs = list_migrations(engine), list_migrations(Engine.SQLITE)
    assert [(m.number, m.name) for m in ours] == [(m.number, m.name) for m in theirs]
    assert ours[0].name == "positions"


def test_both_engines_have_the_same_tables_and_indexes(tmp_path: Path, postgres_database: PostgresDatabase):
    """But for what SQLite numbers changes with."""
    with contextlib.closing(sqlite.connect(tmp_path / "new.db", writes=True)) as conn:
        migrate_sqlite(conn)
        columns = conn.execute(
            """SELECT t.name, c.name, c."notnull" OR c.pk, c.pk > 0 FROM sqlite_master t, pragma_table_info(t.name) c
            WHERE t.type = 'table' AND t.name NOT IN ('sqlite_stat1', 'newest_position')"""
        ).fetchall()
        indexes = conn.execute(
            """SELECT t.name, i.name, i."unique", i.partial FROM sqlite_master t, pragma_index_list(t.name) i
            WHERE t.type = 'table' AND i.origin = 'c'"""
        ).fetchall()
    with psycopg.connect(postgres_database.url) as conn:
        theirs = conn.execute(
            """SELECT c.relname, a.attname, a.attnotnull, a.attnum = ANY(COALESCE(p.indkey, ''))
            FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
            LEFT JOIN pg_index p ON p.indrelid = c.oid AND p.indisprimary
            WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace"""
        ).fetchall()
        their_indexes = conn.execute(
            """SELECT c.relname, x.relname, i.indisunique, i.indpred IS NOT NULL
            FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_class x ON x.oid = i.indexrelid
            WHERE c.relnamespace = 'public'::regnamespace
                AND NOT EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = x.oid)"""
        ).fetchall()
    assert set(columns) ^ set(theirs) == set()
    assert set(indexes) ^ set(their_indexes) == set()


@pytest.mark.parametrize("name", ["1_a.sql", "0001.sql", "0001_a.mysql.sql", "00x1_a.sql"])
def test_bad_names_are_refused(tmp_path: Path, name: str):
    (tmp_path / name).write_text("")
    with pytest.raises(ValueError, match="not the name"):
        list_migrations(Engine.SQLITE, tmp_path)


def test_a_number_used_twice_is_refused(tmp_path: Path):
    for name in ("0001_a.sql", "0001_b.sqlite.sql"):
        (tmp_path / name).write_text("")
    with pytest.raises(ValueError, match="two migrations"):
        list_migrations(Engine.SQLITE, tmp_path)


@pytest.mark.parametrize(
    "url", ["", "sqlite:", "sqlite::memory:", "mysql://x", "postgresql:x", "ranvier.db", "sqlite:///"]
)
def test_bad_urls_are_refused_without_repeating_them(url):
    with pytest.raises(BadDatabaseUrl, match="a database is"):
        parse_url(url)


@pytest.mark.parametrize("path", ["a.db", "/a/b.db"])
def test_sqlite_urls(path):
    assert parse_url(f"sqlite:{path}") == (Engine.SQLITE, path)
    assert parse_url("sqlite:///a.db") == (Engine.SQLITE, "/a.db")


async def test_what_cannot_be_opened_is_unavailable(tmp_path: Path):
    for url in (f"sqlite:{tmp_path / 'no' / 'dir.db'}", f"postgresql://nobody@/none?host={tmp_path}"):
        with pytest.raises(Unavailable):
            await open_database(url)
    (tmp_path / "text.db").write_text("not a database, but a text of some length" * 100)
    with pytest.raises(StoreFault):
        await open_database(f"sqlite:{tmp_path / 'text.db'}")
