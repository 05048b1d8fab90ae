"""The network between servers: it delays, loses, repeats and overtakes; and it falls into parts."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import msgspec

from ranvier.io.clock import Clock
from ranvier.io.ports import (
    Disconnected,
    HttpRequest,
    HttpResponse,
    Misbehaved,
    StreamedResponse,
    TimedOut,
    Unreachable,
)

from ..federation.network import Streamed
from ..http.client import Client
from .loop import ConnectionLost, Life

Told = Callable[..., None]
"""Hears of each step of the simulation: what happened, and its particulars."""


class Weather(msgspec.Struct, frozen=True):
    """How bad the network is."""

    max_delay_s: float = 0.02
    lost: float = 0.0  # share of the requests, and of the answers
    repeated: float = 0.0  # share of the requests that arrive twice


FAIR = Weather()


class SimNetwork:
    """The servers by name, and the lines between them. It also fits a `tests.federation.peer.Peer`."""

    def __init__(self, rng: random.Random, clock: Clock, told: Told) -> None:
        self.clock = clock
        self.weather = FAIR
        self._rng = rng
        self._told = told
        self._apps: dict[str, Any] = {}
        self._cut: set[frozenset[str]] = set()
        self._strays: dict[asyncio.Task[Any], None] = {}

    def add(self, server_name: str, app: Any) -> None:
        """Let an ASGI application answer for a server."""
        self._apps[server_name] = app

    def app_of(self, server: Any) -> Any:
        """What others reach of a server."""
        return self._apps[server.server_name]

    @property
    def names(self) -> list[str]:
        return list(self._apps)

    def cut(self, one: str, other: str) -> None:
        """Let nothing pass between two servers."""
        self._cut.add(frozenset((one, other)))

    def heal(self) -> None:
        """Let everything pass."""
        self._cut.clear()
        self.weather = FAIR

    async def wait_quiet(self) -> None:
        """Wait for repeated requests that are still on their way."""
        while self._strays:
            await asyncio.wait(self._strays)

    async def pass_on(self, asker: str, request: HttpRequest) -> HttpResponse:
        """What happens to a request and to its answer. Raises: RemoteFault."""
        url = urlsplit(request.url)
        name = url.hostname or ""
        if url.port in (None, 443):
            return HttpResponse(404, {}, b"")  # nobody has a well-known file
        try:
            async with asyncio.timeout(request.timeout_s):
                await self._travel(asker, name, request)
                if self._rng.random() < self.weather.repeated:
                    self._repeat(asker, name, request)
                response = await self._deliver(asker, name, request)
                await self._travel(name, asker, request)
        except TimeoutError as error:
            raise TimedOut(f"{request.url} took longer than {request.timeout_s} s") from error
        except ConnectionLost as error:
            raise Disconnected(f"{name} hung up") from error
        if len(response.body) > request.max_response_bytes:
            raise Misbehaved("the body is too long")
        return response

    async def _travel(self, sender: str, receiver: str, request: HttpRequest) -> None:
        """Raises: Unreachable; waits for ever when it is lost."""
        rng, weather = self._rng, self.weather
        # Mostly quick, seldom late: so that few overtake many.
        await asyncio.sleep(weather.max_delay_s * rng.random() ** 3)
        if receiver not in self._apps or frozenset((sender, receiver)) in self._cut:
            if rng.random() < 0.5:
                raise Unreachable(f"{receiver} does not answer")
            await asyncio.sleep(2 * request.timeout_s)
        if rng.random() < weather.lost:
            await asyncio.sleep(2 * request.timeout_s)

    def _repeat(self, asker: str, name: str, request: HttpRequest) -> None:
        delay_s = 4 * self.weather.max_delay_s * self._rng.random()
        # In no server's life: the network carries it.
        task = Life().start(self._deliver_late(asker, name, request, delay_s))
        self._strays[task] = None
        task.add_done_callback(lambda done: self._strays.pop(done, None))

    async def _deliver_late(self, asker: str, name: str, request: HttpRequest, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        try:
            await self._deliver(asker, name, request)
        except (ConnectionLost, Unreachable):
            return

    async def _deliver(self, asker: str, name: str, request: HttpRequest) -> HttpResponse:
        url = urlsplit(request.url)
        target = url.path + (f"?{url.query}" if url.query else "")
        self._told("request", asker, name, request.method, target, request.body)
        answer = await Client(self._apps[name]).request(
            request.method, target, body=request.body or b"", headers=dict(request.headers)
        )
        self._told("answer", name, asker, answer.status, answer.body)
        return HttpResponse(answer.status, answer.headers, answer.body)


class WireClient:
    """The `HttpClient` of one life of a server."""

    def __init__(self, network: SimNetwork, own_name: str) -> None:
        self._network = network
        self._own_name = own_name

    async def send(self, request: HttpRequest) -> HttpResponse:
        return await self._network.pass_on(self._own_name, request)

    @asynccontextmanager
    async def stream(self, request: HttpRequest) -> AsyncIterator[StreamedResponse]:
        yield Streamed(await self.send(request))


class AppOf:
    """The ASGI application of a server through its lives: whoever asks while it is down reaches nobody."""

    def __init__(self, find: Callable[[], tuple[Life, Any] | None]) -> None:
        self._find = find

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        found = self._find()
        if found is None:
            raise ConnectionLost
        life, app = found
        work: Coroutine[Any, Any, None] = app(scope, receive, send)
        await life.ask(work)
