"""Proof Key for Code Exchange: who redeems a code is who asked for it. Spec: RFC 7636; S256 alone."""

import hashlib
import hmac
import re
from typing import Final

from ranvier.core.unpadded_base64 import encode_base64_urlsafe

METHOD: Final = "S256"
_VERIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{43,128}")
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}")


def is_challenge(text: str) -> bool:
    """Whether it can be the challenge of any verifier: 32 octets in base64."""
    return _CHALLENGE.fullmatch(text) is not None


def challenge_of(verifier: str) -> str:
    """`verifier` is ASCII."""
    return encode_base64_urlsafe(hashlib.sha256(verifier.encode("ascii")).digest())


def is_verified(challenge: str, verifier: str) -> bool:
    """Whether `verifier` is the one behind `challenge`. Any string may come."""
    return _VERIFIER.fullmatch(verifier) is not None and hmac.compare_digest(
        challenge.encode(), challenge_of(verifier).encode()
    )
