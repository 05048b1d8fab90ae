"""What is left of a stay in a room that ended before the room's state was whole, or checked: cleared when the server
enters anew.

Nothing can be built on the events that came then: they are history that is fetched like any other.
"""

from collections.abc import Mapping
from functools import partial
from typing import Final

from ranvier.core import state_map
from ranvier.core.events.parse import parse_stored
from ranvier.core.identifiers import RoomID
from ranvier.core.room_versions import get_room_version
from ranvier.io.clock import Clock
from ranvier.services.rooms.checking import RoomRef
from ranvier.services.rooms.elsewhere import is_here
from ranvier.services.rooms.filling import Filling
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables import events, partial_rooms, rooms, state, unchecked_states
from ranvier.store.tables.corrections import Correction, correct_events
from ranvier.store.tables.events import Status
from ranvier.store.tables.interned import Interner
from ranvier.store.tables.state_nodes import NodeCache, PendingNodes

AT_ONCE: Final = 200
"""Events that are forgotten in one transaction."""


class _Nothing(Exception):
    """There is no such stay, or the server is in the room."""


class Unfinished:
    """Clears it."""

    def __init__(self, db: Database, interner: Interner, nodes: NodeCache, clock: Clock) -> None:
        self._db = db
        self._interner = interner
        self._nodes = nodes
        self._clock = clock
        self._filling = Filling(db, interner, nodes, clock)

    async def clear(self, room_id: RoomID) -> None:
        """Forget most of it, a piece at a time: others write in between. Cost: 1 query where nothing is left.

        Raises: StoreFault.
        """
        try:
            room = await self._db.read(self._find, room_id)
            while await self._db.write(self._forget_some, room_id):
                pass
            await self._filling.bring_near(partial(self._find, room_id=room_id), room.state_root)
        except _Nothing:
            return

    def end(self, txn: WriteTxn, room: rooms.Room, root: int) -> Mapping[int, int | None] | None:
        """Forget the rest, in the transaction in which the server enters with a state, the map `root`. Returns how the
        rows of the room's state change by that; None if the room's state was whole, and they are those of it."""
        if not _is_unfinished(txn, room.room_nid):
            return None
        while self._forget(txn, room):
            pass
        partial_rooms.forget(txn, room.room_nid)
        unchecked_states.forget(txn, room.room_nid)
        held = state.list_current_state(txn, room.room_nid)
        wanted = state_map.to_dict(PendingNodes(txn, self._nodes), root)
        return {
            slot: wanted.get(slot)
            for slot in held.keys() | wanted.keys()
            if held.get(slot) != wanted.get(slot)
        }

    def _find(self, txn: ReadTxn, room_id: RoomID) -> rooms.Room:
        """Raises: _Nothing."""
        room = rooms.find_room(txn, room_id)
        if (
            room is None
            or not _is_unfinished(txn, room.room_nid)
            or is_here(txn, self._interner, room.room_nid)
        ):
            raise _Nothing
        return room

    def _forget_some(self, txn: WriteTxn, room_id: RoomID) -> bool:
        return self._forget(txn, self._find(txn, room_id))

    def _forget(self, txn: WriteTxn, room: rooms.Room) -> bool:
        """Whether more is left."""
        ref = RoomRef(room.room_nid, RoomID(room.room_id), get_room_version(room.version))
        nids = [*partial_rooms.list_event_nids(txn, ref.nid), *unchecked_states.list_history(txn, ref.nid)]
        corrections = [
            Correction(
                record=record,
                pdu=parse_stored(record.json, record.event_id, ref.room_id, ref.version),
                status=Status.OUTLIER,
                state_root=None,
                redacts_target=False,
                redacted_by=None,
            )
            for record in events.list_events(txn, nids[:AT_ONCE]).values()
        ]
        correct_events(txn, ref.nid, corrections, self._clock.now_ms())
        partial_rooms.forget_events(txn, ref.nid, nids[:AT_ONCE])
        return len(nids) > AT_ONCE


def _is_unfinished(txn: ReadTxn, room_nid: int) -> bool:
    """Whether what came into the room since the server entered is to be decided again."""
    return partial_rooms.find(txn, room_nid) is not None or unchecked_states.find(txn, room_nid) is not None
