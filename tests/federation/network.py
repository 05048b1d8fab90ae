"""Several homeservers in one process, and the network between them: in memory, and as bad as a test wants.

Servers find each other as real ones do: no well-known file, no SRV records, port 8448. What a server asks of
another goes through that one's ASGI application, with the APIs that its federation listener would have.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ranvier.app.compose.foundation import Network as Ways
from ranvier.app.config import PresenceConfig
from ranvier.core.federation.discovery import SrvRecord
from ranvier.http.endpoint import Api
from ranvier.io.clock import SystemClock, Timer
from ranvier.io.ports import HttpRequest, HttpResponse, Misbehaved, StreamedResponse, TimedOut, Unreachable

from ..http.client import Client
from ..http.homeserver import Homeserver, running_homeserver

FEDERATION_APIS = frozenset({Api.FEDERATION, Api.MEDIA, Api.ALWAYS})

Answer = Callable[[HttpRequest], HttpResponse | None]
"""What stands before a server: an answer of its own, or None to let the request through."""


class _Timer:
    """A timer of the event loop, which a skip sets off before its time."""

    def __init__(
        self,
        timers: dict[object, tuple[float, Callable[[], object]]],
        due: float,
        real: Timer,
        callback: Callable[[], object],
    ) -> None:
        self._timers = timers
        self._real = real
        self._callback = callback
        timers[self] = due, self._skip

    def cancel(self) -> None:
        self._timers.pop(self, None)
        self._real.cancel()

    def _skip(self) -> None:
        self.cancel()
        self._callback()


class SkippingClock(SystemClock):
    """The time of this machine, moved on by what a test skips; whoever sleeps over that wakes."""

    def __init__(self) -> None:
        self._skipped_ms = 0
        self._jumped_ms = 0
        self._timers: dict[object, tuple[float, Callable[[], object]]] = {}

    def skip(self, seconds: float) -> None:
        self._skipped_ms += round(seconds * 1000)
        now = self.monotonic()
        for due, fire in list(self._timers.values()):
            if due <= now:
                fire()

    def jump(self, seconds: float) -> None:
        """Set the time of day, as an administrator does: nobody who sleeps wakes by it."""
        self._jumped_ms += round(seconds * 1000)

    def now_ms(self) -> int:
        return super().now_ms() + self._skipped_ms + self._jumped_ms

    def monotonic(self) -> float:
        return super().monotonic() + self._skipped_ms / 1000

    async def sleep(self, seconds: float) -> None:
        try:
            async with self.timeout(seconds):
                await asyncio.Event().wait()
        except TimeoutError:
            return

    @asynccontextmanager
    async def timeout(self, seconds: float | None) -> AsyncIterator[asyncio.Timeout]:
        async with asyncio.timeout(seconds) as scope:
            if seconds is None:
                yield scope
                return
            loop, key = asyncio.get_running_loop(), object()

            def expire() -> None:
                if not scope.expired():
                    scope.reschedule(loop.time())

            self._timers[key] = self.monotonic() + seconds, expire
            try:
                yield scope
            finally:
                del self._timers[key]

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        return _Timer(
            self._timers, self.monotonic() + seconds, super().call_later(seconds, callback), callback
        )


class Network:
    """The servers of a test by their names ("one" is the server one.test), and the lines between them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._servers: dict[str, Homeserver] = {}  # by server name
        self._apps: dict[str, Any] = {}
        self._stacks: dict[str, AsyncExitStack] = {}
        self._settings: dict[str, dict[str, Any]] = {}
        self._cut: set[frozenset[str]] = set()
        self._random = random.Random(0)
        self._delay_s = 0.0
        self._loss = 0.0
        self.before: dict[str, Answer] = {}  # by server name
        self.clock = SkippingClock()
        self.clocks: dict[str, SkippingClock] = {}  # by server name, of those that have their own
        self.log: list[tuple[str, HttpRequest]] = []  # who asked, and what

    async def server(self, name: str, **settings: Any) -> Homeserver:
        """Start the homeserver `{name}.test`; one that was stopped goes on with its data. `settings` are
        fields of Config."""
        server_name = f"{name}.test"
        settings = settings or self._settings.get(server_name, {})
        self._settings[server_name] = settings
        stack = AsyncExitStack()
        ways = Ways(_Client(self, server_name), Resolver(), _close)
        running = running_homeserver(
            self._directory / name,
            replaced={"network": ways, "clock": self.clocks.get(server_name, self.clock)},
            **({"server_name": server_name, "presence": PresenceConfig(enabled=False)} | settings),
        )
        server = await stack.enter_async_context(running)
        self._stacks[server_name] = stack
        self._servers[server_name] = server
        self._apps[server_name] = server.app(FEDERATION_APIS)
        return server

    def add(self, server_name: str, app: Any) -> None:
        """Let an ASGI application stand for a server, such as one that a test plays itself."""
        self._apps[server_name] = app

    def app_of(self, server: Homeserver) -> Any:
        """What others reach of a server."""
        return self._apps[server.server_name]

    async def stop(self, name: str) -> None:
        """Stop a server; nobody reaches it until it is started again."""
        server_name = f"{name}.test"
        del self._servers[server_name], self._apps[server_name]
        await self._stacks.pop(server_name).aclose()

    async def close(self) -> None:
        for name in list(self._servers):
            await self.stop(name.removesuffix(".test"))

    def cut(self, one: str, other: str) -> None:
        """Let nothing pass between two servers, in either direction."""
        self._cut.add(frozenset((f"{one}.test", f"{other}.test")))

    def isolate(self, name: str) -> None:
        """Let nothing pass between a server and all others that there are."""
        for other in self._apps:
            self.cut(name, other.removesuffix(".test"))

    def heal(self) -> None:
        """Let everything pass, at once."""
        self._cut.clear()
        self._delay_s = self._loss = 0.0

    def disturb(self, *, seed: int, delay_s: float = 0.0, loss: float = 0.0) -> None:
        """Hold each request up to `delay_s` back, so that they overtake each other, and lose a share of the
        requests and of the answers."""
        self._random = random.Random(seed)
        self._delay_s = delay_s
        self._loss = loss

    async def pass_on(self, asker: str, request: HttpRequest) -> HttpResponse:
        """What happens to a request on its way, and on its way back."""
        self.log.append((asker, request))
        if self._delay_s:
            await asyncio.sleep(self._random.random() * self._delay_s)
        url = urlsplit(request.url)
        name = (url.hostname or "") if url.port in (None, 443, 8448) else url.netloc
        app = self._apps.get(name)
        if app is None or frozenset((asker, name)) in self._cut:
            raise Unreachable(f"{name} does not answer")
        if url.port in (None, 443):
            return HttpResponse(404, {}, b"")  # nobody has a well-known file
        if self._random.random() < self._loss:
            raise TimedOut(f"a request to {name} was lost")
        ready = self.before[name](request) if name in self.before else None
        response = await _ask(app, request) if ready is None else ready
        if self._random.random() < self._loss:
            raise TimedOut(f"an answer of {name} was lost")
        if len(response.body) > request.max_response_bytes:
            raise Misbehaved("the body is too long")
        return response


