"""Where a client wants the browser to be sent with a login token, and whether it may be."""

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import parse_qsl, quote, urlsplit

import msgspec

from ranvier.core.errors import InvalidParam

MAX_URL_CHARS: Final = 4_096

_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*")
_RUNS_OR_READS: Final = frozenset({"javascript", "data", "vbscript", "file", "blob", "about", "filesystem"})
"""Schemes of what a browser would run, or look for on the machine itself."""
_TOKEN: Final = "loginToken"  # noqa: S105 - the name of a parameter


class Redirect(msgspec.Struct, frozen=True):
    """A URL that a browser may be sent to."""

    url: str

    @property
    def place(self) -> str:
        """What a person can judge: the host of a web page, or the scheme that stands for an application."""
        parts = urlsplit(self.url)
        if parts.scheme == "https":
            return parts.netloc
        return f"{parts.scheme}://{parts.netloc}" if parts.scheme == "http" else f"{parts.scheme}:"

    @property
    def is_web_page(self) -> bool:
        return urlsplit(self.url).scheme in ("http", "https")

    def with_token(self, token: str) -> str:
        """The URL with the token in its query, where no other login token stays.

        Spec: client-server API, "Handling the callback from the Authentication server", step 4.
        """
        rest, hash_sign, fragment = self.url.partition("#")
        base, question_mark, query = rest.partition("?")
        kept = [part for part in query.split("&") if part and not _is_token(part)] if question_mark else []
        return f"{base}?{'&'.join([*kept, f'{_TOKEN}={quote(token)}'])}{hash_sign}{fragment}"


def parse_redirect(url: str) -> Redirect:
    """Raises: InvalidParam.

    Whatever browsers and this module might read differently is refused: white space, backslashes, what is not
    ASCII (and so was not percent-encoded), names before the host.
    """
    scheme, colon, rest = url.partition(":")
    scheme = scheme.lower()
    if len(url) > MAX_URL_CHARS:
        raise InvalidParam(f"redirectUrl has more than {MAX_URL_CHARS} characters.")
    if not colon or not _SCHEME.fullmatch(scheme) or scheme in _RUNS_OR_READS:
        raise InvalidParam("redirectUrl is no URL that a browser can be sent to.")
    if not all("!" <= one <= "~" and one not in '\\"<>`' for one in rest):
        raise InvalidParam("redirectUrl has characters that must be percent-encoded.")
    try:
        parts = urlsplit(f"{scheme}:{rest}")
        has_port = parts.port is None or parts.port > 0
    except ValueError as error:
        raise InvalidParam("redirectUrl is no URL.") from error
    if scheme in ("http", "https") and (not parts.hostname or "@" in parts.netloc or not has_port):
        raise InvalidParam("redirectUrl names no host.")
    return Redirect(f"{scheme}:{rest}")


def is_trusted(redirect: Redirect, trusted: Iterable[str]) -> bool:
    """Whether the URL is one of these, or below one: the same scheme and host, and a path that begins with the same
    segments.
    """
    return any(_is_below(redirect.url, one) for one in trusted)


def _is_below(url: str, top: str) -> bool:
    here, there = urlsplit(url), urlsplit(top)
    if (here.scheme, here.netloc.lower()) != (there.scheme, there.netloc.lower()):
        return False
    path, start = here.path, there.path
    # Browsers take dots for steps, in whichever notation.
    if any(segment.lower().replace("%2e", ".") in (".", "..") for segment in path.split("/")):
        return False
    return path == start or path.startswith(start if start.endswith("/") else f"{start}/")


def _is_token(part: str) -> bool:
    return any(name == _TOKEN for name, _ in parse_qsl(part, keep_blank_values=True))
