"""The servers that speak sync v3: this homeserver, and the proxy in front of one, or of a live Synapse."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ranvier.app.config import HistoricalConfig, SyncV3Config
from ranvier.app.sync_v3_proxy import Proxy, assemble_proxy
from ranvier.http.endpoint import Api
from ranvier.http.ratelimit import NoLimits
from ranvier.io.clock import Clock, SystemClock
from ranvier.io.ports import HttpClient
from ranvier.store.connect import open_database
from ranvier.store.migrate import list_proxy_migrations

from ...federation.test_synapse import SYNAPSE, Server, start_synapse
from ...http.client import Client
from ...http.conftest import start_homeserver  # noqa: F401
from ...unit.certificates import Authority
from .client import V3, AppHttp, RemoteServer

ENABLED = HistoricalConfig(sync_v3_2021=SyncV3Config(enabled=True))
BASE = "http://upstream.test"

KINDS = [
    "native",
    "proxy",
    pytest.param(
        "synapse",
        marks=[
            pytest.mark.slow,
            pytest.mark.skipif(not SYNAPSE.exists(), reason="Synapse is not installed"),
        ],
    ),
]


@asynccontextmanager
async def running_proxy(
    directory: Path, http: HttpClient, clock: Clock | None = None, database: str | None = None
) -> AsyncIterator[tuple[Proxy, Any]]:
    """A proxy on the database in `directory`, and that database."""
    db = await open_database(database or f"sqlite:{directory / 'proxy.db'}", list_proxy_migrations)
    proxy = assemble_proxy(db, http, clock or SystemClock(), BASE, NoLimits())
    workers = [asyncio.create_task(worker.run()) for worker in proxy.workers]
    try:
        yield proxy, db
    finally:
        proxy.wakes.close()
        for task in workers:
            task.cancel()
        ends = await asyncio.gather(*workers, return_exceptions=True)
        await db.close()
    for end in ends:
        if isinstance(end, Exception):
            raise end


@pytest.fixture(scope="session")
def synapse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A Synapse for all tests that want one."""
    directory = tmp_path_factory.mktemp("synapse")
    server = start_synapse(directory / "server", Authority(directory))
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def kind(request: pytest.FixtureRequest) -> str:
    return getattr(request, "param", "native")


@pytest.fixture
async def homeserver(
    kind: str,
    request: pytest.FixtureRequest,
    start_homeserver: Callable[..., Awaitable[Any]],  # noqa: F811
) -> AsyncIterator[Any]:
    """Where accounts and rooms are: with sync v3 of its own, or without."""
    if kind == "synapse":
        server: Server = request.getfixturevalue("synapse")
        async with aiohttp.ClientSession() as session:
            await server.wait(session)
            yield RemoteServer(session, f"http://127.0.0.1:{server.client_port}")
    elif kind == "native":
        yield await start_homeserver(historical=ENABLED)
    else:
        yield await start_homeserver()


@pytest.fixture
async def v3(kind: str, homeserver: Any, tmp_path: Path) -> AsyncIterator[Callable[[Any], V3]]:
    """`v3(user)`: what the user's client says to sync v3."""
    if kind == "native":
        yield V3
        return
    http = AppHttp(homeserver.app(frozenset((Api.CLIENT,)))) if kind == "proxy" else homeserver.http(BASE)
    async with running_proxy(tmp_path, http) as (proxy, _):
        yield lambda user: V3(Client(proxy.app, user.token))
