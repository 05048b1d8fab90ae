"""The identifiers of Matrix and their grammar. A `NewType` value is made by a `parse_…` here, or read back
from our own store; nowhere else.

Spec: appendices, "Identifier grammar".
"""

import ipaddress
import re
from typing import Final, NewType

from ranvier.core.errors import BadIdentifier
from ranvier.core.limits import MAX_IDENTIFIER_BYTES

ServerName = NewType("ServerName", str)
UserID = NewType("UserID", str)
RoomID = NewType("RoomID", str)
RoomAlias = NewType("RoomAlias", str)
EventID = NewType("EventID", str)
DeviceID = NewType("DeviceID", str)
KeyID = NewType("KeyID", str)


StateKey = tuple[str, str]
"""(event type, state_key): the slot of a room's state that an event fills."""

_DNS_NAME: Final = re.compile(r"[A-Za-z0-9.-]{1,255}")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_STRICT_LOCALPART: Final = re.compile(r"[a-z0-9._=/+-]+")
_HISTORICAL_LOCALPART: Final = re.compile(r"[^:\0]*", re.DOTALL)
_BASE64URL_HASH: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_HASH_EVENT_ID: Final = re.compile(r"\$[A-Za-z0-9_+/-]{43}")
_KEY_VERSION: Final = re.compile(r"[A-Za-z0-9_]+")
_MEDIA_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,255}")


def parse_server_name(value: object) -> ServerName:
    """A host name, IPv4 address or bracketed IPv6 address, with an optional port.

    Raises: BadIdentifier.
    Spec: appendices, "Server name".
    """
    if not isinstance(value, str) or not 0 < len(value) <= MAX_IDENTIFIER_BYTES:
        raise BadIdentifier("a server name is a string of 1 to 255 characters")
    if _DNS_NAME.fullmatch(value):
        return ServerName(value)
    split_host_port(ServerName(value))
    return ServerName(value)


def split_host_port(name: ServerName) -> tuple[str, int | None]:
    """The host (IPv6 without brackets) and the port, if the name has one.

    Raises: BadIdentifier when the name breaks the grammar.
    """
    host, port = _split_brackets(name) if name.startswith("[") else _split_plain(name)
    if port is not None and (not _PORT.fullmatch(port) or int(port) > 65535):
        raise BadIdentifier(f"{name!r} has a port that is no number up to 65535")
    return host, None if port is None else int(port)


def _split_brackets(name: str) -> tuple[str, str | None]:
    address, bracket, rest = name[1:].partition("]")
    if not bracket or (rest and not rest.startswith(":")):
        raise BadIdentifier(f"{name!r} is no server name: bad brackets")
    try:
        ipaddress.IPv6Address(address)
    except ValueError as error:
        raise BadIdentifier(f"{name!r} is no server name: {address!r} is no IPv6 address") from error
    if "%" in address:
        raise BadIdentifier(f"{name!r} is no server name: zones are not allowed")
    return address, rest[1:] if rest else None


def _split_plain(name: str) -> tuple[str, str | None]:
    host, colon, port = name.partition(":")
    if not _DNS_NAME.fullmatch(host):
        raise BadIdentifier(f"{name[:300]!r} is no server name")
    return host, port if colon else None


def is_ip_literal(name: ServerName) -> bool:
    """Whether the host of `name` is an IPv4 or IPv6 address. Never raises for a parsed name."""
    host, _ = split_host_port(name)
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def server_of(identifier: str) -> ServerName:
    """The part behind the first colon of a user id, alias, or old-style room or event id.

    Raises: BadIdentifier when there is no colon (room ids of version 12, event ids of version 3 and up).
    """
    _, colon, server = identifier.partition(":")
    if not colon:
        raise BadIdentifier(f"{identifier[:300]!r} names no server")
    return ServerName(server)


def localpart_of(identifier: str) -> str:
    """What stands between the sigil and the first colon."""
    return identifier[1:].partition(":")[0]


def parse_user_id(value: object) -> UserID:
    """A user id, historical ones included: any characters but the colon and NUL, or none at all.

    Raises: BadIdentifier.
    Spec: appendices, "User Identifiers", "Historical User IDs".
    """
    localpart, _ = _parse_sigil(value, "@", "a user id")
    if not _HISTORICAL_LOCALPART.fullmatch(localpart):
        raise BadIdentifier(f"{value!r} has characters that no user id may have")
    return UserID(str(value))


