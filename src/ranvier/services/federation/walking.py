"""Walking a room's graph backwards from some events, as other servers ask us to when they miss what came before.

Spec: server-server API, "Backfilling and retrieving missing events".
"""

import heapq
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from ranvier.core.identifiers import EventID
from ranvier.core.room_versions import RoomVersion, get_room_version
from ranvier.services.rooms.live import pdu_of
from ranvier.store.database import ReadTxn
from ranvier.store.tables import timeline
from ranvier.store.tables.events import EventRecord, Status, list_events_by_id
from ranvier.store.tables.rooms import Room

_SERVED: Final = (Status.ACCEPTED, Status.SOFT_FAILED)


class Walk:
    """One walk in one transaction.

    The events before an event of the timeline nearly always stand right below it there, so that stretch is
    read at once; only what is not in it is looked up by id.
    """

    def __init__(self, txn: ReadTxn, room: Room, limit: int) -> None:
        self._txn = txn
        self._room = room
        self._limit = limit
        self._version: RoomVersion = get_room_version(room.version)
        self._read: dict[EventID, EventRecord] = {}

    def load(self, event_ids: Collection[EventID]) -> list[EventRecord]:
        """Those of the events that are of the room, have their place in its graph, and may be served."""
        missing = [event_id for event_id in event_ids if event_id not in self._read]
        if missing:
            self._read.update(list_events_by_id(self._txn, missing))
        found = (self._read[event_id] for event_id in event_ids if event_id in self._read)
        return [one for one in found if one.room_nid == self._room.room_nid and one.status in _SERVED]

    def back(self, starts: Sequence[EventRecord], stops: Collection[EventID]) -> list[EventRecord]:
        """`starts` and what precedes them, the deepest first, up to the limit. What `stops` names, and what
        lies behind it, is left out."""
        self._read_ahead(starts)
        seen = {record.event_id for record in starts} | set(stops)
        ahead = [(-record.depth, -record.event_nid, record) for record in starts]
        heapq.heapify(ahead)
        walked: list[EventRecord] = []
        while ahead and len(walked) < self._limit:
            record = heapq.heappop(ahead)[2]
            walked.append(record)
            before = [event_id for event_id in self.list_parents((record,)) if event_id not in seen]
            seen.update(before)
            for parent in self.load(before):
                heapq.heappush(ahead, (-parent.depth, -parent.event_nid, parent))
        return walked

    def list_parents(self, records: Iterable[EventRecord]) -> list[EventID]:
        """What the events cite as prev_events, each once."""
        parents: Mapping[EventID, None] = {
            event_id: None
            for record in records
            for event_id in pdu_of(record, self._room.room_id, self._version).prev_events
        }
        return list(parents)

    def _read_ahead(self, starts: Iterable[EventRecord]) -> None:
        orders = [record.room_order for record in starts if record.room_order is not None]
        if orders:
            page = timeline.list_page(
                self._txn, self._room.room_nid, below=max(orders), backwards=True, limit=self._limit
            )
            self._read.update({record.event_id: record for record in page})
