"""What lists of rooms show of a room, kept as its state changes."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import msgspec

from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import StateKey
from ranvier.services.rooms.checking import RoomRef
from ranvier.services.rooms.live import LiveRoom, read_slots
from ranvier.store.database import WriteTxn
from ranvier.store.tables.interned import Interner
from ranvier.store.tables.rooms import RoomSummary, list_summaries, upsert_summary


def _text(pdu: Pdu, key: str) -> str | None:
    value = pdu.content.get(key)
    return value if isinstance(value, str) and value else None


def _room_named_by(pdu: Pdu, key: str) -> str | None:
    value = pdu.content.get(key)
    room_id = value.get("room_id") if isinstance(value, dict) else None
    return room_id if isinstance(room_id, str) else None


_FIELDS: Final[Mapping[StateKey, Callable[[Pdu], dict[str, Any]]]] = {
    ("m.room.create", ""): lambda pdu: {
        "room_type": _text(pdu, "type"),
        "predecessor_room_id": _room_named_by(pdu, "predecessor"),
    },
    ("m.room.name", ""): lambda pdu: {"name": _text(pdu, "name")},
    ("m.room.topic", ""): lambda pdu: {"topic": _text(pdu, "topic")},
    ("m.room.avatar", ""): lambda pdu: {"avatar_url": _text(pdu, "url")},
    ("m.room.canonical_alias", ""): lambda pdu: {"canonical_alias": _text(pdu, "alias")},
    ("m.room.join_rules", ""): lambda pdu: {"join_rule": _text(pdu, "join_rule")},
    ("m.room.history_visibility", ""): lambda pdu: {"history_visibility": _text(pdu, "history_visibility")},
    ("m.room.guest_access", ""): lambda pdu: {
        "guest_can_join": pdu.content.get("guest_access") == "can_join"
    },
    ("m.room.encryption", ""): lambda pdu: {"encryption": _text(pdu, "algorithm")},
    ("m.room.tombstone", ""): lambda pdu: {"successor_room_id": _text(pdu, "replacement_room")},
}
"""Which state event tells which fields of the summary."""


def store_summary(txn: WriteTxn, room_nid: int, state_now: Sequence[Pdu]) -> None:
    """Bring the room's summary to what these events say, which are its state now. Others are passed over.

    Cost: nothing for events that no list shows; else 2 statements.
    """
    changes: dict[str, Any] = {}
    for pdu in state_now:
        if pdu.state_key is not None and (fields := _FIELDS.get(pdu.slot)) is not None:
            changes |= fields(pdu)
    if changes:
        summary = list_summaries(txn, (room_nid,)).get(room_nid, RoomSummary())
        upsert_summary(txn, room_nid, msgspec.structs.replace(summary, **changes))


def refresh_summary(txn: WriteTxn, interner: Interner, room: LiveRoom, changed: Collection[StateKey]) -> None:
    """Make the room's summary anew from its state now, after changes other than by new events alone.

    Cost: nothing if no list shows what changed; else 4 statements.
    """
    if any(slot in _FIELDS for slot in changed):
        make_summary(txn, interner, room)


def make_summary(txn: WriteTxn, interner: Interner, room: LiveRoom | RoomRef) -> None:
    """The same, whatever changed. Cost: 4 statements."""
    found = read_slots(txn, interner, room.nid, room.room_id, room.version, list(_FIELDS))
    fields: dict[str, Any] = {}
    for slot, pdu in found.items():
        if pdu is not None:
            fields |= _FIELDS[slot](pdu)
    upsert_summary(txn, room.nid, RoomSummary(**fields))
