"""Keys of other servers' users in the form in which they are kept and shown: what is malformed is left out.

Spec: server-server API, "End-to-End Encryption", "Device Management".
"""

from collections.abc import Iterable
from typing import Final

from ranvier.core.canonical_json import JsonObject, encode
from ranvier.core.encryption_keys import parse_cross_signing_key
from ranvier.core.errors import BadKey
from ranvier.core.identifiers import UserID
from ranvier.core.limits import MAX_EVENT_BYTES
from ranvier.store.tables.cross_signing import CrossSigningKey

MAX_KEY_BYTES: Final = MAX_EVENT_BYTES
"""Of the keys of one device: what fits into an event fits here."""
MAX_NAME_CHARS: Final = 255


def pack_device_keys(document: JsonObject | None, user_id: str, device_id: str) -> bytes | None:
    """Device keys as JSON without `unsigned`, which each server adds itself. None: they are none of that device.

    Who signed them is for those to check who encrypt.
    """
    if document is None or document.get("user_id") != user_id or document.get("device_id") != device_id:
        return None
    packed = encode({name: value for name, value in document.items() if name != "unsigned"})
    return packed if len(packed) <= MAX_KEY_BYTES else None


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
