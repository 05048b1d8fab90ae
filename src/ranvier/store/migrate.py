"""Brings a database to the schema of this program, one numbered file after the other.

    schema/0007_name.sql                both engines, in the words of `dialect`
    schema/0007_name.sqlite.sql         one engine only, together with …
    schema/0007_name.postgres.sql       … the other one

A file is never edited; a change is a new file. Each file is applied in one transaction together with the row that
records it. Two processes that start at once take turns, and one that runs meanwhile writes no more when it finds a
later schema (`schema_guard`). PostgreSQL's side of it: `migrate_postgres`.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

import msgspec

from ranvier.store.database import SchemaTooNew, SchemaTooOld
from ranvier.store.dialect import Engine, schema
from ranvier.store.progress import telling

APPLIED: Final = "SELECT number, name FROM migrations ORDER BY number"
TABLE: Final = "CREATE TABLE IF NOT EXISTS migrations (number INTEGER PRIMARY KEY, name TEXT NOT NULL)"


class Migration(msgspec.Struct, frozen=True):
    number: int
    name: str
    sql: str


def list_migrations(engine: Engine, folder: Traversable | None = None) -> list[Migration]:
    """Every migration of this program for one engine, by number.

    Raises: ValueError when a file name is malformed, or a number is used twice.
    """
    found: dict[int, Migration] = {}
    for file in (folder or resources.files("ranvier.store") / "schema").iterdir():
        if not file.name.endswith(".sql"):
            continue
        number, _, rest = file.name.removesuffix(".sql").partition("_")
        name, _, only = rest.partition(".")
        if not (
            number.isdecimal() and len(number) == 4 and name and only in ("", *(e.value for e in Engine))
        ):
            raise ValueError(f"not the name of a migration: {file.name}")
        if only in ("", engine.value):
            if int(number) in found:
                raise ValueError(f"two migrations have the number {number}")
            found[int(number)] = Migration(int(number), name, schema(file.read_text("utf-8"), engine))
    return [found[number] for number in sorted(found)]


def list_proxy_migrations(engine: Engine) -> list[Migration]:
    """Those of the database of a proxy for sync v3: positions and sessions as here, and tables of its own."""
    shared = [one for one in list_migrations(engine) if one.name in ("positions", "sync_v3")]
    return shared + list_migrations(engine, resources.files("ranvier.store") / "schema_sync_v3_proxy")


def migrate_sqlite(
    conn: sqlite3.Connection, migrations: Sequence[Migration] | None = None, *, upgrade: bool = True
) -> list[Migration]:
    """Apply what is missing; returns it. `conn` is in autocommit mode. `upgrade`: also where there is a schema already.

    Raises: SchemaTooNew; SchemaTooOld; sqlite3.Error when a migration fails (nothing of that one remains).
    """
    known = list_migrations(Engine.SQLITE) if migrations is None else migrations
    conn.execute(TABLE)
    rows = conn.execute(APPLIED).fetchall()
    missing = list_missing(rows, known)
    check_upgrade(rows, missing, upgrade=upgrade)
    applied: list[Migration] = []
    for number, migration in enumerate(missing, 1):
        # The write lock is the lock: whoever comes second finds the row that the first one wrote.
        _begin(conn)
        try:
            if migration in list_missing(conn.execute(APPLIED).fetchall(), known):
                with applying(rows, migration, number, len(missing)):
                    for statement in _statements(migration.sql):
                        conn.execute(statement)
                    conn.execute("INSERT INTO migrations VALUES (?, ?)", (migration.number, migration.name))
                applied.append(migration)
            conn.execute("COMMIT")
        except BaseException:
            if conn.in_transaction:
                conn.execute("ROLLBACK")
            raise
    return applied


def _begin(conn: sqlite3.Connection) -> None:
    """Take the write lock, however long another process needs for its own migration."""
    if not _tries_to_begin(conn):
        with telling("waiting to bring the database up to date: another process writes to it"):
            while not _tries_to_begin(conn):
                pass


def _tries_to_begin(conn: sqlite3.Connection) -> bool:
    """Take the write lock, unless another process keeps it for as long as the connection has patience."""
    try:
        conn.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        return False
    return True


@contextmanager
def applying(
    rows: Sequence[tuple[int, str]], migration: Migration, number: int, count: int
) -> Iterator[None]:
    """Tell of a migration while it runs, unless the database is new: then each takes a moment."""
    if not rows:
        yield
        return
    with telling(
        f"bringing the database up to date: {migration.number:04} ({migration.name}), {number} of {count}"
    ):
        yield


def check_upgrade(rows: Sequence[tuple[int, str]], missing: Sequence[Migration], *, upgrade: bool) -> None:
    """Raises SchemaTooOld when a database has a schema, lacks migrations, and is not to be brought up to date."""
    if rows and missing and not upgrade:
        raise SchemaTooOld(
            f"the database is that of an earlier version, without migration {missing[0].number:04} "
            f"({missing[0].name}): start `ranvier serve`, which brings it up to date"
        )


def check_known(rows: Sequence[tuple[int, str]], known: Sequence[Migration]) -> None:
    """Raises SchemaTooNew when a database's rows name a migration that is not among `known`."""
    names = {migration.number: migration.name for migration in known}
    for number, name in rows:
        if names.get(number) != name:
            raise SchemaTooNew(
                f"the database has migration {number:04} ({name}), which this version does not know; "
                "start the version that made it, or a later one"
            )


def list_missing(rows: Sequence[tuple[int, str]], known: Sequence[Migration]) -> list[Migration]:
    """The migrations of `known` that no row records. Raises: SchemaTooNew."""
    check_known(rows, known)
    applied = {number for number, _ in rows}
    return [migration for migration in known if migration.number not in applied]


def _statements(sql: str) -> list[str]:
    """Cut a file where statements end. (`executescript` would commit first.)"""
    statements: list[str] = []
    current = ""
    for line in sql.splitlines(keepends=True):
        current += line
        if sqlite3.complete_statement(current):
            statements.append(current)
            current = ""
    if _has_code(current):
        raise ValueError(f"a statement without its semicolon: {current.strip()[:80]!r}")
    return statements


def _has_code(sql: str) -> bool:
    return any(line.strip() and not line.strip().startswith("--") for line in sql.splitlines())