class _Client:
    """The HttpClient of one server."""

    def __init__(self, network: Network, own_name: str) -> None:
        self._network = network
        self._own_name = own_name

    async def send(self, request: HttpRequest) -> HttpResponse:
        try:
            async with asyncio.timeout(request.timeout_s):
                return await self._network.pass_on(self._own_name, request)
        except TimeoutError as error:
            raise TimedOut(f"{request.url} took longer than {request.timeout_s} s") from error

    @asynccontextmanager
    async def stream(self, request: HttpRequest) -> AsyncIterator[StreamedResponse]:
        yield Streamed(await self.send(request))


class Streamed:
    def __init__(self, response: HttpResponse) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self._body = response.body

    async def chunks(self) -> AsyncIterator[bytes]:
        yield self._body


class Resolver:
    """DNS in which every name has an address and none has SRV records."""

    async def resolve_host(self, name: str) -> Sequence[str]:
        return ("192.0.2.1",)

    async def resolve_srv(self, name: str) -> Sequence[SrvRecord]:
        return ()


async def _ask(app: Any, request: HttpRequest) -> HttpResponse:
    url = urlsplit(request.url)
    target = url.path + (f"?{url.query}" if url.query else "")
    answer = await Client(app).request(
        request.method, target, body=request.body or b"", headers=dict(request.headers)
    )
    return HttpResponse(answer.status, answer.headers, answer.body)


async def _close() -> None:
    """There is nothing to close."""
