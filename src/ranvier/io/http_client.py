"""Requests to other machines, over aiohttp: bounded in time and size, and only to addresses that the guard
allows. The guard sees the address of each connection as it is made, whatever name or notation led to it.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import aiohttp
import aiohttp.abc
import msgspec
import yarl

from ranvier.io.address_guard import AddressGuard
from ranvier.io.ports import (
    AddressRefused,
    Disconnected,
    HttpRequest,
    HttpResponse,
    Misbehaved,
    Resolver,
    StreamedResponse,
    TimedOut,
    Unreachable,
)

_CHUNK_BYTES: Final = 65_536
_MAX_LINE_BYTES: Final = 16_384
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_CONNECT_TIMEOUT_S: Final = 10.0


class AiohttpClient:
    """Keeps connections open for the next request to the same place under the same certificate name."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def send(self, request: HttpRequest) -> HttpResponse:
        async with self.stream(request) as response:
            body = b"".join([chunk async for chunk in response.chunks()])
            return HttpResponse(response.status, response.headers, body)

    @asynccontextmanager
    async def stream(self, request: HttpRequest) -> AsyncIterator[StreamedResponse]:
        try:
            async with asyncio.timeout(request.timeout_s) as deadline:
                with _faults_named(request.url):
                    response = await self._follow(request)
                try:
                    yield _Streamed(response, request.max_response_bytes)
                finally:
                    # A body that nobody read to its end would be in the way of the next request.
                    if response.content.at_eof():
                        response.release()
                    else:
                        response.close()
        except TimeoutError as error:
            if not deadline.expired():
                raise  # the caller's own
            raise TimedOut(f"{_shown(request.url)} took longer than {request.timeout_s} s") from error

    async def _follow(self, request: HttpRequest) -> aiohttp.ClientResponse:
        for _ in range(request.max_redirects + 1):
            response = await self._send_once(request)
            location = response.headers.get("Location")
            if not request.max_redirects or response.status not in _REDIRECTS or location is None:
                return response
            response.close()
            request = _redirected(request, response.status, location)
        raise Misbehaved(f"more than {request.max_redirects} redirects")

    async def _send_once(self, request: HttpRequest) -> aiohttp.ClientResponse:
        return await self._session.request(
            request.method,
            _parse_url(request.url),
            headers=request.headers,
            data=request.body,
            allow_redirects=False,
            server_hostname=request.certificate_name,
        )


@asynccontextmanager
async def open_http_client(
    *,
    resolver: Resolver,
    guard: AddressGuard,
    tls: ssl.SSLContext,
    user_agent: str,
    max_connections: int = 200,
) -> AsyncIterator[AiohttpClient]:
    """A client whose connections close with the block. `max_connections` bounds all of them together; further
    requests wait for one, within their deadline.
    """
    connector = aiohttp.TCPConnector(
        resolver=_AiohttpResolver(resolver),
        use_dns_cache=False,
        ssl=tls,
        limit=max_connections,
        limit_per_host=max(1, max_connections // 4),
        socket_factory=_guarded_sockets(guard),
    )
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S),
        headers={"User-Agent": user_agent},
        skip_auto_headers=("Content-Type",),
        max_line_size=_MAX_LINE_BYTES,
        max_field_size=_MAX_LINE_BYTES,
        trust_env=False,
    ) as session:
        yield AiohttpClient(session)


class _Streamed:
    def __init__(self, response: aiohttp.ClientResponse, max_bytes: int) -> None:
        self._response = response
        self._max_bytes = max_bytes
        self.status = response.status
        self.headers: Mapping[str, str] = _lower_case(response)

    async def chunks(self) -> AsyncIterator[bytes]:
        length = self._response.content_length
        if length is not None and length > self._max_bytes:
            raise Misbehaved(f"the body has {length} bytes, more than {self._max_bytes}")
        received = 0
        with _faults_named(str(self._response.url)):
            async for chunk in self._response.content.iter_chunked(_CHUNK_BYTES):
                received += len(chunk)
                if received > self._max_bytes:
                    raise Misbehaved(f"the body has more than {self._max_bytes} bytes")
                yield chunk


class _AiohttpResolver(aiohttp.abc.AbstractResolver):
    """What aiohttp asks, answered by our port."""

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[aiohttp.abc.ResolveResult]:
        addresses = await self._resolver.resolve_host(host)
        if not addresses:
            raise Unreachable(f"{host} has no address")
        return [
            aiohttp.abc.ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        """Nothing of its own to release."""


class _RefusedByGuard(OSError):
    """Must be an OSError for aiohttp to go on to the host's next address, and the same for every address,
    so that it comes out when all are refused.
    """


def _guarded_sockets(guard: AddressGuard) -> Callable[[aiohttp.AddrInfoType], socket.socket]:
    def open_socket(info: aiohttp.AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = info
        if not guard.is_allowed(str(address[0])):
            raise _RefusedByGuard
        return socket.socket(family, kind, protocol)

    return open_socket


def _redirected(request: HttpRequest, status: int, location: str) -> HttpRequest:
    """The request that a redirect asks for. What belonged to the first place stays behind: its Host and
    credentials, and the name in its certificate.
    """
    here = _parse_url(request.url)
    try:
        there = here.join(yarl.URL(location, encoded=True))
    except ValueError as error:
        raise Misbehaved(f"a redirect to no URL: {location[:300]!r}") from error
    if here.scheme != "https" or there.scheme != "https" or not there.host or there.user is not None:
        raise Misbehaved(f"a redirect that must not be followed: {location[:300]!r}")
    keeps_body = status in (307, 308) or request.method in ("GET", "HEAD")
    return msgspec.structs.replace(
        request,
        url=str(there.with_fragment(None)),
        method=request.method if keeps_body else "GET",
        body=request.body if keeps_body else None,
        headers={
            name: value
            for name, value in request.headers.items()
            if name.lower() not in ("host", "authorization", "cookie")
        },
        certificate_name=None,
    )


def _lower_case(response: aiohttp.ClientResponse) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in response.headers.items():
        key = name.lower()
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
    return headers


def _parse_url(url: str) -> yarl.URL:
    try:
        parsed = yarl.URL(url, encoded=True)
    except ValueError as error:
        raise Unreachable(f"no URL: {_shown(url)}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise Unreachable(f"no URL of a host: {_shown(url)}")
    return parsed


def _shown(url: str) -> str:
    """For a log: without the query, which may hold a token."""
    return url.partition("?")[0][:200]


@contextmanager
def _faults_named(url: str) -> Iterator[None]:
    """What aiohttp and the operating system raise, as one of ours."""
    place = _shown(url)
    try:
        yield
    except TimeoutError as error:
        raise TimedOut(f"{place} took too long") from error
    except aiohttp.ClientSSLError as error:
        raise Unreachable(f"no trusted connection to {place}: {error}") from error
    except aiohttp.ClientConnectorError as error:
        if isinstance(error.os_error, _RefusedByGuard):
            raise AddressRefused(f"connecting to {place} is not allowed") from error
        raise Unreachable(f"no connection to {place}: {error}") from error
    except aiohttp.InvalidURL as error:
        raise Unreachable(f"no URL of a host: {place}") from error
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
        raise Disconnected(f"{place} broke off: {error}") from error
    except (aiohttp.ClientError, aiohttp.http_exceptions.HttpProcessingError, OSError) as error:
        raise Misbehaved(f"{place} broke off: {error}") from error
