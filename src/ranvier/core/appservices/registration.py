"""What a registration file says, checked. The faults are sentences for the administrator who wrote it.

Spec: application service API, "Registration" (definitions/registration.yaml).
"""

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from ranvier.core.appservices.namespaces import Namespace, Namespaces, compile_expression
from ranvier.core.errors import BadIdentifier, ProtocolFault
from ranvier.core.identifiers import ServerName, UserID, parse_user_id

MAX_NAMESPACES: Final = 1_000
MAX_REGEX_CHARS: Final = 10_000
MAX_ID_CHARS: Final = 255

# MSC2409 and MSC3202 before they were part of the specification; bridges write both names into their files.
_EPHEMERAL: Final = ("receive_ephemeral", "de.sorunome.msc2409.push_ephemeral", "push_ephemeral")
_ENCRYPTION: Final = "org.matrix.msc3202"

# RFC 6750, "Authorization Request Header Field"; some files in the wild have more, so any visible ASCII.
_TOKEN: Final = re.compile(r"[\x21-\x7e]+")


class BadRegistration(ProtocolFault):
    """A registration that cannot be used."""


class Registration(msgspec.Struct, frozen=True, kw_only=True):
    """An application service."""

    id: str
    url: str | None  # without a slash at its end; None: it wants no traffic
    token_hash: bytes  # SHA-256 of as_token
    hs_token: str
    namespaces: Namespaces
    is_rate_limited: bool = True  # its users; never its sender
    protocols: Sequence[str] = ()
    receives_ephemeral: bool = False
    receives_encryption: bool = False

    @property
    def sender(self) -> UserID:
        """The user that the service is when it names no other."""
        return self.namespaces.sender

    @property
    def receives_messages(self) -> bool:
        """Whether it gets what is sent to devices of its users."""
        return self.receives_ephemeral or self.receives_encryption


def hash_as_token(token: str) -> bytes:
    """What of a service's token is kept, and compared."""
    return sha256(token.encode("utf-8", "surrogatepass")).digest()


def parse_registration(value: object, server: ServerName) -> Registration:
    """`value`: what YAML makes of the file.

    Raises: BadRegistration.
    """
    if not isinstance(value, dict):
        raise BadRegistration("it is no mapping of names to values")
    for key in ("id", "url", "as_token", "hs_token", "sender_localpart", "namespaces"):
        if key not in value:
            raise BadRegistration(f"{key} is missing")
    return Registration(
        id=_id(value["id"]),
        url=_url(value["url"]),
        token_hash=hash_as_token(_token(value, "as_token")),
        hs_token=_token(value, "hs_token"),
        namespaces=_namespaces(value["namespaces"], server, _sender(value["sender_localpart"], server)),
        is_rate_limited=_flag(value, "rate_limited", otherwise=True),
        protocols=_protocols(value.get("protocols")),
        receives_ephemeral=True in [_flag(value, key) for key in _EPHEMERAL],
        receives_encryption=_flag(value, _ENCRYPTION),
    )


def _id(value: object) -> str:
    if not isinstance(value, str) or not value or len(value) > MAX_ID_CHARS or "\0" in value:
        raise BadRegistration(f"id is a text of 1 to {MAX_ID_CHARS} characters (in quotes if it is a number)")
    return value


def _url(value: object) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise BadRegistration("url is a text, or null for no traffic")
    try:
        parts = urlsplit(value)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good or not _TOKEN.fullmatch(value) or parts.query or parts.fragment:
        raise BadRegistration(f"url: {value!r} is no URL such as http://127.0.0.1:9000")
    return value.rstrip("/")


def _token(registration: Mapping[Any, Any], key: str) -> str:
    value = registration[key]
    if not isinstance(value, str):
        raise BadRegistration(f"{key} is a text (in quotes if it is a number)")
    if not _TOKEN.fullmatch(value):
        raise BadRegistration(f"{key} is empty, or has characters that cannot be sent in a header")
    return value


def _sender(value: object, server: ServerName) -> UserID:
    if not isinstance(value, str) or not value:
        raise BadRegistration("sender_localpart is a text (in quotes if it is a number)")
    if value.startswith("@") or ":" in value:
        raise BadRegistration(
            f"sender_localpart: {value!r} is to be what stands between @ and : of the user id"
        )
    try:
        return parse_user_id(f"@{value}:{server}")
    except BadIdentifier as error:
        raise BadRegistration(f"sender_localpart: {error}") from error


def _namespaces(value: object, server: ServerName, sender: UserID) -> Namespaces:
    if not isinstance(value, dict):
        raise BadRegistration("namespaces is a mapping with users, aliases and rooms")
    unknown = [key for key in value if key not in ("users", "aliases", "rooms")]
    if unknown:
        raise BadRegistration(f"namespaces: {unknown[0]!r} is none of users, aliases and rooms")
    users, aliases, rooms = (
        _list_namespaces(value.get(kind), kind) for kind in ("users", "aliases", "rooms")
    )
    return Namespaces(server=server, sender=sender, users=users, aliases=aliases, rooms=rooms)


def _list_namespaces(value: object, kind: str) -> tuple[Namespace, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise BadRegistration(f"namespaces.{kind} is a list")
    if len(value) > MAX_NAMESPACES:
        raise BadRegistration(f"namespaces.{kind} has more than {MAX_NAMESPACES} entries")
    return tuple(_namespace(entry, f"namespaces.{kind}[{place}]") for place, entry in enumerate(value))


def _namespace(value: object, place: str) -> Namespace:
    if not isinstance(value, dict):
        raise BadRegistration(f"{place} is a mapping with regex and exclusive")
    regex, exclusive = value.get("regex"), value.get("exclusive")
    if not isinstance(regex, str) or len(regex) > MAX_REGEX_CHARS:
        raise BadRegistration(f"{place}.regex is a text of at most {MAX_REGEX_CHARS} characters")
    if not isinstance(exclusive, bool):
        raise BadRegistration(f"{place}.exclusive is true or false")
    try:
        return Namespace(compile_expression(regex), exclusive)
    except (re.error, OverflowError, RecursionError) as error:
        raise BadRegistration(f"{place}.regex: {regex[:200]!r} is no regular expression: {error}") from error


def _protocols(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(one, str) and one for one in value):
        raise BadRegistration("protocols is a list of texts")
    return tuple(dict.fromkeys(value))


def _flag(registration: Mapping[Any, Any], key: str, *, otherwise: bool = False) -> bool:
    value = registration.get(key, otherwise)
    if not isinstance(value, bool):
        raise BadRegistration(f"{key} is true or false")
    return value
