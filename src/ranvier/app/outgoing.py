"""The ways to other machines, opened when something first goes there.

What speaks HTTP and DNS to others takes a third of the time in which the program loads, and a tenth of its memory. A
server that has just been started has to answer its clients first.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib import import_module
from typing import Any

import msgspec

from ranvier.core.federation.discovery import SrvRecord
from ranvier.io.address_guard import AddressGuard
from ranvier.io.ports import HttpClient, HttpRequest, HttpResponse, Resolver, StreamedResponse
from ranvier.io.tls import client_context


class _Ways(msgspec.Struct, frozen=True):
    """What is open."""

    resolver: Resolver
    clients: Sequence[HttpClient]  # one for each guard


class Outgoing:
    """Opens DNS and HTTP once, for all who want it."""

    def __init__(
        self,
        guards: Sequence[AddressGuard],
        user_agent: str,
        tls: ssl.SSLContext | None = None,
        max_connections: int = 200,
    ) -> None:
        """`guards`: whereto each HTTP client may connect; `tls`: whose certificates are trusted (None: those of the
        operating system); `max_connections`: of each client."""
        self._guards = guards
        self._user_agent = user_agent
        self._tls = tls
        self._max_connections = max_connections
        self._stack = AsyncExitStack()
        self._opening: asyncio.Task[_Ways] | None = None

    def client(self, number: int = 0) -> HttpClient:
        """The client for one of the guards."""
        return _Client(self, number)

    def resolver(self) -> Resolver:
        return _Resolver(self)

    async def ways(self) -> _Ways:
        """Open them, if they are not yet."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        # Who gives up waiting does not do so for others.
        return await asyncio.shield(self._opening)

    async def close(self) -> None:
        """Close what is open."""
        if self._opening is not None:
            await asyncio.wait((self._opening,))
        await self._stack.aclose()

    async def _open(self) -> _Ways:
        tls, dns, http = await asyncio.to_thread(_load, self._tls)
        resolver: Resolver = dns.open_dns_resolver()
        clients: list[HttpClient] = [
            await self._stack.enter_async_context(
                http.open_http_client(
                    resolver=resolver,
                    guard=guard,
                    tls=tls,
                    user_agent=self._user_agent,
                    max_connections=self._max_connections,
                )
            )
            for guard in self._guards
        ]
        return _Ways(resolver, clients)


def _load(tls: ssl.SSLContext | None) -> tuple[ssl.SSLContext, Any, Any]:
    """Runs on a thread: it takes a seventh of a second."""
    dns, http = import_module("ranvier.io.dns"), import_module("ranvier.io.http_client")
    return tls or client_context(), dns, http


class _Client:
    """An `HttpClient`."""

    def __init__(self, outgoing: Outgoing, number: int) -> None:
        self._outgoing = outgoing
        self._number = number

    async def send(self, request: HttpRequest) -> HttpResponse:
        return await (await self._find()).send(request)

    @asynccontextmanager
    async def stream(self, request: HttpRequest) -> AsyncIterator[StreamedResponse]:
        client = await self._find()
        async with client.stream(request) as response:
            yield response

    async def _find(self) -> HttpClient:
        return (await self._outgoing.ways()).clients[self._number]


class _Resolver:
    """A `Resolver`."""

    def __init__(self, outgoing: Outgoing) -> None:
        self._outgoing = outgoing

    async def resolve_host(self, name: str) -> Sequence[str]:
        return await (await self._outgoing.ways()).resolver.resolve_host(name)

    async def resolve_srv(self, name: str) -> Sequence[SrvRecord]:
        return await (await self._outgoing.ways()).resolver.resolve_srv(name)
