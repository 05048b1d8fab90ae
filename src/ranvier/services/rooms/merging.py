"""Local events in rooms with more branches than one event may cite.

Such an event stands beside the branches that it leaves out, as those of other servers do: the state before it is
that of the branches it cites, and the room's state now takes in the others, too. Each event takes away nineteen.
"""

from collections.abc import Mapping, Sequence

import msgspec

from ranvier.core import state_map
from ranvier.core.errors import Forbidden
from ranvier.io.clock import Clock
from ranvier.services.rooms.checking import RoomRef
from ranvier.services.rooms.deciding import Case, Decision, decide, prepare
from ranvier.services.rooms.live import LiveRoom
from ranvier.services.rooms.writer import Item, Merge, RoomWriters
from ranvier.store.database import Conflict, WriteTxn
from ranvier.store.tables.append import append, remember_appended
from ranvier.store.tables.interned import Interner, list_state_keys
from ranvier.store.tables.prepared import Appended, Batch, Outcome, PreparedEvent
from ranvier.store.tables.state_nodes import NodeCache, PendingNodes


class Merging:
    """Appends them."""

    def __init__(self, interner: Interner, nodes: NodeCache, writers: RoomWriters, clock: Clock) -> None:
        self._interner = interner
        self._nodes = nodes
        self._writers = writers
        self._clock = clock

    async def append(self, room: LiveRoom, items: Sequence[Item]) -> None:
        """Append local events that were built on some of a room's extremities; return when they are on disk.

        Raises: Conflict when the room is not what they were built on; Forbidden when the branches that they cite
        do not allow them; Integrity; StoreFault.
        """
        writing = _Writing(self._interner, self._nodes, self._clock.now_ms(), room, items)
        await self._writers.append_merging(room, writing.merge)
        if writing.stored is not None:
            remember_appended(self._interner, self._nodes, writing.stored)
        self._nodes.remember(writing.touched)


class _Writing:
    """What `RoomWriters.append_merging` asks in its transaction, which may run twice."""

    def __init__(
        self, interner: Interner, nodes: NodeCache, now_ms: int, room: LiveRoom, items: Sequence[Item]
    ) -> None:
        self._interner = interner
        self._nodes = nodes
        self._now_ms = now_ms
        self._room = room
        self._revision = room.revision
        self._items = items
        self.stored: Appended | None = None
        self.touched: Mapping[int, state_map.Node] = {}

    def merge(self, txn: WriteTxn) -> Merge:
        room = RoomRef(self._room.nid, self._room.room_id, self._room.version)
        pdus = [item.prepared.pdu for item in self._items]
        # To decide about state events, they need numbers.
        numbered = tuple(
            [PreparedEvent(pdu=pdu, outcome=Outcome.OUTLIER, is_local=True) for pdu in pdus if pdu.is_state]
        )
        if numbered:
            batch = Batch(room_nid=room.nid, events=numbered, now_ms=self._now_ms)
            self.stored = append(txn, self._interner, self._nodes, batch)
        decisions = decide(txn, self._interner, self._nodes, Case(room=room, pdus=pdus))
        if decisions.revision != self._revision:
            raise Conflict("the room moved on")
        for one in decisions.decided:
            if one.outcome is not Outcome.ACCEPTED:
                raise Forbidden(f"The room does not allow this event: {one.reason}.")
        changed = {slot for one in decisions.decided for slot in one.changes}
        names = list_state_keys(txn, self._interner, changed) if changed else {}
        pending = PendingNodes(txn, self._nodes)
        items = [
            self._item(pending, one, item, names)
            for one, item in zip(decisions.decided, self._items, strict=True)
        ]
        self.touched = pending.touched
        return Merge(decisions.revision, items, names.values())

    def _item(
        self, nodes: PendingNodes, one: Decision, item: Item, names: Mapping[int, tuple[str, str]]
    ) -> Item:
        prepared = prepare(nodes, one, {names[slot]: nid for slot, nid in one.changes.items()})
        prepared = msgspec.structs.replace(
            prepared,
            is_relayed=True,  # it is in the table already, but to be sent to others all the same
            transaction=item.prepared.transaction,
        )
        return Item(prepared, item.effect)
