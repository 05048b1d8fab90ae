"""JSON Web Tokens, signed with a shared secret. Source: RFC 7515, RFC 7519."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Collection
from typing import Final

from ranvier.core.canonical_json import JsonObject, encode, parse_object
from ranvier.core.errors import BadJson, ProtocolFault

MAX_TOKEN_CHARS: Final = 16_384
_HEADER: Final[JsonObject] = {"alg": "HS256", "typ": "JWT"}


class BadJwt(ProtocolFault):
    """A token that proves nothing: not signed with the secret, not for us, not now."""


def sign_jwt(claims: JsonObject, secret: str) -> str:
    """The token in its compact form, with HMAC-SHA-256."""
    signed = _base64(encode(_HEADER)) + b"." + _base64(encode(claims))
    signature = hmac.digest(secret.encode(), signed, hashlib.sha256)
    return (signed + b"." + _base64(signature)).decode("ascii")


def verify_jwt(token: str, secret: str) -> JsonObject:
    """The claims of a token in compact form with HMAC-SHA-256; no other algorithm is taken.

    Raises: BadJwt.
    """
    if len(token) > MAX_TOKEN_CHARS or not token.isascii():
        raise BadJwt("The token is too long, or no token.")
    signed, _, signature = token.rpartition(".")
    expected = _base64(hmac.digest(secret.encode(), signed.encode(), hashlib.sha256))
    if not hmac.compare_digest(signature.encode(), expected):
        raise BadJwt("The signature of the token is wrong.")
    header, _, claims = signed.partition(".")
    if _parse(header).get("alg") != _HEADER["alg"] or "crit" in _parse(header):
        raise BadJwt("The token is not signed with HS256.")
    return _parse(claims)


def check_claims(claims: JsonObject, now_s: int, issuer: str | None, audiences: Collection[str]) -> None:
    """Whether a token is good now, and for us. `issuer` None, no `audiences`: whichever.

    Raises: BadJwt.
    Spec: RFC 7519, 4.1.
    """
    expires, begins = (claims.get(name) for name in ("exp", "nbf"))
    if any(type(time) not in (int, float, type(None)) for time in (expires, begins)):
        raise BadJwt("The times of the token are no numbers.")
    if (expires is not None and expires <= now_s) or (begins is not None and begins > now_s):
        raise BadJwt("The token is not good now.")
    if issuer is not None and claims.get("iss") != issuer:
        raise BadJwt("The token is another issuer's.")
    audience = claims.get("aud")
    named = audience if isinstance(audience, list) else [audience]
    if audiences and not any(one in named for one in audiences):
        raise BadJwt("The token is for somebody else.")


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def _parse(part: str) -> JsonObject:
    """Raises: BadJwt."""
    try:
        return parse_object(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (binascii.Error, BadJson) as error:
        raise BadJwt("The token cannot be read.") from error
