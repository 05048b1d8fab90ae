"""What has been stored stays readable: schema files never change, and a database of any earlier version becomes one of
today's, with all that is in it."""

import hashlib
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from importlib import resources
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ranvier.store import sqlite
from ranvier.store.connect import open_database, parse_url
from ranvier.store.database import SchemaTooOld
from ranvier.store.dialect import Engine
from ranvier.store.migrate import Migration, list_migrations, migrate_sqlite
from ranvier.store.migrate_postgres import migrate_postgres
from ranvier.store.probe import probe

DIGESTS = Path(__file__).with_name("schema_digests.txt")
FOLDERS = ("schema", "schema_sync_v3_proxy")

ALL = {engine: list_migrations(engine) for engine in Engine}
ROWS = 3
"""In each table."""


def test_no_schema_file_changes() -> None:
    """A database that exists was made by the files as they were. Their words are in the digests, too: see `dialect`."""
    pinned = dict(reversed(line.split("  ")) for line in DIGESTS.read_text().splitlines())
    found = {
        f"{folder}/{migration.number:04}_{migration.name}.{engine.value}": hashlib.sha256(
            migration.sql.encode()
        ).hexdigest()
        for folder in FOLDERS
        for engine in Engine
        for migration in list_migrations(engine, resources.files("ranvier.store") / folder)
    }
    for name, digest in pinned.items():
        assert found.get(name) == digest, (
            f"{name} is not what it was: leave it as it is and add a new file instead"
        )
    new = "".join(f"{digest}  {name}\n" for name, digest in found.items() if name not in pinned)
    assert not new, f"from now on these may not change; add them to {DIGESTS.name}:\n{new}"


class Old:
    """A database that is as old as one wants; each row has the same number in all its columns."""

    def __init__(self, engine: Engine, url: str) -> None:
        self.engine, self.url = engine, url
        self._conn: Any = (
            sqlite.connect(Path(parse_url(url)[1]), writes=True) if self._is_file else _bare(url)
        )
        self.run("PRAGMA foreign_keys = OFF" if self._is_file else "SET session_replication_role = replica")

    @property
    def _is_file(self) -> bool:
        return self.engine is Engine.SQLITE

    def run(self, sql: str, values: Sequence[object] = ()) -> Any:
        return self._conn.execute(sql, values)

    def apply(self, migrations: Sequence[Migration]) -> None:
        (migrate_sqlite if self._is_file else migrate_postgres)(self._conn, migrations)

    def columns(self) -> Mapping[str, Sequence[tuple[str, str]]]:
        """Of each table the names and types."""
        sql = (
            "SELECT t.name, c.name, c.type FROM sqlite_master t, pragma_table_info(t.name) c WHERE t.type = 'table'"
            if self._is_file
            else "SELECT table_name, column_name, upper(data_type) FROM information_schema.columns"
            " WHERE table_schema = 'public' AND table_name IN (SELECT tablename FROM pg_tables)"
        )
        found: dict[str, list[tuple[str, str]]] = {}
        for table, column, kind in self.run(sql).fetchall():
            if table not in ("migrations", "newest_position") and not table.startswith("sqlite_"):
                found.setdefault(table, []).append((column, kind))
        return found

    def fill(self, tables: Mapping[str, Sequence[tuple[str, str]]]) -> None:
        mark = "?" if self._is_file else "%s"
        for table, columns in tables.items():
            names, marks = ", ".join(name for name, _ in columns), ", ".join(mark for _ in columns)
            for number in range(1, ROWS + 1):
                values = [_value(kind, number) for _, kind in columns]
                self.run(f"INSERT INTO {table} ({names}) VALUES ({marks})", values)

    def check(self, tables: Mapping[str, Sequence[tuple[str, str]]]) -> None:
        """What was filled is there as it was."""
        for table, columns in tables.items():
            names = ", ".join(name for name, _ in columns)
            found = {tuple(map(_plain, row)) for row in self.run(f"SELECT {names} FROM {table}").fetchall()}
            expected = {tuple(_value(kind, number) for _, kind in columns) for number in range(1, ROWS + 1)}
            assert found == expected, table

    def schema(self) -> set[tuple[str, ...]]:
        """Columns and indexes."""
        sql = (
            "SELECT name, COALESCE(sql, '') FROM sqlite_master WHERE type = 'index' AND name NOT LIKE 'sqlite_%'"
            if self._is_file
            else "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
        )
        indexes = {(name, re.sub(r"\s+", " ", text)) for name, text in self.run(sql).fetchall()}
        return indexes | {(table, *column) for table, columns in self.columns().items() for column in columns}

    def close(self) -> None:
        self._conn.close()


