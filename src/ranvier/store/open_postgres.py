"""Opens a PostgreSQL database. Only `connect` imports this, and only when that engine is asked for."""

import contextlib
import secrets
from collections.abc import Callable, Sequence
from typing import Final

import psycopg

from ranvier.store import postgres
from ranvier.store.listen import Listener
from ranvier.store.migrate import Migration
from ranvier.store.migrate_postgres import migrate_postgres
from ranvier.store.positions import Settlement
from ranvier.store.schema_guard import SchemaGuard
from ranvier.store.telling import Telling
from ranvier.store.threads import News

POSTGRES_READERS: Final = 8


def open_postgres(
    url: str,
    settlement: Settlement,
    tell: Callable[[News], None],
    migrations: Sequence[Migration],
    upgrade: bool,
) -> tuple[postgres.PostgresWriter, list[postgres.PostgresReader]]:
    """Bring the schema up to date and connect: one writer, and readers. `tell` gets the news, on any thread.

    Raises: Unavailable; SchemaTooNew; SchemaTooOld unless `upgrade`; StoreFault when a migration fails.
    """
    with contextlib.closing(postgres.connect(url)) as conn:
        try:
            migrate_postgres(conn, migrations, upgrade=upgrade)
        except psycopg.Error as error:
            raise postgres.fault(error) from error
    name = secrets.token_hex(8)
    guard = SchemaGuard(migrations)
    with contextlib.ExitStack() as undo:
        telling = Telling(settlement, tell)
        listener = Listener(url, telling, name, guard)
        undo.callback(listener.close)
        writer = postgres.PostgresWriter(url, settlement, telling, name, listener, guard)
        undo.pop_all()
    return writer, [postgres.PostgresReader(url, settlement) for _ in range(POSTGRES_READERS)]
