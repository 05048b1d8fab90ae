"""Signed requests to other servers, held back while a server fails.

What comes back is decoded, or it is a RemoteFault: nothing of another server's words goes on to a client.

Spec: server-server API, "Request Authentication".
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import quote, urlencode

import msgspec

from ranvier.core.canonical_json import JsonObject, encode, parse_object
from ranvier.core.errors import BadJson
from ranvier.core.federation.answers import parse_answer
from ranvier.core.federation.discovery import Route
from ranvier.core.federation.xmatrix import bytes_to_sign, sign_request
from ranvier.core.identifiers import ServerName
from ranvier.core.signing import SigningKey
from ranvier.io.clock import Clock
from ranvier.io.ports import (
    Disconnected,
    HttpClient,
    HttpRequest,
    HttpResponse,
    Misbehaved,
    RemoteFault,
    StreamedResponse,
    TimedOut,
    Unreachable,
)
from ranvier.services.remote.finder import Finder
from ranvier.services.remote.standing import Standings

TIMEOUT_S: Final = 60.0
MAX_RESPONSE_BYTES: Final = 8 * 1_048_576

MAX_ROUTES: Final = 3
"""Places of one server that are tried for one request."""

LARGE_BYTES: Final = 262_144
"""Answers from this size on are decoded on another thread."""
MAX_DECODERS: Final = 2
"""Of these at a time: decoded, an answer takes ten times its size."""

DEFAULT_HOLD_MS: Final = 10_000

Query = Sequence[tuple[str, str]]


class Refused(RemoteFault):
    """The server answered with an error. `errcode` and `body` are its words: for decisions, not for clients."""

    def __init__(self, server: ServerName, status: int, body: JsonObject) -> None:
        errcode, error = body.get("errcode"), body.get("error")
        self.status = status
        self.errcode = errcode if isinstance(errcode, str) else None
        self.body = body
        super().__init__(f"{server} answered {status} {str(errcode)[:100]}: {str(error)[:300]}")


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One request. `path` comes from `path_of`; `content` is canonical JSON."""

    method: str
    path: str
    query: Query = ()
    content: bytes | None = None
    timeout_s: float = TIMEOUT_S
    max_response_bytes: int = MAX_RESPONSE_BYTES
    despite_standing: bool = False  # ask even a server that failed lately: a user waits for it

    @property
    def uri(self) -> str:
        return f"{self.path}?{urlencode(self.query)}" if self.query else self.path


def path_of(prefix: str, *segments: str) -> str:
    """`prefix` and the segments, each percent-encoded."""
    return "/".join((prefix, *(quote(segment, safe="") for segment in segments)))


