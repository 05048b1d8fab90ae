"""Where a client may be answered. A redirect URI is all by which a public client can be told from another, so the
rules are strict.

Spec: client-server API, "Redirect URI validation"; RFC 8252, section 7.
"""

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import SplitResult, urlsplit

MAX_URI_CHARS: Final = 2_000
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
# RFC 3986, section 2. No backslash, blank or control character, which browsers read in ways of their own.
_URI: Final = re.compile(r"[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+")
_HOST: Final = re.compile(r"[a-z0-9-]+(?:\.[a-z0-9-]+)+")
_PORT: Final = re.compile(r"[0-9]{1,5}")
# One slash behind the scheme or none, so that there is no authority.
_PRIVATE: Final = re.compile(r"([a-z][a-z0-9+.-]*):(?!//).*")


def web_host(uri: str) -> str | None:
    """The host of an https URI without user and password; None: it is no such URI."""
    parts = split_uri(uri)
    if parts is None or parts.scheme != "https":
        return None
    host, _ = _authority(parts)
    return host if host is not None and _HOST.fullmatch(host) else None


def is_below(host: str, base: str) -> bool:
    """Whether it is the same host or one below it."""
    return host == base or host.endswith("." + base)


def is_web_redirect(uri: str, base: str) -> bool:
    """Whether it may be registered by a web client whose `client_uri` has the host `base`."""
    host = web_host(uri)
    return host is not None and is_below(host, base) and "#" not in uri


def is_native_redirect(uri: str, base: str) -> bool:
    """The same for a native client: a scheme of its own, loopback, or a claimed https URI."""
    if is_web_redirect(uri, base):
        return True
    parts = split_uri(uri)
    if parts is None or "#" in uri:
        return False
    if parts.scheme == "http":
        host, port = _authority(parts)
        return host in LOOPBACK and port is None
    scheme = _PRIVATE.fullmatch(uri)
    own = ".".join(reversed(base.split(".")))
    return scheme is not None and (scheme[1] == own or scheme[1].startswith(own + "."))


def is_registered(uri: str, registered: Sequence[str]) -> bool:
    """Whether a request names one of the registered URIs: the very text; on loopback with any port."""
    if uri in registered:
        return True
    plain = _without_loopback_port(uri)
    return plain is not None and plain in registered


def form_target(uri: str) -> str:
    """What a page's policy says so that its form may lead to the URI: an origin, or where there is none a scheme.

    Spec: Content Security Policy Level 3, "form-action". `uri` is a registered one.
    """
    parts = urlsplit(uri)
    # Brackets of IPv6 cannot be written in a policy.
    is_plain = parts.scheme in ("http", "https") and "[" not in parts.netloc
    return f"{parts.scheme}://{parts.netloc}" if is_plain else f"{parts.scheme}:"


def split_uri(uri: str) -> SplitResult | None:
    """None: it is no URI that could be used."""
    if len(uri) > MAX_URI_CHARS or not _URI.fullmatch(uri):
        return None
    try:
        return urlsplit(uri)
    except ValueError:
        return None


def _authority(parts: SplitResult) -> tuple[str | None, str | None]:
    """Host in lower case and port; no host where there is a user, too."""
    netloc = parts.netloc.lower()
    if "@" in netloc:
        return None, None
    bracket = netloc.rfind("]")
    colon = netloc.find(":", bracket + 1)
    if colon < 0:
        return netloc, None
    port = netloc[colon + 1 :]
    return (netloc[:colon], port) if _PORT.fullmatch(port) and int(port) < 65_536 else (None, None)


def _without_loopback_port(uri: str) -> str | None:
    """None: it has no port, or is not on loopback."""
    parts = split_uri(uri)
    if parts is None or parts.scheme != "http":
        return None
    host, port = _authority(parts)
    if host not in LOOPBACK or port is None or "#" in uri:
        return None
    return uri.replace(parts.netloc, parts.netloc[: -len(port) - 1], 1)
