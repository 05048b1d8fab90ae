"""Unpadded base64, the form of every binary value in Matrix.

Spec: appendices, "Unpadded Base64"; RFC 4648.
"""

import binascii
from typing import Final

from ranvier.core.errors import BadBase64

_TO_URLSAFE: Final = bytes.maketrans(b"+/", b"-_")
_FROM_URLSAFE: Final = bytes.maketrans(b"-_", b"+/")


def encode_base64(data: bytes) -> str:
    """Standard alphabet, no padding."""
    return binascii.b2a_base64(data, newline=False).rstrip(b"=").decode("ascii")


def encode_base64_urlsafe(data: bytes) -> str:
    """URL-safe alphabet (`-` and `_`), no padding."""
    return binascii.b2a_base64(data, newline=False).rstrip(b"=").translate(_TO_URLSAFE).decode("ascii")


def decode_base64(text: object) -> bytes:
    """The bytes that `text` encodes, in either alphabet, with or without padding.

    Raises: BadBase64 when it is no string, has other characters, or a length that no encoding has.
    """
    if not isinstance(text, str) or not text.isascii():
        raise BadBase64("base64 is a string of ASCII characters")
    digits = text.encode("ascii").rstrip(b"=").translate(_FROM_URLSAFE)
    try:
        return binascii.a2b_base64(digits + b"=" * (-len(digits) % 4), strict_mode=True)
    except binascii.Error as error:
        raise BadBase64(f"not base64: {error}") from error
