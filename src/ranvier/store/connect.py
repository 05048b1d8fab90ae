"""From a URL to an open database whose schema is that of this program.

sqlite:data/ranvier.db                a file, relative to where the process runs
sqlite:/var/lib/ranvier/ranvier.db    a file
postgresql://user@host/name?…         whatever libpq understands
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path

from ranvier.store import migrate, sqlite
from ranvier.store.database import Database
from ranvier.store.dialect import Engine
from ranvier.store.migrate import Migration
from ranvier.store.positions import Settlement
from ranvier.store.schema_guard import SchemaGuard
from ranvier.store.threads import Mailbox, News, Newsroom, ThreadedDatabase

Lister = Callable[[Engine], Sequence[Migration]]
"""The migrations of a program, for an engine."""


class BadDatabaseUrl(ValueError):
    """Not the URL of a database that this program can use."""


def parse_url(url: str) -> tuple[Engine, str]:
    """The engine, and its own form of the address: a path, or what libpq takes.

    Raises: BadDatabaseUrl
    """
    scheme, colon, rest = url.partition(":")
    if colon and scheme in ("postgres", "postgresql") and rest.startswith("//"):
        return Engine.POSTGRES, url
    if colon and scheme == "sqlite":
        path = "/" + rest.lstrip("/") if rest.startswith("//") else rest
        if path.strip("/") and "\0" not in path and path != ":memory:":
            return Engine.SQLITE, path
    # The rest may hold a password.
    raise BadDatabaseUrl(f"a database is sqlite:PATH or postgresql://…, not {scheme}:…")


async def open_database(
    url: str,
    list_migrations: Lister = migrate.list_migrations,
    *,
    upgrade: bool = True,
    cache_bytes: int = sqlite.CACHE_BYTES,
) -> Database:
    """Open the database, bring its schema up to date, and start its threads. Called on the loop that uses it.
    `list_migrations`: whose schema that is. Without `upgrade` only a new database gets its schema. `cache_bytes`: what
    SQLite may take for pages; PostgreSQL has its own memory.

    Raises: BadDatabaseUrl; Unavailable; SchemaTooNew; SchemaTooOld unless `upgrade`; StoreFault when a migration fails
    """
    engine, address = parse_url(url)
    loop = asyncio.get_running_loop()
    if engine is Engine.SQLITE:
        path = Path(address)
        writer, readers = await loop.run_in_executor(
            None, _open_sqlite, path, list_migrations(engine), upgrade, cache_bytes
        )
        return ThreadedDatabase(writer, readers, Newsroom(writer.position), Mailbox(loop))
    settlement = Settlement()
    newsroom = Newsroom(0)
    mailbox = Mailbox(loop)

    def tell(news: News) -> None:
        mailbox.post(partial(newsroom.tell, news))

    # Loaded only here: the driver takes a tenth of a second and ten megabytes, which SQLite's users need not pay.
    open_postgres = import_module("ranvier.store.open_postgres").open_postgres
    pg_writer, pg_readers = await loop.run_in_executor(
        None, open_postgres, address, settlement, tell, list_migrations(engine), upgrade
    )
    newsroom.tell(News(settlement.settled))
    return ThreadedDatabase(pg_writer, pg_readers, newsroom, mailbox)


def _open_sqlite(
    path: Path, migrations: Sequence[Migration], upgrade: bool, cache_bytes: int
) -> tuple[sqlite.SqliteWriter, list[sqlite.SqliteReader]]:
    with contextlib.closing(sqlite.connect(path, writes=True)) as conn:
        try:
            migrate.migrate_sqlite(conn, migrations, upgrade=upgrade)
        except sqlite3.Error as error:
            raise sqlite.fault(error) from error
    with contextlib.ExitStack() as undo:
        writer = sqlite.SqliteWriter(path, SchemaGuard(migrations), cache_bytes)
        undo.callback(writer.close)
        readers = []
        for _ in range(sqlite.READERS):
            readers.append(sqlite.SqliteReader(path, cache_bytes))
            undo.callback(readers[-1].close)
        undo.pop_all()
    return writer, readers
