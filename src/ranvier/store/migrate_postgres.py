"""Applies migrations to PostgreSQL: apart from `migrate`, so that SQLite's users never load the driver."""

from collections.abc import Sequence
from typing import Final

import psycopg

from ranvier.store.dialect import Engine
from ranvier.store.migrate import APPLIED, TABLE, Migration, list_migrations, list_missing

ADVISORY_LOCK: Final = 0x72616E76_69657200
"""Held by the process that migrates ("ranvier" in ASCII)."""


def migrate_postgres(
    conn: psycopg.Connection, migrations: Sequence[Migration] | None = None
) -> list[Migration]:
    """Apply what is missing; returns it. `conn` is in autocommit mode.

    Raises: SchemaTooNew; psycopg.Error when a migration fails (nothing of that one remains).
    """
    known = list_migrations(Engine.POSTGRES) if migrations is None else migrations
    cursor = psycopg.RawCursor(conn)
    cursor.execute("SELECT pg_advisory_lock($1)", (ADVISORY_LOCK,))
    try:
        cursor.execute(TABLE)
        missing = list_missing(cursor.execute(APPLIED).fetchall(), known)
        for migration in missing:
            with conn.transaction():
                cursor.execute(migration.sql.encode())
                cursor.execute("INSERT INTO migrations VALUES ($1, $2)", (migration.number, migration.name))
        return missing
    finally:
        if not conn.closed:
            cursor.execute("SELECT pg_advisory_unlock($1)", (ADVISORY_LOCK,))