class Requests:
    """Asks other servers in the name of this one."""

    def __init__(
        self,
        own_server: ServerName,
        key: SigningKey,
        finder: Finder,
        standings: Standings,
        http: HttpClient,
        clock: Clock,
    ) -> None:
        self._own_server = own_server
        self._key = key
        self._finder = finder
        self._standings = standings
        self._http = http
        self._clock = clock
        self._decoders = asyncio.Semaphore(MAX_DECODERS)

    async def get(self, server: ServerName, path: str, query: Query = ()) -> JsonObject:
        """Raises: RemoteFault, as `ask`."""
        return await self.ask(server, Ask(method="GET", path=path, query=query))

    async def post(self, server: ServerName, path: str, content: JsonObject) -> JsonObject:
        """Raises: RemoteFault, as `ask`."""
        return await self.ask(server, Ask(method="POST", path=path, content=encode(content)))

    async def put(self, server: ServerName, path: str, content: JsonObject) -> JsonObject:
        """Raises: RemoteFault, as `ask`."""
        return await self.ask(server, Ask(method="PUT", path=path, content=encode(content)))

    async def ask(self, server: ServerName, ask: Ask) -> JsonObject:
        """The object that the server answers with.

        Raises: HeldBack (it failed lately); Refused (it says no); Unreachable, TimedOut, Misbehaved.
        """
        body = await self.fetch(server, ask)
        try:
            if len(body) < LARGE_BYTES:
                return parse_answer(body, ask.max_response_bytes)
            async with self._decoders:
                return await asyncio.to_thread(parse_answer, body, ask.max_response_bytes)
        except BadJson as error:
            raise Misbehaved(f"{server} did not answer {ask.path[:200]} with an object: {error}") from error

    async def fetch(self, server: ServerName, ask: Ask) -> bytes:
        """The body of a 2xx answer, not decoded. Raises: as `ask`."""
        if server == self._own_server:
            raise Unreachable("a server has nothing to ask itself")
        if not ask.despite_standing:
            await self._standings.check(server)
        try:
            async with self._clock.timeout(ask.timeout_s):
                response = await self._send(server, ask)
        except TimeoutError as error:
            await self._standings.failed(server)
            raise TimedOut(f"{server} took longer than {ask.timeout_s} s") from error
        except RemoteFault:
            await self._standings.failed(server)
            raise
        return await self._judge(server, response)

    @asynccontextmanager
    async def stream(self, server: ServerName, ask: Ask) -> AsyncIterator[StreamedResponse]:
        """The answer to a signed request as it comes, whatever its status: for media.

        Raises: RemoteFault.
        """
        if not ask.despite_standing:
            await self._standings.check(server)
        try:
            route = (await self._finder.find_routes(server))[0]
            async with self._http.stream(self._request(server, route, ask)) as response:
                if response.status < 500:
                    await self._standings.succeeded(server)
                yield response
        except (Unreachable, TimedOut):
            await self._standings.failed(server)
            raise

    async def _send(self, server: ServerName, ask: Ask) -> HttpResponse:
        routes = (await self._finder.find_routes(server))[:MAX_ROUTES]
        for route in routes[:-1]:
            try:
                return await self._send_to(self._request(server, route, ask))
            except Unreachable:
                continue
        return await self._send_to(self._request(server, routes[-1], ask))

    async def _send_to(self, request: HttpRequest) -> HttpResponse:
        try:
            return await self._http.send(request)
        except Disconnected:
            # A connection that was kept open may be closed just when it is used again. Nothing that servers
            # ask of each other does harm when asked twice.
            return await self._http.send(request)

    def _request(self, server: ServerName, route: Route, ask: Ask) -> HttpRequest:
        message = bytes_to_sign(
            method=ask.method,
            uri=ask.uri,
            origin=self._own_server,
            destination=server,
            content=ask.content,
        )
        headers = {
            "Host": route.host_header,
            "Authorization": sign_request(self._key, message, self._own_server, server),
        }
        if ask.content is not None:
            headers["Content-Type"] = "application/json"
        host = f"[{route.host}]" if ":" in route.host else route.host
        return HttpRequest(
            method=ask.method,
            url=f"https://{host}:{route.port}{ask.uri}",
            headers=headers,
            body=ask.content,
            certificate_name=route.certificate_name,
            timeout_s=ask.timeout_s,
            max_response_bytes=ask.max_response_bytes,
        )

    async def _judge(self, server: ServerName, response: HttpResponse) -> bytes:
        """Take an answer for what its status says. Raises: Refused."""
        if 200 <= response.status < 300:
            await self._standings.succeeded(server)
            return response.body
        try:
            body = parse_object(response.body, MAX_RESPONSE_BYTES)
        except BadJson:
            body = {}  # a proxy in front of the server speaks HTML
        if response.status == 429:
            await self._standings.hold(server, _pause_ms(response.headers, body))
        elif response.status >= 500:
            await self._standings.failed(server)
        else:
            await self._standings.succeeded(server)
        raise Refused(server, response.status, body)


def _pause_ms(headers: Mapping[str, str], body: JsonObject) -> int:
    """How long a server that answers 429 wants to be left alone."""
    after = headers.get("retry-after", "")
    if after.isascii() and after.isdigit() and len(after) < 8:
        return int(after) * 1000
    pause_ms = body.get("retry_after_ms")
    return pause_ms if type(pause_ms) is int and 0 < pause_ms < 2**53 else DEFAULT_HOLD_MS
