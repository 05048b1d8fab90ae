"""Applies migrations to PostgreSQL: apart from `migrate`, so that SQLite's users never load the driver."""

from collections.abc import Sequence
from typing import Final

import psycopg

from ranvier.store.dialect import Engine
from ranvier.store.migrate import (
    APPLIED,
    TABLE,
    Migration,
    applying,
    check_upgrade,
    list_migrations,
    list_missing,
)
from ranvier.store.progress import telling

ADVISORY_LOCK: Final = 0x72616E76_69657200
"""Held by the process that migrates ("ranvier" in ASCII)."""

SCHEMA_CHANNEL: Final = "ranvier_schema"
"""Notified of each migration: processes that run look whether they know it."""

_NOTIFY: Final = f"NOTIFY {SCHEMA_CHANNEL}"


def migrate_postgres(
    conn: psycopg.Connection, migrations: Sequence[Migration] | None = None, *, upgrade: bool = True
) -> list[Migration]:
    """Apply what is missing; returns it. `conn` is in autocommit mode, and patient afterwards: for nothing else.
    `upgrade`: also where there is a schema already.

    Raises: SchemaTooNew; SchemaTooOld; psycopg.Error when a migration fails (nothing of that one remains).
    """
    known = list_migrations(Engine.POSTGRES) if migrations is None else migrations
    cursor = psycopg.RawCursor(conn)
    conn.execute("SET lock_timeout = 0; SET statement_timeout = 0")  # it takes as long as it takes
    _take_turn(cursor)
    try:
        cursor.execute(TABLE)
        rows = cursor.execute(APPLIED).fetchall()
        missing = list_missing(rows, known)
        check_upgrade(rows, missing, upgrade=upgrade)
        for number, migration in enumerate(missing, 1):
            with applying(rows, migration, number, len(missing)), conn.transaction():
                # Writers of earlier versions end their transactions, and find the migration in the next one.
                cursor.execute("LOCK TABLE migrations IN EXCLUSIVE MODE")
                cursor.execute(migration.sql.encode())
                cursor.execute("INSERT INTO migrations VALUES ($1, $2)", (migration.number, migration.name))
                cursor.execute(_NOTIFY)
        return missing
    finally:
        if not conn.closed:
            cursor.execute("SELECT pg_advisory_unlock($1)", (ADVISORY_LOCK,))


def _take_turn(cursor: psycopg.RawCursor[tuple[object, ...]]) -> None:
    (is_free,) = cursor.execute("SELECT pg_try_advisory_lock($1)", (ADVISORY_LOCK,)).fetchone() or (False,)
    if not is_free:
        with telling("waiting for another process that brings the database up to date"):
            cursor.execute("SELECT pg_advisory_lock($1)", (ADVISORY_LOCK,))
