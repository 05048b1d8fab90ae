"""Commands that work on the database while the server may or may not run: accounts, rooms, media and backups."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from ranvier.app.build import SetupFault, database_url
from ranvier.app.config import Config
from ranvier.core.errors import MatrixError, ProtocolFault
from ranvier.core.identifiers import UserID
from ranvier.io.clock import Clock, SystemClock
from ranvier.services.accounts.creation import AccountCreation
from ranvier.services.accounts.passwords import DEFAULT_COST, Passwords
from ranvier.services.flows.administration import Administration
from ranvier.services.requester import Requester
from ranvier.store.backup import back_up, check
from ranvier.store.connect import open_database
from ranvier.store.database import Database
from ranvier.store.restored import note_restored
from ranvier.store.tables.interned import Interner

T = TypeVar("T")


class Desk(msgspec.Struct, frozen=True):
    """What commands work with: the open database, of which the server may be running."""

    config: Config
    db: Database
    interner: Interner
    clock: Clock

    @property
    def requester(self) -> Requester:
        """Who does it: nobody can have this user id."""
        user_id = UserID(f"@:{self.config.name}")
        return Requester(user_id=user_id, user_nid=0, device_id=None, is_admin=True)


def at_desk(config: Config, work: Callable[[Desk], Awaitable[T]]) -> T:
    """Open the database, let `work` do its part, close it.

    Raises: SetupFault with what a client would be told; StoreFault.
    """
    try:
        return asyncio.run(_at_desk(config, work))
    except MatrixError as error:
        raise SetupFault(error.message) from error
    except ProtocolFault as error:
        raise SetupFault(str(error)) from error


def administer(config: Config, work: Callable[[Administration], Awaitable[T]]) -> T:
    """The same with what is done to accounts."""

    async def with_accounts(desk: Desk) -> T:
        creation = AccountCreation(desk.db, desk.interner, desk.clock)
        passwords = Passwords(DEFAULT_COST, config.registration.min_password_length)
        return await work(Administration(config.name, desk.db, desk.clock, creation, passwords))

    return at_desk(config, with_accounts)


async def _at_desk(config: Config, work: Callable[[Desk], Awaitable[T]]) -> T:
    config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    db = await open_database(database_url(config), upgrade=False)
    try:
        return await work(Desk(config, db, Interner(config.name), SystemClock()))
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
