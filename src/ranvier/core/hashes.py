"""The content hash, which tells whether an event is whole, and the reference hash, which names it.

Spec: server-server API, "Calculating the reference hash for an event", "Calculating the content hash for an
event".
"""

import hashlib
from typing import Final

from ranvier.core import canonical_json
from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import BadEvent
from ranvier.core.events.redact import redact
from ranvier.core.identifiers import EventID, parse_event_id
from ranvier.core.room_versions import EventIdFormat, RoomVersion
from ranvier.core.unpadded_base64 import encode_base64, encode_base64_urlsafe

_NOT_HASHED: Final = frozenset({"unsigned", "signatures", "hashes"})


def content_hash(event: JsonObject) -> str:
    """SHA-256 over the whole event but `unsigned`, `signatures` and `hashes`, in unpadded base64.

    Raises: BadJson when the event has no canonical form.
    """
    hashed = {key: value for key, value in event.items() if key not in _NOT_HASHED}
    return encode_base64(hashlib.sha256(canonical_json.encode(hashed)).digest())


def signed_form(event: JsonObject, version: RoomVersion) -> bytes:
    """What servers sign, and whose SHA-256 is the reference hash: the redacted event without `signatures`, as
    canonical JSON.

    Raises: BadJson.
    """
    redacted = redact(event, version)
    redacted.pop("signatures", None)
    return canonical_json.encode(redacted)


def reference_hash(event: JsonObject, version: RoomVersion) -> bytes:
    """SHA-256 (32 bytes) over `signed_form`.

    Raises: BadJson.
    """
    return hashlib.sha256(signed_form(event, version)).digest()


def event_id_of(event: JsonObject, version: RoomVersion) -> EventID:
    """The id that the event has (v1, v2) or that its reference hash gives it (v3 and up).

    Raises: BadJson; BadIdentifier and BadEvent (v1, v2) when the event has no id of the right form.
    """
    if version.hash_event_ids:
        return event_id_of_hash(reference_hash(event, version), version)
    event_id = parse_event_id(event.get("event_id"))
    if ":" not in event_id:
        raise BadEvent("an event id of this room version names a server")
    return event_id


def event_id_of_hash(digest: bytes, version: RoomVersion) -> EventID:
    """`$` and the reference hash in the alphabet of the room version (v3 and up)."""
    if version.event_id_format is EventIdFormat.HASH:
        return EventID("$" + encode_base64(digest))
    return EventID("$" + encode_base64_urlsafe(digest))
