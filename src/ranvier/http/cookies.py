"""Cookies of pages: small secrets that a browser keeps and brings back to this server alone. Source: RFC 6265."""

import re
from collections.abc import Mapping
from typing import Final

from ranvier.http.request import Request

_HOST_PREFIX: Final = "__Host-"


class CookieJar:
    """Names and writes cookies so that no other site, and no other host of the same domain, can set or read them."""

    def __init__(self, *, is_https: bool) -> None:
        """`is_https`: how browsers reach this server. Without it, only names protect."""
        self._is_https = is_https

    def write(self, name: str, value: str, max_age_s: int) -> str:
        """The Set-Cookie header. It comes along when a page of another site leads here, but with none of its forms."""
        prefix, secure = (_HOST_PREFIX, "; Secure") if self._is_https else ("", "")
        return f"{prefix}{name}={value}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Lax{secure}"

    def read(self, request: Request) -> Mapping[str, str]:
        """The cookies that this jar wrote, by name. The last one of a name counts."""
        prefix = _HOST_PREFIX if self._is_https else ""
        # Several headers are joined by commas, of which our cookies have none.
        pairs = (pair.strip().partition("=") for pair in re.split("[;,]", request.headers.get("cookie", "")))
        return {
            name.removeprefix(prefix): value.strip()
            for name, _, value in pairs
            if name.startswith(prefix) and name != prefix
        }
