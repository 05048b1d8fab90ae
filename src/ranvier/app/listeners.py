"""Sockets, and the connections that come in by them."""

import asyncio
import logging
import socket
import ssl
from typing import Final

from ranvier.app.config import ListenerConfig
from ranvier.app.config_load import parse_bind
from ranvier.http.asgi import AsgiApp
from ranvier.http.connection import PATIENCE_S, Connection

log = logging.getLogger(__name__)

GRACE_SECONDS: Final = 8
"""How long accepted requests may take to finish when the server stops."""

_BACKLOG: Final = 2048


class CannotListen(Exception):
    """An address that cannot be listened on, in one sentence."""


class Listener:
    """One bound address and who is connected to it. Binding happens in the constructor, so that faults show early."""

    def __init__(self, config: ListenerConfig, app: AsgiApp, patience_s: float = PATIENCE_S) -> None:
        """`patience_s`: how long a client may take to say what it wants.

        Raises: CannotListen.
        """
        self.config = config
        self._app = app
        self._patience_s = patience_s
        self._tls = _server_context(config)
        self._socket = _bind(config.bind)
        # In the order in which they came: a set of them would be walked through in the order of addresses.
        self._connections: dict[Connection, None] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_stopping = asyncio.Event()
        self._is_empty = asyncio.Event()

    @property
    def url(self) -> str:
        host, port = self._socket.getsockname()[:2]
        scheme = "https" if self._tls is not None else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"

    async def run(self) -> None:
        """Serve until `stop`; returns when what was accepted is answered."""
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: Connection(self._app, self), sock=self._socket, ssl=self._tls, backlog=_BACKLOG
        )
        watching = asyncio.create_task(self._watch())
        try:
            await self._is_stopping.wait()
            server.close()
            await self._end()
        finally:
            watching.cancel()
            server.close()

    def stop(self) -> None:
        self._is_stopping.set()

    async def _end(self) -> None:
        """Let everybody be answered, and go. Who takes too long is cut off."""
        for connection in tuple(self._connections):
            connection.leave()
        self._look_whether_empty()
        try:
            async with asyncio.timeout(GRACE_SECONDS):
                await self._is_empty.wait()
        except TimeoutError:
            log.warning("%d requests could not be answered in time", len(self._tasks))
            for task in tuple(self._tasks):
                task.cancel()
            for connection in tuple(self._connections):
                connection.abort()

    async def _watch(self) -> None:
        """Look after the connections, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._patience_s / 6)
            for connection in tuple(self._connections):
                connection.check(loop.time(), self._patience_s)

    # See `connection.Keeper`.

    def opened(self, connection: Connection) -> None:
        self._connections[connection] = None
        if self._is_stopping.is_set():
            connection.leave()

    def closed(self, connection: Connection) -> None:
        self._connections.pop(connection, None)
        self._look_whether_empty()

    def answering(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._answered)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._look_whether_empty()

    def _look_whether_empty(self) -> None:
        if self._is_stopping.is_set() and not self._connections and not self._tasks:
            self._is_empty.set()


def _server_context(config: ListenerConfig) -> ssl.SSLContext | None:
    """Raises: CannotListen."""
    if config.tls_certificate is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(config.tls_certificate, config.tls_private_key)
    except (OSError, ssl.SSLError) as error:
        raise CannotListen(f"cannot use {config.tls_certificate} for TLS: {error}") from error
    return context


def _bind(bind: str) -> socket.socket:
    host, port = parse_bind(bind)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Responses are written whole: waiting for more to send only adds latency.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listening.bind(address)
    except OSError as error:
        raise CannotListen(f"cannot listen on {bind}: {error.strerror or error}") from error
    listening.setblocking(False)
    return listening
