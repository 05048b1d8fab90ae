"""Room state, now and at any position.

Tables: current_state, room_states. Written by `append` alone.
Growth: one small row a state change in room_states; one row a slot in current_state.
Index -> query: (room, slot) -> current state; (room, position) -> the state at a position.

What changed between two positions is the `state_map.difference` of their roots.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from ranvier.core import state_map
from ranvier.core.identifiers import EventID, StateKey
from ranvier.store.database import ReadTxn, WriteTxn
from ranvier.store.tables.batches import in_batches
from ranvier.store.tables.events import list_known
from ranvier.store.tables.interned import Interner, intern_state_keys
from ranvier.store.tables.state_nodes import PendingNodes

_UPSERT: Final = """
    INSERT INTO current_state (room_nid, state_key_nid, event_nid)
    VALUES (:room_nid, :state_key_nid, :event_nid)
    ON CONFLICT (room_nid, state_key_nid) DO UPDATE SET event_nid = excluded.event_nid
"""
_DELETE: Final = "DELETE FROM current_state WHERE room_nid = :room_nid AND state_key_nid IN (:nids[])"
_INSERT_ROOT: Final = """
    INSERT INTO room_states (room_nid, position, state_root) VALUES (:room_nid, :position, :state_root)
    ON CONFLICT (room_nid, position) DO UPDATE SET state_root = excluded.state_root
"""
_ALL: Final = "SELECT state_key_nid, event_nid FROM current_state WHERE room_nid = :room_nid"
_SOME: Final = """
    SELECT state_key_nid, event_nid FROM current_state
    WHERE room_nid = :room_nid AND state_key_nid IN (:nids[])
"""
_OF_TYPE: Final = """
    SELECT c.state_key_nid, c.event_nid FROM current_state c JOIN state_keys k ON k.state_key_nid = c.state_key_nid
    WHERE c.room_nid = :room_nid AND k.type = :type
"""
_SLOTS: Final = """
    SELECT c.room_nid, c.state_key_nid, c.event_nid FROM current_state c
    WHERE c.room_nid IN (:room_nids[]) AND c.state_key_nid IN (:nids[])
"""
_ROOT_AT: Final = """
    SELECT state_root FROM room_states WHERE room_nid = :room_nid AND position <= :position
    ORDER BY position DESC LIMIT 1
"""
_FIRST_ROOTS: Final = """
    SELECT state_root FROM room_states WHERE room_nid = :room_nid ORDER BY position LIMIT :limit
"""
_ROOTS_AT: Final = """
    SELECT r.room_nid, (
        SELECT s.state_root FROM room_states s WHERE s.room_nid = r.room_nid AND s.position <= :position
        ORDER BY s.position DESC LIMIT 1
    ) FROM rooms r WHERE r.room_nid IN (:room_nids[])
"""


def apply_current_state(txn: WriteTxn, room_nid: int, changes: Mapping[int, int | None]) -> None:
    """Change the rows of `current_state`: slot -> event, None to remove. Called by `append` alone."""
    upserts = [
        {"room_nid": room_nid, "state_key_nid": slot, "event_nid": nid}
        for slot, nid in changes.items()
        if nid is not None
    ]
    if upserts:
        txn.execute_many(_UPSERT, upserts)
    for batch in in_batches([slot for slot, nid in changes.items() if nid is None]):
        txn.execute(_DELETE, room_nid=room_nid, nids=batch)


def insert_roots(txn: WriteTxn, room_nid: int, roots: Sequence[tuple[int, int]]) -> None:
    """(position, root of the room's state from there on). Called by `append` alone."""
    rows = [{"room_nid": room_nid, "position": position, "state_root": root} for position, root in roots]
    if rows:
        txn.execute_many(_INSERT_ROOT, rows)


def build_state(
    txn: WriteTxn, interner: Interner, nodes: PendingNodes, event_ids: Mapping[StateKey, EventID]
) -> int:
    """The root of the state made of these stored events: what a join by federation begins with.

    Raises: KeyError for an event that is not stored.
    """
    slots = intern_state_keys(txn, interner, event_ids.keys())
    known = list_known(txn, set(event_ids.values()))
    entries = {slots[slot]: known[event_id].event_nid for slot, event_id in event_ids.items()}
    return state_map.update(nodes, state_map.EMPTY, entries)


def list_current_state(txn: ReadTxn, room_nid: int) -> dict[int, int]:
    """The whole state of a room now: state_key_nid -> event_nid."""
    return dict(txn.all(_ALL, room_nid=room_nid))


def list_current_slots(txn: ReadTxn, room_nid: int, state_key_nids: Collection[int]) -> dict[int, int]:
    """Some slots of a room's state now: state_key_nid -> event_nid; empty slots are left out."""
    nids = list(state_key_nids)
    return {
        slot: nid for batch in in_batches(nids) for slot, nid in txn.all(_SOME, room_nid=room_nid, nids=batch)
    }


def list_slots_of_type(txn: ReadTxn, room_nid: int, type_: str) -> dict[int, int]:
    """The slots of one type in a room's state now: state_key_nid -> event_nid. Cost follows the room's state."""
    return dict(txn.all(_OF_TYPE, room_nid=room_nid, type=type_))


def list_slots_of_rooms(
    txn: ReadTxn, room_nids: Collection[int], state_key_nids: Collection[int]
) -> dict[int, dict[int, int]]:
    """A few slots of many rooms' state now: room_nid -> state_key_nid -> event_nid. Cost: 1 query per 4,096
    rooms."""
    found: dict[int, dict[int, int]] = {nid: {} for nid in room_nids}
    slots = list(state_key_nids)
    for batch in in_batches(list(room_nids)):
        for room_nid, slot, nid in txn.all(_SLOTS, room_nids=batch, nids=slots):
            found[room_nid][slot] = nid
    return found


def find_root_at(txn: ReadTxn, room_nid: int, position: int) -> int:
    """The root of the room's state as it was at a position; the empty one before the room was known."""
    value = txn.value(_ROOT_AT, room_nid=room_nid, position=position)
    return state_map.EMPTY if value is None else int(value)


def list_first_roots(txn: ReadTxn, room_nid: int, limit: int) -> list[int]:
    """The roots of the room's first states here, oldest first."""
    return [root for (root,) in txn.all(_FIRST_ROOTS, room_nid=room_nid, limit=limit)]


def list_roots_at(txn: ReadTxn, room_nids: Collection[int], position: int) -> dict[int, int]:
    """The same for many rooms at once. Cost: 1 query per 4,096."""
    nids = list(room_nids)
    return {
        nid: state_map.EMPTY if root is None else int(root)
        for batch in in_batches(nids)
        for nid, root in txn.all(_ROOTS_AT, room_nids=batch, position=position)
    }
