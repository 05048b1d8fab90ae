"""The member events that go with a list of events when a client asks for no others.

Members are sent again with each page: a server may leave out those that it sent before, but then it has to know
for certain that the client still has them.

Spec: client-server API, "Lazy-loading room members".
"""

from collections.abc import Collection, Mapping

from ranvier.core import state_map
from ranvier.core.identifiers import StateKey
from ranvier.store.database import ReadTxn
from ranvier.store.tables import events
from ranvier.store.tables.events import EventRecord
from ranvier.store.tables.interned import Interner, find_state_key_nids, list_state_keys, list_user_ids
from ranvier.store.tables.state_nodes import NodeCache, SnapshotNodes


def list_senders_members(
    txn: ReadTxn, interner: Interner, nodes: NodeCache, records: Collection[EventRecord]
) -> list[EventRecord]:
    """The member events of the senders of `records`, in the state before the last of them.

    Cost: 1 query, besides names and state nodes that are not in memory.
    """
    placed = [record for record in records if record.state_root is not None]
    if not placed:
        return []
    last = max(placed, key=lambda record: record.room_order or 0)
    user_ids = list_user_ids(txn, interner, {record.sender_nid for record in records})
    wanted: list[StateKey] = [("m.room.member", user_id) for user_id in user_ids.values()]
    slots = find_state_key_nids(txn, interner, wanted)
    reader = SnapshotNodes(txn, nodes)
    found = state_map.get_many(reader, last.state_root or state_map.EMPTY, slots.values())
    return list(events.list_events(txn, found.values()).values())


def without_other_members(
    txn: ReadTxn, interner: Interner, state: Mapping[int, int], sender_nids: Collection[int]
) -> dict[int, int]:
    """A state (state_key_nid -> event_nid) without the members that are none of these users."""
    senders = set(list_user_ids(txn, interner, sender_nids).values())
    return {
        slot: state[slot]
        for slot, (type_, state_key) in list_state_keys(txn, interner, state.keys()).items()
        if type_ != "m.room.member" or state_key in senders
    }
