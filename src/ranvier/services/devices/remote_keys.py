"""Keys of other servers' users in the form in which they are kept and shown: what is malformed is left out.

Spec: server-server API, "End-to-End Encryption", "Device Management".
"""

import logging
from collections.abc import Iterable
from typing import Final

from ranvier.core.canonical_json import JsonObject, encode
from ranvier.core.encryption_keys import is_name, parse_cross_signing_key
from ranvier.core.errors import BadKey
from ranvier.core.identifiers import DeviceID, UserID
from ranvier.core.limits import MAX_EVENT_BYTES
from ranvier.store.tables.cross_signing import CrossSigningKey
from ranvier.store.tables.device_lists import RemoteDevice

log = logging.getLogger(__name__)

MAX_KEY_BYTES: Final = MAX_EVENT_BYTES
"""Of the keys of one device: what fits into an event fits here."""
MAX_NAME_CHARS: Final = 255
MAX_DEVICES: Final = 2_000
"""Of one user. Longer lists are cut, and so cannot grow without end."""
MAX_LIST_BYTES: Final = 2 * 1_048_576
"""Of the keys of all devices of one user: 2,000 devices fit that have signed nothing but themselves."""


def pack_device_keys(document: JsonObject | None, user_id: str, device_id: str) -> bytes | None:
    """Device keys as JSON without `unsigned`, which each server adds itself. None: they are none of that device.

    Who signed them is for those to check who encrypt.
    """
    if document is None or document.get("user_id") != user_id or document.get("device_id") != device_id:
        return None
    packed = encode({name: value for name, value in document.items() if name != "unsigned"})
    return packed if len(packed) <= MAX_KEY_BYTES else None


def pack_devices(
    user_id: UserID, told: Iterable[tuple[DeviceID, str | None, JsonObject | None]]
) -> dict[DeviceID, RemoteDevice]:
    """A list of (id, name, keys), as far as it is kept: of those that come first."""
    devices: dict[DeviceID, RemoteDevice] = {}
    left_bytes = MAX_LIST_BYTES
    for device_id, name, document in told:
        if not is_name(device_id):
            continue
        keys = pack_device_keys(document, user_id, device_id)
        left_bytes -= len(keys or b"")
        if left_bytes < 0 or len(devices) == MAX_DEVICES:
            log.info("%s has more devices than are kept", user_id)
            break
        devices[device_id] = RemoteDevice(device_id, cut_name(name), keys)
    return devices


def pack_cross_signing_keys(
    user_id: UserID, documents: Iterable[tuple[str, JsonObject | None]]
) -> list[CrossSigningKey]:
    """The keys among (usage, document)."""
    packed = []
    for usage, document in documents:
        try:
            key = None if document is None else parse_cross_signing_key(document, user_id, usage)
            if key is not None and len(json := key.encode()) <= MAX_KEY_BYTES:
                packed.append(CrossSigningKey(usage, key.public_key, json))
        except BadKey:
            continue
    return packed


def cut_name(name: str | None) -> str | None:
    """The name of a device, no longer than our own users' may be, and such that every database takes it."""
    return None if name is None else name[:MAX_NAME_CHARS].replace("\0", "")
