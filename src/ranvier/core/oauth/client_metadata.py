"""What a client says of itself when it registers.

Spec: client-server API, "Client registration"; RFC 7591.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from ranvier.core.canonical_json import JsonObject, encode
from ranvier.core.oauth.redirect_uris import is_below, is_native_redirect, is_web_redirect, web_host
from ranvier.core.oauth.refusals import OAuthRefusal
from ranvier.core.unpadded_base64 import encode_base64_urlsafe

AUTHORIZATION_CODE: Final = "authorization_code"
REFRESH_TOKEN: Final = "refresh_token"  # noqa: S105 - the name of a grant
DEVICE_CODE: Final = "urn:ietf:params:oauth:grant-type:device_code"
GRANT_TYPES: Final = (AUTHORIZATION_CODE, REFRESH_TOKEN, DEVICE_CODE)

_NO_SECRET: Final = "none"  # noqa: S105 - the name of a method
MAX_REDIRECT_URIS: Final = 20
MAX_NAME_CHARS: Final = 200
MAX_WORDS: Final = 50


class Client(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A registered client: what is kept, shown to people, and told to the client again."""

    client_uri: str
    application_type: Literal["web", "native"]
    grant_types: tuple[str, ...]
    response_types: tuple[str, ...] = ()
    redirect_uris: tuple[str, ...] = ()
    client_name: str | None = None
    logo_uri: str | None = None
    tos_uri: str | None = None
    policy_uri: str | None = None

    @property
    def client_id(self) -> str:
        """The same for the same metadata, so that the many who use one client register it once."""
        digest = hashlib.sha256(encode(msgspec.to_builtins(self))).digest()
        return encode_base64_urlsafe(digest)

    @property
    def host(self) -> str:
        """By which people tell it from others."""
        return web_host(self.client_uri) or ""

    @property
    def name(self) -> str:
        """As people are shown it."""
        return self.client_name or self.host


class _Asked(msgspec.Struct, frozen=True):
    """The fields that mean something here. The rest is left out, translations included, and so not registered."""

    client_uri: str
    application_type: str = "web"
    redirect_uris: list[str] = []
    grant_types: list[str] | None = None
    response_types: list[str] | None = None
    token_endpoint_auth_method: str = _NO_SECRET
    client_name: str | None = None
    logo_uri: str | None = None
    tos_uri: str | None = None
    policy_uri: str | None = None


def parse_client(body: JsonObject) -> Client:
    """Raises: OAuthRefusal: invalid_client_metadata or invalid_redirect_uri."""
    try:
        asked = msgspec.convert(body, _Asked)
    except msgspec.ValidationError as error:
        raise _bad(f"{error}.") from error
    base = web_host(asked.client_uri)
    if base is None:
        raise _bad("client_uri must be an https URL with a domain, and without a user.")
    _check_pages(asked, base)
    if asked.token_endpoint_auth_method != _NO_SECRET:
        raise _bad("Only public clients: token_endpoint_auth_method must be none.")
    if asked.client_name is not None and not _is_name(asked.client_name):
        raise _bad(f"client_name has 1 to {MAX_NAME_CHARS} printable characters.")
    grant_types = _known(asked.grant_types, (AUTHORIZATION_CODE, REFRESH_TOKEN), GRANT_TYPES)
    response_types = _known(asked.response_types, ("code",), ("code",))
    if AUTHORIZATION_CODE in grant_types:
        if not response_types:
            raise _bad("response_types must have code.")
    elif DEVICE_CODE not in grant_types:
        raise _bad("grant_types must have authorization_code, or the device code.")
    match asked.application_type:
        case "web" | "native" as kind:
            _check_redirects(asked.redirect_uris, base, kind, is_needed=AUTHORIZATION_CODE in grant_types)
        case _:
            raise _bad("application_type is web or native.")
    return Client(
        client_uri=asked.client_uri,
        application_type=kind,
        # Whoever is authorized gets a refresh token, so every client can use one.
        grant_types=tuple(one for one in GRANT_TYPES if one in grant_types or one == REFRESH_TOKEN),
        response_types=response_types if AUTHORIZATION_CODE in grant_types else (),
        redirect_uris=tuple(asked.redirect_uris),
        client_name=asked.client_name,
        logo_uri=asked.logo_uri,
        tos_uri=asked.tos_uri,
        policy_uri=asked.policy_uri,
    )


def describe_client(client: Client) -> dict[str, Any]:
    """What the client is told. Spec: RFC 7591, 3.2.1."""
    return {
        "client_id": client.client_id,
        "token_endpoint_auth_method": _NO_SECRET,
        **msgspec.to_builtins(client),
    }


def _check_pages(asked: _Asked, base: str) -> None:
    for field in ("logo_uri", "tos_uri", "policy_uri"):
        uri = getattr(asked, field)
        host = None if uri is None else web_host(uri)
        if uri is not None and (host is None or not is_below(host, base)):
            raise _bad(f"{field} must be an https URL on the host of client_uri or below it.")


def _check_redirects(
    uris: Sequence[str], base: str, kind: Literal["web", "native"], *, is_needed: bool
) -> None:
    if len(uris) > MAX_REDIRECT_URIS or (is_needed and not uris):
        raise _bad_redirect(f"There must be 1 to {MAX_REDIRECT_URIS} redirect_uris.")
    is_good = is_web_redirect if kind == "web" else is_native_redirect
    for uri in uris:
        if not is_good(uri, base):
            raise _bad_redirect(f"This is no redirect URI for a {kind} client of {base}: {uri[:200]}")


def _known(asked: list[str] | None, default: tuple[str, ...], known: tuple[str, ...]) -> tuple[str, ...]:
    """What is asked for of what is known: unknown words are ignored, as the specification wants."""
    if asked is None:
        return default
    if len(asked) > MAX_WORDS:
        raise _bad("There are too many grant_types or response_types.")
    return tuple(one for one in known if one in asked)


def _is_name(name: str) -> bool:
    return 0 < len(name) <= MAX_NAME_CHARS and name.isprintable() and not name.isspace()


def _bad(description: str) -> OAuthRefusal:
    return OAuthRefusal("invalid_client_metadata", description)


def _bad_redirect(description: str) -> OAuthRefusal:
    return OAuthRefusal("invalid_redirect_uri", description)
