"""Where the pages and endpoints are."""

from typing import Final
from urllib.parse import urlencode

import msgspec

AUTHORIZE: Final = "/_ranvier/oauth/authorize"
TOKEN: Final = "/_ranvier/oauth/token"  # noqa: S105 - a path
REVOKE: Final = "/_ranvier/oauth/revoke"
REGISTER: Final = "/_ranvier/oauth/register"
DEVICE: Final = "/_ranvier/oauth/device"
LINK: Final = "/_ranvier/link"
SIGN_IN: Final = "/_ranvier/sign-in"
SIGN_UP: Final = "/_ranvier/sign-up"
SIGN_OUT: Final = "/_ranvier/sign-out"
CONTINUE: Final = "/_ranvier/sign-in/continue"
FORGOT: Final = "/_ranvier/forgot-password"
ACCOUNT: Final = "/_ranvier/account"
CONTACTS: Final = "/_ranvier/account/contacts"
AVATAR: Final = "/_ranvier/account/avatar"

RESUMABLE: Final = (AUTHORIZE, LINK, ACCOUNT, CONTACTS)
"""Pages to which signing in may lead on."""


class Addresses(msgspec.Struct, frozen=True):
    """`base`: the URL by which people reach this server, without a slash at its end."""

    base: str

    @property
    def issuer(self) -> str:
        """Spec: RFC 8414, 2; RFC 9207."""
        return f"{self.base}/"

    @property
    def is_secure(self) -> bool:
        return self.base.startswith("https://")

    def url(self, path: str, **query: str) -> str:
        """`path` may have a query already, if none is given."""
        return f"{self.base}{path}?{urlencode(query)}" if query else f"{self.base}{path}"
