"""Which URLs can be those of an identity provider."""

from typing import Final
from urllib.parse import urlsplit

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def is_endpoint(url: str, *, may_be_near: bool) -> bool:
    """Whether a URL can be a provider's: with https, or (`may_be_near`) with http on this very machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return False
    if not host or "@" in parts.netloc or parts.fragment or not is_plain(url):
        return False
    return parts.scheme == "https" or (may_be_near and parts.scheme == "http" and host in _LOOPBACK)


def is_plain(text: str) -> bool:
    """Printable ASCII: nothing that could end a header, or mean different things to different readers."""
    return all("!" <= one <= "~" for one in text)
