"""Files as other servers give them: as the second of two parts, as a redirect, or the way that servers did before.

Spec: server-server API, "Content Repository"; client-server API, "Content repository" (deprecated endpoints).
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Final, TypeVar

import msgspec

from ranvier.core.canonical_json import parse_object
from ranvier.core.errors import (
    BadGateway,
    BadJson,
    LimitExceeded,
    MatrixError,
    NotFound,
    NotYetUploaded,
    RemoteMediaTooLarge,
)
from ranvier.core.identifiers import ServerName
from ranvier.core.media.multipart import BadMultipart, TwoParts, parse_boundary
from ranvier.io.ports import HttpClient, HttpRequest, Misbehaved, RemoteFault, StreamedResponse
from ranvier.services.remote.requests import Ask, Query, Requests, path_of

T = TypeVar("T")

TIMEOUT_S: Final = 300.0
MAX_REDIRECTS: Final = 3
MAX_ERROR_BYTES: Final = 65_536
BUSY_MS: Final = 10_000
_OVERHEAD_BYTES: Final = 131_072
"""What stands around a file: heads, JSON, boundaries."""
_UNBOUNDED: Final = 2**40
"""Who takes the file says where to stop."""

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

Take = Callable[[Mapping[str, str], AsyncIterator[bytes]], Awaitable[T]]
"""Takes a file's headers (names in lower case) and its bytes."""


class RemoteFile(msgspec.Struct, frozen=True, kw_only=True):
    """Which file, or which thumbnail of it. `query` besides `timeout_ms` tells the thumbnail."""

    server: ServerName
    media_id: str
    what: str = "download"  # or thumbnail
    query: Query = ()
    timeout_ms: int
    max_bytes: int


class _NotSpoken(Exception):
    """The server does not know the endpoint."""


class RemoteFiles:
    """Asks other servers for files."""

    def __init__(self, requests: Requests, web: HttpClient) -> None:
        """`web`: the way to where a server redirects, which must not lead into private networks."""
        self._requests = requests
        self._web = web

    async def take(self, file: RemoteFile, take: Take[T]) -> T:
        """Fetch a file and hand it to `take` as it comes; what `take` answers.

        Raises: NotFound, NotYetUploaded, RemoteMediaTooLarge, LimitExceeded, BadGateway; what `take` raises.
        """
        try:
            try:
                return await self._take_parts(file, take)
            except _NotSpoken:
                return await self._take_plain(file, take)
        except (RemoteFault, BadMultipart, _NotSpoken) as error:
            raise BadGateway(f"{file.server} did not give this file.") from error

    async def _take_parts(self, file: RemoteFile, take: Take[T]) -> T:
        path = path_of(f"/_matrix/federation/v1/media/{file.what}", file.media_id)
        async with self._requests.stream(file.server, _ask(file, path, ())) as response:
            if response.status != 200:
                raise await _refusal(response)
            _check_length(file, response)
            parts = _Parts(response)
            headers = await parts.read_headers()
            location = headers.get("location")
            if location is None:
                return await take(headers, parts.body())
        return await self._take_elsewhere(file, location, take)

    async def _take_plain(self, file: RemoteFile, take: Take[T]) -> T:
        """Servers from before v1.11."""
        path = path_of(f"/_matrix/media/v3/{file.what}", file.server, file.media_id)
        query = (("allow_remote", "false"), ("allow_redirect", "true"))
        async with self._requests.stream(file.server, _ask(file, path, query)) as response:
            location = response.headers.get("location")
            if response.status not in _REDIRECTS or location is None:
                if response.status != 200:
                    raise await _refusal(response)
                _check_length(file, response)
                return await take(response.headers, response.chunks())
        return await self._take_elsewhere(file, location, take)

    async def _take_elsewhere(self, file: RemoteFile, location: str, take: Take[T]) -> T:
        if not location.startswith("https://") or len(location) > 8192 or not location.isascii():
            raise Misbehaved(f"a redirect that must not be followed: {location[:300]!r}")
        request = HttpRequest(
            method="GET",
            url=location.partition("#")[0],
            timeout_s=TIMEOUT_S,
            max_response_bytes=_UNBOUNDED,
            max_redirects=MAX_REDIRECTS,
        )
        async with self._web.stream(request) as response:
            if response.status != 200:
                raise Misbehaved(f"{location[:300]!r} answered {response.status}")
            _check_length(file, response)
            return await take(response.headers, response.chunks())


class _Parts:
    """The second part of an answer of two parts."""

    def __init__(self, response: StreamedResponse) -> None:
        self._chunks = response.chunks()
        self._reader = TwoParts(parse_boundary(response.headers.get("content-type")))
        self._first = b""

    async def read_headers(self) -> Mapping[str, str]:
        """Raises: BadMultipart, RemoteFault."""
        async for chunk in self._chunks:
            self._first = self._reader.feed(chunk)
            if self._reader.headers is not None:
                return self._reader.headers
        raise BadMultipart("the answer ends before its second part")

    async def body(self) -> AsyncIterator[bytes]:
        """Raises: BadMultipart when it is cut off; RemoteFault."""
        yield self._first
        async for chunk in self._chunks:
            if piece := self._reader.feed(chunk):
                yield piece
        if not self._reader.is_complete:
            raise BadMultipart("the second part has no end")


def _ask(file: RemoteFile, path: str, query: Query) -> Ask:
    return Ask(
        method="GET",
        path=path,
        query=(*query, *file.query, ("timeout_ms", str(file.timeout_ms))),
        timeout_s=TIMEOUT_S,
        max_response_bytes=_UNBOUNDED,
    )


def _check_length(file: RemoteFile, response: StreamedResponse) -> None:
    """Do not begin with what says that it is too long. Raises: RemoteMediaTooLarge."""
    length = response.headers.get("content-length", "")
    if length.isascii() and length.isdigit() and int(length[:20]) > file.max_bytes + _OVERHEAD_BYTES:
        raise RemoteMediaTooLarge(f"This media has more than {file.max_bytes} bytes.")


async def _refusal(response: StreamedResponse) -> MatrixError | _NotSpoken | Misbehaved:
    """What an answer other than 200 means."""
    errcode = await _errcode(response)
    match response.status, errcode:
        case _, "M_NOT_YET_UPLOADED":
            return NotYetUploaded("This media has not been uploaded yet.")
        case _, "M_TOO_LARGE":
            return RemoteMediaTooLarge("This media is too large for its own server.")
        case 404, "M_NOT_FOUND":
            return NotFound("There is no such media.")
        case 429, _:
            return LimitExceeded("The media's server is busy.", retry_after_ms=BUSY_MS)
        case status, (None | "M_UNRECOGNIZED") if 400 <= status < 500:
            return _NotSpoken(str(status))
        case status, _:
            return Misbehaved(f"the media's server answered {status} {str(errcode)[:100]}")


async def _errcode(response: StreamedResponse) -> str | None:
    body = b""
    async for chunk in response.chunks():
        body += chunk
        if len(body) > MAX_ERROR_BYTES:
            return None
    try:
        errcode = parse_object(body, MAX_ERROR_BYTES).get("errcode")
    except BadJson:
        return None
    return errcode if isinstance(errcode, str) else None
