"""Requests between servers carry a signature in an `Authorization: X-Matrix …` header. What is signed here is
bytes: the canonical JSON of the request, put together around a body that is canonical already.

Spec: server-server API, "Request Authentication"; RFC 9110, sections 5.6.2, 5.6.4 and 11.4.
"""

import re
from collections.abc import Collection
from typing import Final

import msgspec

from ranvier.core import canonical_json
from ranvier.core.errors import BadHeader, BadIdentifier
from ranvier.core.identifiers import KeyID, ServerName, parse_key_id, parse_server_name
from ranvier.core.signing import SigningKey, VerifyKey, parse_signature
from ranvier.core.unpadded_base64 import encode_base64

MAX_HEADER_CHARS: Final = 2048
"""Two server names, a key id and a signature need fewer than 900."""

_SCHEME: Final = re.compile(r"X-Matrix[ \t]+", re.IGNORECASE)
_SEPARATORS: Final = re.compile(r"[ \t,]*")
# RFC 9110 allows only a token without quotes. Peers leave the quotes out around colons (which we are asked to
# accept), brackets, slashes and equals signs too, and nothing is gained by refusing them.
_PARAMETER: Final = re.compile(
    r"""(?P<name>[!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*=[ \t]*
        (?:"(?P<quoted>(?:[^"\\\x00-\x08\x0a-\x1f\x7f]|\\[^\x00-\x08\x0a-\x1f\x7f])*)"|(?P<bare>[^\s,"\\]+))
        [ \t]*(?=,|\Z)""",
    re.VERBOSE,
)
_ESCAPED: Final = re.compile(r"\\(.)")
_SIGNATURE: Final = re.compile(r"[A-Za-z0-9+/]{86}(?:==)?")


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """What an X-Matrix header claims. Nothing in it is true before the signature has been verified."""

    origin: ServerName
    destination: ServerName | None  # None: sent by a server older than v1.3 of the specification
    key_id: KeyID
    signature: str  # base64 of 64 bytes, unpadded


def build_header(origin: ServerName, destination: ServerName, key_id: KeyID, signature: str) -> str:
    """The value of the Authorization header. `signature` is unpadded base64."""
    return f'X-Matrix origin="{origin}",destination="{destination}",key="{key_id}",sig="{signature}"'


def parse_header(value: str) -> Credentials:
    """Read one Authorization header.

    Raises: BadHeader, whatever is wrong with it.
    """
    parameters = _parse_parameters(value)
    try:
        destination = parameters.get("destination")
        key_id = parameters["key"]
        parse_key_id(key_id)
        signature = parameters["sig"]
        if not _SIGNATURE.fullmatch(signature):
            raise BadHeader("the sig of an X-Matrix header is no base64 of 64 bytes")
        return Credentials(
            origin=parse_server_name(parameters["origin"]),
            destination=None if destination is None else parse_server_name(destination),
            key_id=KeyID(key_id),
            signature=signature[:86],
        )
    except KeyError as error:
        raise BadHeader(f"an X-Matrix header needs the parameter {error.args[0]}") from error
    except BadIdentifier as error:
        raise BadHeader(f"bad X-Matrix header: {error}") from error


def sign_request(key: SigningKey, message: bytes, origin: ServerName, destination: ServerName) -> str:
    """The Authorization header for a request whose `bytes_to_sign` are `message`."""
    return build_header(origin, destination, key.key_id, encode_base64(key.sign(message)))


def check_signature(credentials: Credentials, message: bytes, key: VerifyKey) -> None:
    """Check the signature over a request whose `bytes_to_sign` are `message`.

    Args: key - the one that `credentials.origin` publishes now as `credentials.key_id`.
    Raises: BadSignature.
    """
    key.verify(message, parse_signature(credentials.signature))


def check_destination(credentials: Credentials, own_names: Collection[ServerName]) -> None:
    """Raises: BadHeader when the request was meant for another server."""
    if credentials.destination is not None and credentials.destination not in own_names:
        raise BadHeader(f"this request is for {credentials.destination}, which is not this server")


def bytes_to_sign(
    *, method: str, uri: str, origin: ServerName, destination: ServerName, content: bytes | None
) -> bytes:
    """The canonical JSON that the signature of a request covers.

    Args: destination - of a received request whose header names none: our own server name;
        uri - path and query exactly as they are sent, from `/_matrix/` on;
        content - the body's canonical JSON, or None if there is no body.
    Raises: BadJson when a text has lone surrogates.
    """
    envelope = canonical_json.encode(
        {"destination": destination, "method": method, "origin": origin, "uri": uri}
    )
    # "content" sorts before every other key, so the body need not be decoded to be put in its place.
    return envelope if content is None else b'{"content":' + content + b"," + envelope[1:]


def _parse_parameters(value: str) -> dict[str, str]:
    if len(value) > MAX_HEADER_CHARS:
        raise BadHeader(f"an X-Matrix header has at most {MAX_HEADER_CHARS} characters")
    scheme = _SCHEME.match(value)
    if scheme is None:
        raise BadHeader("the Authorization header is not of the scheme X-Matrix")
    parameters: dict[str, str] = {}
    position = _skip_separators(value, scheme.end())
    while position < len(value):
        match = _PARAMETER.match(value, position)
        if match is None:
            raise BadHeader("an X-Matrix header is a list of name=value, separated by commas")
        name = match["name"].lower()
        if name in parameters:
            raise BadHeader(f"the X-Matrix header has two parameters {name}")
        quoted = match["quoted"]
        parameters[name] = match["bare"] if quoted is None else _ESCAPED.sub(r"\1", quoted)
        position = _skip_separators(value, match.end())
    return parameters


def _skip_separators(value: str, position: int) -> int:
    match = _SEPARATORS.match(value, position)
    return position if match is None else match.end()
