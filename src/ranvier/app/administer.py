"""Commands that work on the database while the server may or may not run: accounts and backups."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from ranvier.app.build import SetupFault, database_url
from ranvier.app.config import Config
from ranvier.core.errors import MatrixError
from ranvier.io.clock import SystemClock
from ranvier.services.accounts.creation import AccountCreation
from ranvier.services.accounts.passwords import DEFAULT_COST, Passwords
from ranvier.services.flows.administration import Administration
from ranvier.store.backup import back_up, check
from ranvier.store.connect import open_database
from ranvier.store.restored import note_restored
from ranvier.store.tables.interned import Interner

T = TypeVar("T")


def administer(config: Config, work: Callable[[Administration], Awaitable[T]]) -> T:
    """Open the database, let `work` do its part, close it.

    Raises: SetupFault with what a client would be told; StoreFault.
    """
    try:
        return asyncio.run(_administer(config, work))
    except MatrixError as error:
        raise SetupFault(error.message) from error


async def _administer(config: Config, work: Callable[[Administration], Awaitable[T]]) -> T:
    config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    db = await open_database(database_url(config))
    try:
        clock = SystemClock()
        creation = AccountCreation(db, Interner(config.name), clock)
        passwords = Passwords(DEFAULT_COST, config.registration.min_password_length)
        return await work(Administration(config.name, db, clock, creation, passwords))
    finally:
        await db.close()


def back_up_database(config: Config, target: Path) -> None:
    """Copy the database of a server, which may be running, to a file, and check the copy.

    Raises: SetupFault; StoreFault.
    """
    url = database_url(config)
    if not url.startswith("sqlite:"):
        raise SetupFault("this copies SQLite databases; use pg_dump for PostgreSQL")
    back_up(Path(url.removeprefix("sqlite:")), target, _show_progress if sys.stderr.isatty() else None)
    faults = check(target)
    if faults:
        raise SetupFault(f"the copy is damaged: {'; '.join(faults)}")


def note_restored_database(config: Config) -> None:
    """Make a database that was restored from a copy of another kind fit to go on with. The server must not run.

    Raises: SetupFault; StoreFault.
    """
    asyncio.run(note_restored(database_url(config)))


def _show_progress(done: int, total: int) -> None:
    sys.stderr.write(f"\r{100 * done // max(total, 1)} %" + ("\n" if done >= total else ""))
