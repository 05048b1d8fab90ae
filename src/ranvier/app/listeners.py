"""Sockets and the HTTP servers on them."""

import asyncio
import logging
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn

from ranvier.app.config import ListenerConfig
from ranvier.app.config_load import parse_bind
from ranvier.app.connections import PATIENCE_S, Connection, watch
from ranvier.http.asgi import AsgiApp

log = logging.getLogger(__name__)

GRACE_SECONDS: Final = 8
"""How long accepted requests may take to finish when the server stops."""

_BACKLOG: Final = 2048
_KEEP_ALIVE_SECONDS: Final = 75


class CannotListen(Exception):
    """An address that cannot be listened on, in one sentence."""


class _Server(uvicorn.Server):
    """One of several servers in a process: signals are for the process, not for it."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Listener:
    """One bound address and its server. Binding happens in the constructor, so that faults show early."""

    def __init__(self, config: ListenerConfig, app: AsgiApp, patience_s: float = PATIENCE_S) -> None:
        """`patience_s`: how long a client may take to say what it wants.

        Raises: CannotListen.
        """
        self.config = config
        self._patience_s = patience_s
        self._socket = _bind(config.bind)
        self._server = _Server(
            uvicorn.Config(
                app,
                loop="none",
                http=Connection,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=True,
                backlog=_BACKLOG,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=GRACE_SECONDS,
                ssl_certfile=config.tls_certificate,
                ssl_keyfile=str(config.tls_private_key) if config.tls_private_key else None,
            )
        )
        try:
            self._server.config.load()
        except (OSError, ssl.SSLError) as error:
            self._socket.close()
            raise CannotListen(f"cannot use {config.tls_certificate} for TLS: {error}") from error

    @property
    def url(self) -> str:
        host, port = self._socket.getsockname()[:2]
        scheme = "https" if self.config.tls_certificate else "http"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"

    async def run(self) -> None:
        """Serve until `stop`; returns when what was accepted is answered."""
        watching = asyncio.create_task(watch(self._server.server_state.connections, self._patience_s))
        try:
            await self._server.serve(sockets=[self._socket])
        finally:
            watching.cancel()

    def stop(self) -> None:
        self._server.should_exit = True


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
