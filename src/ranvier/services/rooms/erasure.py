"""What of the past is erased, because its senders wanted that.

SPEC: "any users (or servers) which join the room after the erasure request are served redacted copies of the events
sent by this account". But not of what is the room's state now: that is what the room is, not what somebody said. A
redacted `m.room.encryption` would have newcomers write in the clear, and no name would be left of a room that its
founder has left. Synapse gives whole states, too.

Spec: client-server API, POST /account/deactivate, `erase`.
"""

from collections.abc import Collection

from ranvier.store.database import ReadTxn
from ranvier.store.tables.accounts import list_erased
from ranvier.store.tables.events import EventRecord
from ranvier.store.tables.state import list_current_slots


def list_erased_events(txn: ReadTxn, records: Collection[EventRecord]) -> set[int]:
    """Those of the events (event_nid) that newcomers get without content.

    Cost: 1 query; 1 more for each room with state events of senders who wanted it.
    """
    erased = list_erased(txn, {record.sender_nid for record in records}) if records else set()
    if not erased:
        return set()
    found = {record.event_nid: record for record in records if record.sender_nid in erased}
    slots: dict[int, set[int]] = {}
    for record in found.values():
        if record.state_key_nid is not None:
            slots.setdefault(record.room_nid, set()).add(record.state_key_nid)
    for room_nid, wanted in slots.items():
        for event_nid in list_current_slots(txn, room_nid, wanted).values():
            found.pop(event_nid, None)
    return set(found)
