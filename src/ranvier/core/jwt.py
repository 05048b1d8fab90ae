"""JSON Web Tokens, signed with a shared secret. Source: RFC 7515, RFC 7519."""

import base64
import hashlib
import hmac
from typing import Final

from ranvier.core.canonical_json import JsonObject, encode

_HEADER: Final[JsonObject] = {"alg": "HS256", "typ": "JWT"}


def sign_jwt(claims: JsonObject, secret: str) -> str:
    """The token in its compact form, with HMAC-SHA-256."""
    signed = _base64(encode(_HEADER)) + b"." + _base64(encode(claims))
    signature = hmac.digest(secret.encode(), signed, hashlib.sha256)
    return (signed + b"." + _base64(signature)).decode("ascii")


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