def is_valid_new_localpart(localpart: str) -> bool:
    """Whether a new account may have this localpart: the strict grammar, lower case only."""
    return _STRICT_LOCALPART.fullmatch(localpart) is not None


def parse_room_alias(value: object) -> RoomAlias:
    """Raises: BadIdentifier. Spec: appendices, "Room aliases"."""
    localpart, _ = _parse_sigil(value, "#", "a room alias")
    if not localpart or "\0" in localpart:
        raise BadIdentifier(f"{value!r} is no room alias")
    return RoomAlias(str(value))


def parse_room_id(value: object) -> RoomID:
    """A room id of any version: `!opaque:server`, or `!` and the create event's hash (version 12).

    Raises: BadIdentifier.
    Spec: appendices, "Room IDs".
    """
    text = _check_identifier(value, "!", "a room id")
    opaque, colon, server = text[1:].partition(":")
    if not colon:
        if not _BASE64URL_HASH.fullmatch(opaque):
            raise BadIdentifier(f"{text!r} is no room id: without a server it must be a hash")
    else:
        if not opaque or "\0" in opaque:
            raise BadIdentifier(f"{text!r} is no room id")
        parse_server_name(server)
    return RoomID(text)


def parse_event_id(value: object) -> EventID:
    """An event id of any version; the room version's own form is checked with the event.

    Raises: BadIdentifier.
    Spec: appendices, "Event IDs".
    """
    if isinstance(value, str) and _HASH_EVENT_ID.fullmatch(value):
        return EventID(value)
    text = _check_identifier(value, "$", "an event id")
    opaque, colon, server = text[1:].partition(":")
    if not opaque or "\0" in opaque:
        raise BadIdentifier(f"{text!r} is no event id")
    if colon:
        parse_server_name(server)
    return EventID(text)


def parse_device_id(value: object) -> DeviceID:
    """Any non-empty string of at most 255 bytes without NUL: clients may choose their own."""
    if not isinstance(value, str) or not value or "\0" in value or _utf8_length(value) > MAX_IDENTIFIER_BYTES:
        raise BadIdentifier("a device id is a non-empty string of at most 255 bytes")
    return DeviceID(value)


def parse_key_id(value: object) -> tuple[str, str]:
    """(algorithm, version) of a signing key id such as ed25519:a_1.

    Raises: BadIdentifier.
    """
    if not isinstance(value, str):
        raise BadIdentifier("a key id is a string")
    algorithm, colon, version = value.partition(":")
    if not colon or not algorithm or not _KEY_VERSION.fullmatch(version):
        raise BadIdentifier(f"{value[:300]!r} is no key id: it should look like ed25519:name")
    return algorithm, version


def parse_mxc(value: object) -> tuple[ServerName, str]:
    """(server, media id) of an mxc:// URI.

    Raises: BadIdentifier; a media id with a slash, a dot or anything that a file system could take for a path
    is one.
    Spec: client-server API, "Matrix Content (mxc://) URIs".
    """
    if not isinstance(value, str) or not value.startswith("mxc://"):
        raise BadIdentifier("a content URI starts with mxc://")
    server, slash, media_id = value[6:].partition("/")
    if not slash or not _MEDIA_ID.fullmatch(media_id):
        raise BadIdentifier(f"{value[:300]!r} is no content URI")
    return parse_server_name(server), media_id


def _parse_sigil(value: object, sigil: str, what: str) -> tuple[str, ServerName]:
    text = _check_identifier(value, sigil, what)
    localpart, colon, server = text[1:].partition(":")
    if not colon:
        raise BadIdentifier(f"{text!r} is not {what}: it names no server")
    return localpart, parse_server_name(server)


def _check_identifier(value: object, sigil: str, what: str) -> str:
    if not isinstance(value, str) or not value.startswith(sigil):
        raise BadIdentifier(f"{what} is a string that starts with {sigil}")
    if _utf8_length(value) > MAX_IDENTIFIER_BYTES:
        raise BadIdentifier(f"{what} has at most {MAX_IDENTIFIER_BYTES} bytes")
    return value


def _utf8_length(value: str) -> int:
    if value.isascii():
        return len(value)
    try:
        return len(value.encode())
    except UnicodeEncodeError as error:
        raise BadIdentifier("lone surrogates are not allowed in an identifier") from error
