"""Databases with every migration applied, on both engines: a test that takes `db` runs on each.

PostgreSQL is the server that RANVIER_TEST_POSTGRES names (scripts/with-postgres sets it). Without one,
a throw-away server is started for the session; without PostgreSQL's programs those tests are skipped, and say
so.
"""

import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from ranvier.store.connect import open_database
from ranvier.store.database import Database
from ranvier.store.dialect import Engine

from ..postgres import PostgresDatabase

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
def postgres_database(postgres_server: str) -> Iterator[PostgresDatabase]:
    with PostgresDatabase(postgres_server) as database:
        yield database


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
