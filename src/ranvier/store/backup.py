"""Copies a SQLite database to a file while a server is writing to it, and checks such a file.

The copy is one moment's snapshot. While it is made the server goes on; only its write-ahead log cannot
shrink. The file appears under its name when it is whole, checked and on disk, and not before. (PostgreSQL has
pg_dump.)

What must not be given out twice is not in the copy: `restored`.
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ranvier.store.database import StoreFault
from ranvier.store.dialect import Engine
from ranvier.store.migrate import check_known, list_migrations
from ranvier.store.restored import forget_given_out
from ranvier.store.sqlite import connect, fault

PAGES_A_STEP: Final = 2_000

MAX_PROBLEMS: Final = 100


class BackupFailed(StoreFault):
    """There is no new file. The message says why."""


def back_up(source: Path, target: Path, tell: Callable[[int, int], None] | None = None) -> None:
    """Copy the database `source` to the file `target`, replacing it. `tell(done, all)` hears of pages copied.

    Raises: BackupFailed; Unavailable when the source cannot be opened
    """
    if not source.is_file():
        raise BackupFailed(f"there is no database at {source}")
    partial = target.with_name(f"{target.name}.partial")
    try:
        # Accounts and keys: for the owner's eyes. Whoever makes the same backup at this moment fails here.
        os.close(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise BackupFailed(f"cannot write {partial}: {error.strerror}") from error
    try:
        _copy(source, partial, tell)
        with contextlib.closing(sqlite3.connect(partial, isolation_level=None)) as copy:
            copy.execute("PRAGMA journal_mode = DELETE").fetchall()
            forget_given_out(copy)
        if problems := check(partial):
            raise BackupFailed(f"the copy is damaged: {problems[0]}")
        _sync(partial)
        partial.rename(target)
        _sync(target.parent)
    except sqlite3.Error as error:
        raise fault(error) from error
    except OSError as error:
        raise BackupFailed(f"cannot write {target}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


def _copy(source: Path, partial: Path, tell: Callable[[int, int], None] | None) -> None:
    with contextlib.closing(connect(source)) as conn, contextlib.closing(sqlite3.connect(partial)) as copy:
        # In a transaction of its own the copy is of one moment. Without it, each write of the server would
        # make it start again, and a busy server's backup would never end.
        conn.execute("BEGIN")
        conn.execute("SELECT COUNT(*) FROM migrations").fetchall()
        progress = None if tell is None else lambda _, left, total: tell(total - left, total)
        conn.backup(copy, pages=PAGES_A_STEP, progress=progress, sleep=0)
        conn.execute("COMMIT")


def check(file: Path) -> list[str]:
    """What is wrong with a database file that nobody is writing to; empty when it is sound.

    Reads all of it. Raises nothing: a file that cannot be read is a problem too.
    """
    try:
        uri = f"{file.resolve().as_uri()}?mode=ro&immutable=1"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as conn:
            damage = conn.execute(f"PRAGMA integrity_check({MAX_PROBLEMS})").fetchall()
            if damage != [("ok",)]:
                return [str(line) for (line,) in damage]
            dangling = conn.execute("PRAGMA foreign_key_check").fetchmany(MAX_PROBLEMS)
            if dangling:
                return [
                    f"{table}: row {row} refers to no row of {parent}" for table, row, parent, _ in dangling
                ]
            check_known(
                conn.execute("SELECT number, name FROM migrations").fetchall(), list_migrations(Engine.SQLITE)
            )
            if len(conn.execute("SELECT position FROM newest_position").fetchall()) != 1:
                return ["the newest position is missing"]
    except (OSError, ValueError, sqlite3.Error, StoreFault) as error:
        return [str(error)]
    return []


def _sync(path: Path) -> None:
    """Put a file, or the names in a directory, on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
