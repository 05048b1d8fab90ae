"""What must not be used again of a database that was restored from a copy: docs/adr/0004-end-to-end-encryption.md.

A copy does not know what happened after it was made: which one-time keys were given out, which positions clients
and other servers were told. So keys are not in it, and positions begin anew far above those that were given out.
"""

import contextlib
import sqlite3
from pathlib import Path
from typing import Final

from ranvier.store.connect import open_database, parse_url
from ranvier.store.database import WriteTxn
from ranvier.store.dialect import Engine
from ranvier.store.sqlite import connect, fault

SKIPPED_POSITIONS: Final = 2**32
"""More than a server gives out between two backups: at 1,000 a second, in 50 days. There is room for 2,000 of them
(`core.tokens.MAX_POSITION`)."""

_FORGET: Final = (
    "DELETE FROM one_time_keys",
    # Their devices upload new ones.
    "UPDATE fallback_keys SET is_used = 1",
    # Updates that came in the meantime are missing.
    "UPDATE remote_device_lists SET needs_resync = 1, retry_ms = 0",
)
_SKIP_SQLITE: Final = "UPDATE newest_position SET position = position + ?"
_SKIP_POSTGRES: Final = "SELECT setval('positions', nextval('positions') + :skipped)"


def forget_given_out(conn: sqlite3.Connection) -> None:
    """Make a copy of a database fit to go on with. Nobody else may be using it. Raises: sqlite3.Error."""
    conn.execute("BEGIN IMMEDIATE")
    for sql in _FORGET:
        conn.execute(sql)
    conn.execute(_SKIP_SQLITE, (SKIPPED_POSITIONS,))
    conn.execute("COMMIT")


async def note_restored(url: str) -> None:
    """Make a database that was restored in whatever way fit to go on with. No server may be using it.

    Raises: BadDatabaseUrl; StoreFault.
    """
    database = await open_database(url)  # which brings its schema up to date
    try:
        if parse_url(url)[0] is Engine.POSTGRES:
            await database.write(_forget_in_postgres)
    finally:
        await database.close()
    engine, address = parse_url(url)
    if engine is Engine.SQLITE:
        with contextlib.closing(connect(Path(address), writes=True)) as conn:
            try:
                forget_given_out(conn)
            except sqlite3.Error as error:
                raise fault(error) from error


def _forget_in_postgres(txn: WriteTxn) -> None:
    for sql in _FORGET:
        txn.execute(sql)
    txn.value(_SKIP_POSTGRES, skipped=SKIPPED_POSITIONS)
