"""Pages and pictures of the web, fetched for users: bounded, and each hop judged before it is made."""

import ipaddress
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

import msgspec

from ranvier.core.globs import compile_host_globs
from ranvier.io.ports import HttpClient, HttpRequest, Misbehaved, StreamedResponse

MAX_URL_CHARS: Final = 4096
MAX_REDIRECTS: Final = 5
TIMEOUT_S: Final = 15.0
"""Of each hop, its body included."""
_STREAM_BYTES: Final = 2**40
"""More than anybody reads: where to stop is the reader's to say."""

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_UNSAFE: Final = "%/:=&?~#+!$,;'@()*[]"
_CONTROL: Final = re.compile(r"[\x00-\x20\x7f]")


class BadUrl(ValueError):
    """No URL of a page that this server fetches."""


class WebFile(msgspec.Struct, frozen=True):
    """An answer with status 200, and where it came from in the end."""

    url: str
    content_type: str
    response: StreamedResponse


class Web:
    """Fetches for users."""

    def __init__(self, http: HttpClient, denied_hosts: Sequence[str]) -> None:
        """`http` must not lead into private networks; `denied_hosts`: globs."""
        self._http = http
        self._is_denied = compile_host_globs(pattern.lower() for pattern in denied_hosts)

    def parse(self, url: str) -> str:
        """The URL as it is sent: host in ASCII, without fragment and user. Raises: BadUrl."""
        if len(url) > MAX_URL_CHARS or _CONTROL.search(url):
            raise BadUrl("this is no URL, or one that is too long")
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").rstrip("."), parts.port
            host = _ascii_host(host.lower())
        except ValueError as error:
            raise BadUrl("this is no URL") from error
        if parts.scheme not in ("http", "https") or not host:
            raise BadUrl("this is no URL of a web page")
        if self._is_denied(host):
            raise BadUrl("pages of this host are not fetched")
        shown = f"[{host}]" if ":" in host else host
        place = shown if port is None else f"{shown}:{port}"
        return urlunsplit(
            (parts.scheme, place, quote(parts.path or "/", _UNSAFE), quote(parts.query, _UNSAFE), "")
        )

    @asynccontextmanager
    async def open(self, url: str, accept: str) -> AsyncIterator[WebFile]:
        """GET, redirects followed. Raises: BadUrl, RemoteFault."""
        for _ in range(MAX_REDIRECTS + 1):
            url = self.parse(url)
            request = HttpRequest(
                method="GET",
                url=url,
                headers={"Accept": accept, "Accept-Language": "en"},
                timeout_s=TIMEOUT_S,
                max_response_bytes=_STREAM_BYTES,
            )
            async with self._http.stream(request) as response:
                location = response.headers.get("location")
                if response.status not in _REDIRECTS or location is None:
                    if response.status != 200:
                        raise Misbehaved(f"the page answered {response.status}")
                    yield WebFile(url, response.headers.get("content-type", ""), response)
                    return
            url = _joined(url, location)
        raise Misbehaved(f"more than {MAX_REDIRECTS} redirects")


async def read_head(file: WebFile, max_bytes: int) -> bytes:
    """The first `max_bytes` of a page, or all of it: what matters stands in its head. Raises: RemoteFault."""
    body = bytearray()
    async for chunk in file.response.chunks():
        body += chunk
        if len(body) >= max_bytes:
            break
    return bytes(body[:max_bytes])


def _ascii_host(host: str) -> str:
    """What a resolver would take for an address (127.1, 0x7f000001) stays as it is: the guard judges it later.

    Raises: ValueError, UnicodeError among them.
    """
    return str(ipaddress.IPv6Address(host)) if ":" in host else host.encode("idna").decode("ascii")


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location.strip())
    except ValueError as error:
        raise BadUrl("a redirect to no URL") from error