def _bare(url: str) -> psycopg.Connection:
    conn = psycopg.connect(url, autocommit=True)
    conn.execute("SET client_min_messages = warning; DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    return conn


def _value(kind: str, number: int) -> object:
    if kind in ("TEXT", "BLOB", "BYTEA"):
        return f"x{number}" if kind == "TEXT" else f"x{number}".encode()
    return number


def _plain(value: object) -> object:
    return bytes(value) if isinstance(value, memoryview) else value


@pytest.fixture
def open_old(engine: Engine, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[[], Old]]:
    """Opens an empty database, a different one each time on SQLite, the same one again on PostgreSQL."""
    opened: list[Old] = []
    url = ""
    if engine is Engine.POSTGRES:
        server = request.getfixturevalue("postgres_server")
        url = server.replace("/postgres?", "/upgrades?")
        with psycopg.connect(server, autocommit=True) as conn:
            conn.execute("DROP DATABASE IF EXISTS upgrades WITH (FORCE)")
            conn.execute("CREATE DATABASE upgrades TEMPLATE template0 ENCODING 'UTF8'")

    def open_one() -> Old:
        opened.append(Old(engine, url or f"sqlite:{tmp_path / f'{len(opened)}.db'}"))
        return opened[-1]

    yield open_one
    for old in opened:
        old.close()


def test_each_migration_keeps_what_was_there(open_old: Callable[[], Old], engine: Engine) -> None:
    """One file after the other, each table with rows in it as soon as there is one."""
    new = open_old()
    new.apply(ALL[engine])
    expected = new.schema()
    old = open_old()
    filled: dict[str, Sequence[tuple[str, str]]] = {}
    for count in range(1, len(ALL[engine]) + 1):
        old.apply(ALL[engine][:count])
        old.check(filled)
        added = {table: columns for table, columns in old.columns().items() if table not in filled}
        old.fill(added)
        filled |= added
    assert len(filled) > 90
    assert old.schema() == expected
    if engine is Engine.SQLITE:
        assert old.run("PRAGMA foreign_key_check").fetchall() == []


@pytest.mark.parametrize("engine", [Engine.SQLITE], indirect=True)
@pytest.mark.parametrize("count", range(1, len(ALL[Engine.SQLITE])))
def test_any_earlier_version_becomes_todays_at_once(
    open_old: Callable[[], Old], engine: Engine, count: int
) -> None:
    old = open_old()
    old.apply(ALL[engine][:count])
    tables = old.columns()
    old.fill(tables)
    old.apply(ALL[engine])
    old.check(tables)


async def test_only_the_server_brings_a_database_up_to_date(
    open_old: Callable[[], Old], engine: Engine
) -> None:
    """A command of a later version may meet a server of an earlier one that runs."""
    old = open_old()
    old.apply(ALL[engine][:-1])
    tables = old.columns()
    old.fill(tables)
    with pytest.raises(SchemaTooOld, match=r"without migration .* start `ranvier serve`"):
        await open_database(old.url, upgrade=False)
    old.check(tables)
    database = await open_database(old.url)
    await database.close()
    old.check(tables)
    again = await open_database(old.url, upgrade=False)
    await again.read(probe)
    await again.close()


async def test_commands_make_a_new_database(tmp_path: Path) -> None:
    database = await open_database(f"sqlite:{tmp_path / 'new.db'}", upgrade=False)
    await database.close()
    with closing(sqlite3.connect(tmp_path / "new.db")) as conn:
        assert conn.execute("SELECT COUNT(*) FROM migrations").fetchone() == (len(ALL[Engine.SQLITE]),)
