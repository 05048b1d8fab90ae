"""What a client asks for: the whole client-server API, as one device.

Spec: client-server API, "Scope"; MSC2967, whose unstable names deployed clients still send.
"""

import re
from typing import Final

import msgspec

from ranvier.core.errors import BadIdentifier
from ranvier.core.identifiers import DeviceID, parse_device_id
from ranvier.core.oauth.refusals import OAuthRefusal

API: Final = "urn:matrix:client:api:*"
DEVICE: Final = "urn:matrix:client:device:"
_UNSTABLE: Final = "urn:matrix:org.matrix.msc2967.client:"
_STABLE: Final = "urn:matrix:client:"
MAX_SCOPE_CHARS: Final = 2_000
# RFC 6749, 3.3.
_SCOPE: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*")


class Scope(msgspec.Struct, frozen=True):
    """What can be granted of what was asked for. `text` keeps the names that the client used."""

    text: str
    device_id: DeviceID


def parse_scope(text: str) -> Scope:
    """Words that mean nothing here, such as "openid", are left out, as RFC 6749, 3.3 allows: the answer says what
    was granted.

    Raises: OAuthRefusal: not the whole API, or not exactly one device.
    """
    if len(text) > MAX_SCOPE_CHARS or not _SCOPE.fullmatch(text):
        raise OAuthRefusal("invalid_scope", "The scope is not a list of words.")
    granted = {word: _stable(word) for word in text.split(" ") if _is_known(_stable(word))}
    devices = {word.removeprefix(DEVICE) for word in granted.values() if word != API}
    if API not in granted.values():
        raise OAuthRefusal("invalid_scope", f"The scope must have {API}.")
    if len(devices) != 1:
        raise OAuthRefusal("invalid_scope", f"The scope must have exactly one {DEVICE}<device_id>.")
    try:
        device_id = parse_device_id(devices.pop())
    except BadIdentifier as error:
        raise OAuthRefusal("invalid_scope", "The device id cannot be used.") from error
    return Scope(" ".join(granted), device_id)


def is_within(asked: str, granted: str) -> bool:
    """Whether a refresh asks for nothing but what was granted. Spec: RFC 6749, 6."""
    return {_stable(word) for word in asked.split(" ")} <= {_stable(word) for word in granted.split(" ")}


def _stable(word: str) -> str:
    return _STABLE + word.removeprefix(_UNSTABLE) if word.startswith(_UNSTABLE) else word


def _is_known(word: str) -> bool:
    return word == API or word.startswith(DEVICE)
