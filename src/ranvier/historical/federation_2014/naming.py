"""What things of 2014 are called today, and the reverse. Every server that does this alike shows the same ids to
its clients, so that replies, reactions and redactions find what they mean.

Rules for this file: no I/O. Source: docs/federation-2014.md, "The bridge".
"""

import base64
import binascii
import hashlib
import re
from typing import Final

from ranvier.core.errors import BadIdentifier
from ranvier.core.identifiers import EventID, RoomID, ServerName, UserID, parse_room_id, parse_user_id
from ranvier.core.limits import MAX_IDENTIFIER_BYTES
from ranvier.historical.federation_2014.pdu import OldPdu
from ranvier.store.tables.historical_pdus import Name

UNNAMED: Final = "unnamed"
"""Localpart of whoever sent a PDU that names no user."""

_PLAIN: Final = re.compile(r"[A-Za-z0-9._=+-]{1,128}")
_WRAPPED: Final = "!2014-"


def event_id_of(name: Name) -> EventID:
    """The id of the event that shows a PDU: `$pdu_id:origin`, as event ids were written from the end of 2014 on;
    a pdu_id with other characters is hashed."""
    origin, pdu_id = name
    if _PLAIN.fullmatch(pdu_id):
        return EventID(f"${pdu_id}:{origin}")
    return EventID(f"$~{_base64(hashlib.sha256(pdu_id.encode()).digest())}:{origin}")


def name_of_event(event_id: EventID) -> Name | None:
    """The PDU that an event shows, if its id tells."""
    pdu_id, _, origin = event_id[1:].partition(":")
    return (origin, pdu_id) if origin and _PLAIN.fullmatch(pdu_id) else None


def room_id_of(context: str, own_server: ServerName) -> RoomID | None:
    """The room that shows a context: of the same name where that is a room id, else a name made of it. None: it
    is too long."""
    try:
        room_id = parse_room_id(context)
        if ":" in room_id and not room_id.startswith(_WRAPPED):
            return room_id
    except BadIdentifier:
        pass
    wrapped = f"{_WRAPPED}{_base64(context.encode())}:{own_server}"
    return RoomID(wrapped) if len(wrapped) <= MAX_IDENTIFIER_BYTES else None


def context_of(room_id: RoomID) -> str:
    """The context that a room shows."""
    if not room_id.startswith(_WRAPPED):
        return room_id
    text = room_id.removeprefix(_WRAPPED).partition(":")[0]
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return room_id


def sender_of(pdu: OldPdu) -> UserID:
    """Who sent a PDU, as clients see it."""
    try:
        return parse_user_id(pdu.user_id)
    except BadIdentifier:
        return UserID(f"@{UNNAMED}:{pdu.origin}")


def server_of_user(user_id: object) -> ServerName | None:
    """The server of a user id; None for what is none."""
    try:
        return ServerName(parse_user_id(user_id).partition(":")[2])
    except BadIdentifier:
        return None


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
