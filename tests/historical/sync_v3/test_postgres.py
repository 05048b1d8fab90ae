"""The same on PostgreSQL: natively, and as the database of a proxy."""

import os
import secrets
from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg
import pytest

from ranvier.app.config import DatabaseConfig
from ranvier.http.endpoint import Api

from ...http.client import Client
from ...store.conftest import postgres_server  # noqa: F401
from .client import V3, AppHttp
from .conftest import ENABLED, running_proxy
from .test_model import check


@pytest.fixture
def database(postgres_server: str) -> Iterator[str]:  # noqa: F811
    """The URL of an empty one."""
    name = f"v3_{os.getpid()}_{secrets.token_hex(4)}"
    with psycopg.connect(postgres_server, autocommit=True) as conn:
        conn.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
        yield urlsplit(postgres_server)._replace(path=f"/{name}").geturl()
        conn.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def test_natively(database, start_homeserver):
    homeserver = await start_homeserver(historical=ENABLED, database=DatabaseConfig(url=database))
    await check(homeserver, V3, 0)


async def test_as_a_proxy(database, start_homeserver, tmp_path):
    homeserver = await start_homeserver()
    http = AppHttp(homeserver.app(frozenset((Api.CLIENT,))))
    async with running_proxy(tmp_path, http, database=database) as (proxy, _):
        await check(homeserver, lambda user: V3(Client(proxy.app, user.token)), 0)
