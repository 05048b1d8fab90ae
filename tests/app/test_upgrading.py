"""A process of an earlier version beside a later one, on one database: it ends by itself, and does not begin anew."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from ranvier.store.dialect import Engine
from ranvier.store.migrate import Migration, list_migrations, migrate_sqlite
from ranvier.store.migrate_postgres import migrate_postgres

from ..clients.process import ServerProcess
from ..store.conftest import engine, postgres_database, postgres_server

__all__ = ["engine", "postgres_database", "postgres_server"]

LATER = Migration(9001, "later", "CREATE TABLE later (x INTEGER);")
TOLD = (
    "ranvier: the database has migration 9001 (later), which this version does not know; "
    "start the version that made it, or a later one"
)


@pytest.fixture
def server(engine: Engine, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    url = "sqlite:ranvier.db"
    if engine is Engine.POSTGRES:
        url = request.getfixturevalue("postgres_database").url
    server = ServerProcess(tmp_path, RANVIER__DATABASE__URL=url)
    yield server
    server.kill()
    if engine is Engine.POSTGRES:
        request.getfixturevalue("postgres_database").reset()


def migrate(server: ServerProcess, engine: Engine, request: pytest.FixtureRequest) -> None:
    migrations = [*list_migrations(engine), LATER]
    if engine is Engine.SQLITE:
        with closing(sqlite3.connect(server.directory / "data" / "ranvier.db", isolation_level=None)) as conn:
            migrate_sqlite(conn, migrations)
    else:
        with psycopg.connect(request.getfixturevalue("postgres_database").url, autocommit=True) as conn:
            migrate_postgres(conn, migrations)


@pytest.mark.slow
def test_an_earlier_version_ends_and_does_not_begin_anew(
    server: ServerProcess, engine: Engine, request: pytest.FixtureRequest
) -> None:
    server.start()
    migrate(server, engine, request)
    assert server.wait() == 1
    assert server.log().splitlines()[-1] == TOLD
    assert "Traceback" not in server.log()
    with pytest.raises(AssertionError, match="does not answer"):
        server.start()
    assert server.log().splitlines()[-1] == TOLD
