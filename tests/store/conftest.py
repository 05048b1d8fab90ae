"""Databases with every migration applied, on both engines: a test that takes `db` runs on each.

PostgreSQL is the server that RANVIER_TEST_POSTGRES names (scripts/with-postgres sets it). Without one,
a throw-away server is started for the session; without PostgreSQL's programs those tests are skipped, and say
so.
"""

import os
import secrets
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from ranvier.store.connect import open_database
from ranvier.store.database import Database
from ranvier.store.dialect import Engine
from ranvier.store.migrate_postgres import migrate_postgres

_WITH_POSTGRES = Path(__file__).parents[2] / "scripts" / "with-postgres"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a server on which databases can be made."""
    if given := os.environ.get("RANVIER_TEST_POSTGRES"):
        yield given
        return
    # `read` ends, and the server with it, when its input is closed: also when this process is killed.
    tell_and_wait = 'echo "${RANVIER_TEST_POSTGRES:-}"; read -r _ || true'
    with subprocess.Popen(
        [_WITH_POSTGRES, "bash", "-c", tell_and_wait],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdin
        assert server.stdout
        url = server.stdout.readline().strip()
        if not url:
            server.stdin.close()
            server.wait()
            pytest.skip("NOT TESTED ON POSTGRESQL: its programs are not installed")
        yield url
        server.stdin.close()
        server.wait()


@pytest.fixture(scope="session")
def postgres_database(postgres_server: str) -> Iterator["PostgresDatabase"]:
    name = f"test_{os.getpid()}_{secrets.token_hex(4)}"
    url = urlsplit(postgres_server)._replace(path=f"/{name}").geturl()
    with psycopg.connect(postgres_server, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
        with psycopg.connect(url, autocommit=True) as inside:
            migrate_postgres(inside)
            yield PostgresDatabase(url, inside)
        conn.execute(f"DROP DATABASE {name} WITH (FORCE)")


class PostgresDatabase:
    """One database for all tests, made as new between them: making a database takes half a second."""

    def __init__(self, url: str, conn: psycopg.Connection) -> None:
        self.url = url
        self._conn = conn
        self._tables = self._list_tables()
        self._rows = {table: conn.execute(f"SELECT * FROM {table}").fetchall() for table in self._filled()}

    def reset(self) -> None:
        conn = self._conn
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        for table in self._list_tables() - self._tables:
            conn.execute(f"DROP TABLE {table} CASCADE")
        with conn.transaction():
            # Without foreign keys, so in any order. (TRUNCATE makes new files: a third of a second.)
            conn.execute("SET LOCAL session_replication_role = replica")
            for table in self._filled():
                conn.execute(f"DELETE FROM {table}")
            for table, rows in self._rows.items():
                for row in rows:
                    conn.execute(f"INSERT INTO {table} VALUES ({', '.join(['%s'] * len(row))})", row)
            used = conn.execute(
                "SELECT sequencename FROM pg_sequences WHERE last_value IS NOT NULL"
            ).fetchall()
            for (sequence,) in used:
                conn.execute(f"ALTER SEQUENCE {sequence} RESTART")

    def _list_tables(self) -> set[str]:
        return {
            name
            for (name,) in self._conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        }

    def _filled(self) -> list[str]:
        asked = (f"SELECT '{table}' WHERE EXISTS (SELECT 1 FROM {table})" for table in sorted(self._tables))
        return [name for (name,) in self._conn.execute(" UNION ALL ".join(asked))]


@pytest.fixture(params=[Engine.SQLITE, Engine.POSTGRES], ids=lambda engine: engine.value)
def engine(request: pytest.FixtureRequest) -> Engine:
    return request.param


@pytest.fixture
def database_url(engine: Engine, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """An own database for each test."""
    if engine is Engine.SQLITE:
        yield f"sqlite:{tmp_path / 'ranvier.db'}"
        return
    database = request.getfixturevalue("postgres_database")
    yield database.url
    database.reset()


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    database = await open_database(database_url)
    yield database
    await database.close()


@pytest.fixture
async def open_another(database_url: str) -> AsyncIterator[Callable]:
    """Opens the test's database once more, as another process would."""
    opened: list[Database] = []

    async def open_one() -> Database:
        opened.append(await open_database(database_url))
        return opened[-1]

    yield open_one
    for database in opened:
        await database.close()
