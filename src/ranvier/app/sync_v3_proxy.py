"""`ranvier sync-v3-proxy`: the experimental sync v3 of 2021 in front of another homeserver."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final
from urllib.parse import urlsplit

import msgspec
import uvloop
from prometheus_client import CollectorRegistry

import ranvier
from ranvier.app.build import SetupFault
from ranvier.app.config import ListenerConfig, LogConfig
from ranvier.app.config_load import parse_bind
from ranvier.app.lifecycle import Running, Worker, run_until_signal
from ranvier.app.listeners import Listener
from ranvier.app.logs import set_up_logs
from ranvier.app.outgoing import Outgoing
from ranvier.historical.sync_v3.endpoint import SyncV3Endpoint
from ranvier.historical.sync_v3.engine import SyncV3
from ranvier.historical.sync_v3.proxy.devices import Devices
from ranvier.historical.sync_v3.proxy.pollers import MAX_POLLERS, Pollers
from ranvier.historical.sync_v3.proxy.source import ProxySource, viewer_of
from ranvier.historical.sync_v3.proxy.sweeping import DeviceSweeper
from ranvier.historical.sync_v3.proxy.upstream import Upstream
from ranvier.historical.sync_v3.sessions import SessionSweeper
from ranvier.historical.sync_v3.wakes import Wakes
from ranvier.http.asgi import AsgiApp, Guards, build_app
from ranvier.http.endpoint import Api
from ranvier.http.guards import RateLimiter
from ranvier.http.health import Health
from ranvier.http.metrics import RequestMetrics
from ranvier.http.ratelimit import DEFAULT_ALLOWANCES, TokenBuckets
from ranvier.io.address_guard import AddressGuard
from ranvier.io.clock import Clock, SystemClock
from ranvier.io.ports import HttpClient
from ranvier.store.connect import BadDatabaseUrl, open_database
from ranvier.store.database import Database
from ranvier.store.migrate import list_proxy_migrations
from ranvier.store.probe import probe

log = logging.getLogger(__name__)

CONNECTIONS_PER_POLLER: Final = 4
"""The client gives a quarter of its connections to one host, and all of ours go to one."""


class ProxyConfig(msgspec.Struct, frozen=True):
    """What the command line says."""

    upstream: str
    database: str
    bind: str


class Proxy(msgspec.Struct, frozen=True):
    """Everything that was made, ready to be served."""

    app: AsgiApp
    workers: Sequence[Worker]
    pollers: Pollers
    wakes: Wakes


def assemble_proxy(
    db: Database, http: HttpClient, clock: Clock, upstream_url: str, limiter: RateLimiter
) -> Proxy:
    """Wire everything together. Nothing runs yet."""
    upstream = Upstream(http, upstream_url)
    wakes = Wakes()
    db.subscribe(wakes.hear)
    pollers = Pollers(db, upstream, clock)
    devices = Devices(db, upstream, pollers, clock)

    async def answer() -> None:
        await db.read(probe)

    guards = Guards(
        devices,
        None,
        limiter,
        RequestMetrics(CollectorRegistry()),
    )
    endpoint = SyncV3Endpoint(SyncV3(db, ProxySource(), wakes, clock), viewer_of)
    app = build_app([endpoint, Health(answer)], guards, frozenset((Api.CLIENT,)))
    workers: list[Worker] = [pollers, SessionSweeper(db, clock), DeviceSweeper(db, devices, clock)]
    return Proxy(app, workers, pollers, wakes)


def serve_proxy(config: ProxyConfig) -> None:
    """Run until SIGTERM or SIGINT.

    Raises: SetupFault, CannotListen, StoreFault: faults that the administrator can mend.
    """
    set_up_logs(LogConfig())
    upstream_url = check_upstream(config.upstream)
    try:
        parse_bind(config.bind)
    except ValueError as error:
        raise SetupFault(f"--bind: {error}") from error
    uvloop.run(_serve(config, upstream_url))


def check_upstream(url: str) -> str:
    """The base URL without a slash at its end. Raises: SetupFault."""
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url or parts.query or parts.fragment or parts.username is not None or not url.isascii():
        raise SetupFault(
            f"--upstream: {url!r} is not the base URL of a homeserver, such as https://example.org"
        )
    return url.rstrip("/")


async def _serve(config: ProxyConfig, upstream_url: str) -> None:
    clock = SystemClock()
    async with AsyncExitStack() as stack:
        try:
            db = await open_database(config.database, list_proxy_migrations)
        except BadDatabaseUrl as error:
            raise SetupFault(f"--database: {error}") from error
        stack.push_async_callback(db.close)
        # The administrator names the upstream, so it may be in a private network.
        outgoing = Outgoing(
            (AddressGuard(denied=()),),
            f"Ranvier/{ranvier.__version__} sync-v3-proxy",
            max_connections=CONNECTIONS_PER_POLLER * (MAX_POLLERS + 100),
        )
        stack.push_async_callback(outgoing.close)
        proxy = assemble_proxy(
            db, outgoing.client(), clock, upstream_url, TokenBuckets(clock.monotonic, DEFAULT_ALLOWANCES)
        )
        listener = Listener(ListenerConfig(bind=config.bind), proxy.app)
        running = Running(proxy.workers, [listener], proxy.wakes.close, _nothing)
        await run_until_signal(running, lambda: log.info("sync v3 of %s on %s", upstream_url, listener.url))


async def _nothing() -> None:
    """What is open is closed by `_serve`, in the reverse order."""
    await asyncio.sleep(0)
