"""ID tokens: what a provider says about who has signed in, and what of it must hold.

The token comes straight from the token endpoint, over a connection whose server is authenticated. So its signature
need not be checked (OpenID Connect Core 1.0, 3.1.3.7, rule 6), and is not. Whoever takes a token from anywhere else
must not use this module.
"""

import base64
import binascii
import hmac
from typing import Final

import msgspec

from ranvier.core.canonical_json import JsonObject, parse_object
from ranvier.core.errors import BadJson, ProtocolFault

MAX_TOKEN_CHARS: Final = 65_536
MAX_SKEW_S: Final = 120
"""How far the clocks of two servers may be apart."""
MAX_AGE_S: Final = 600
"""A token is made when the code is exchanged: an old one was made for something else."""
MAX_SUBJECT_CHARS: Final = 255


class BadIdToken(ProtocolFault):
    """An ID token that proves nothing to us."""


class Expected(msgspec.Struct, frozen=True):
    """What the token must be about."""

    issuer: str
    client_id: str
    nonce: str


def parse_id_token(token: object) -> JsonObject:
    """The claims of a token in compact form. Raises: BadIdToken."""
    if not isinstance(token, str) or len(token) > MAX_TOKEN_CHARS:
        raise BadIdToken("there is no ID token of a reasonable size")
    parts = token.split(".")
    # Five parts are an encrypted token: nobody asked for one.
    if len(parts) != 3:
        raise BadIdToken("the ID token has not three parts")
    try:
        payload = base64.b64decode(parts[1] + "=" * (-len(parts[1]) % 4), altchars=b"-_", validate=True)
        return parse_object(payload)
    except (binascii.Error, ValueError, BadJson) as error:
        raise BadIdToken("the claims of the ID token cannot be read") from error


def check_id_token(claims: JsonObject, expected: Expected, now_s: int) -> str:
    """The subject, if the claims are those of a token for us, of now.

    Raises: BadIdToken.
    Spec: OpenID Connect Core 1.0, 2 and 3.1.3.7.
    """
    # Rule 2.
    if claims.get("iss") != expected.issuer:
        raise BadIdToken("the ID token is another issuer's")
    _check_audience(claims, expected.client_id)
    # Rules 9 and 10.
    expires, issued = _seconds(claims, "exp"), _seconds(claims, "iat")
    if expires + MAX_SKEW_S <= now_s:
        raise BadIdToken("the ID token has expired")
    if not now_s - MAX_AGE_S - MAX_SKEW_S <= issued <= now_s + MAX_SKEW_S:
        raise BadIdToken("the ID token was not issued just now")
    # Rule 11.
    nonce = claims.get("nonce")
    if not isinstance(nonce, str) or not hmac.compare_digest(nonce.encode(), expected.nonce.encode()):
        raise BadIdToken("the ID token is the answer to another request")
    return check_subject(claims.get("sub"))


def check_subject(subject: object) -> str:
    """Who somebody is at the provider: a text, or (where it is no OpenID provider) a number. Raises: BadIdToken."""
    if type(subject) is int:
        subject = str(subject)
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT_CHARS or "\0" in subject:
        raise BadIdToken("there is no usable subject")
    return subject


def _check_audience(claims: JsonObject, client_id: str) -> None:
    """Raises: BadIdToken."""
    audience = claims.get("aud")
    # Rule 3. A token for others besides is for us if it was issued to us: rules 4 and 5.
    audiences = audience if isinstance(audience, list) else [audience]
    if client_id not in audiences:
        raise BadIdToken("the ID token is not for this client")
    party = claims.get("azp")
    if (party is not None or len(audiences) > 1) and party != client_id:
        raise BadIdToken("the ID token was issued to another client")


def _seconds(claims: JsonObject, name: str) -> int | float:
    """Raises: BadIdToken."""
    value = claims.get(name)
    if type(value) is int or type(value) is float:
        return value
    raise BadIdToken(f"the ID token has no time {name}")
