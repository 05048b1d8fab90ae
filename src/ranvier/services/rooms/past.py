"""Where a gap in a room's timeline is filled: history changes nothing of the room as it is now."""

from collections.abc import Sequence

from ranvier.io.clock import Clock
from ranvier.services.rooms.checking import RoomRef
from ranvier.services.rooms.deciding import Case, Decision, decide, prepare
from ranvier.services.rooms.outliers import Outliers
from ranvier.store.database import Database, WriteTxn
from ranvier.store.tables.append import append, remember_appended
from ranvier.store.tables.interned import Interner
from ranvier.store.tables.prepared import Appended, Batch
from ranvier.store.tables.state_nodes import NodeCache, PendingNodes


class Past:
    """Adds to it."""

    def __init__(
        self, db: Database, interner: Interner, nodes: NodeCache, outliers: Outliers, clock: Clock
    ) -> None:
        self._db = db
        self._interner = interner
        self._nodes = nodes
        self._outliers = outliers
        self._clock = clock

    async def add(self, case: Case, below_order: int) -> int:
        """Put the events of a case of history right below a place in the timeline; how many could be.

        Cost: 2 reads and 2 writes.
        Raises: StoreFault.
        """
        await self._outliers.store(case.room, [pdu for pdu in case.pdus if pdu.is_state])
        decisions = await self._db.read(decide, self._interner, self._nodes, case)
        kept = [one for one in decisions.decided if one.outcome is not None]
        if kept:
            appended = await self._db.write(self._append, case.room, kept, below_order)
            remember_appended(self._interner, self._nodes, appended)
        return len(kept)

    def _append(
        self, txn: WriteTxn, room: RoomRef, decided: Sequence[Decision], below_order: int
    ) -> Appended:
        nodes = PendingNodes(txn, self._nodes)
        batch = Batch(
            room_nid=room.nid,
            events=tuple([prepare(nodes, one, {}) for one in decided]),
            now_ms=self._clock.now_ms(),
            below_order=below_order,
        )
        return append(txn, self._interner, self._nodes, batch)
