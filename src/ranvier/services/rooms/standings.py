"""What events are taken for: as it is stored, but for those that are being decided again."""

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec

from ranvier.core.identifiers import EventID
from ranvier.store.database import ReadTxn
from ranvier.store.tables import events, partial_rooms
from ranvier.store.tables.events import EventRecord, Status

REJECTED: Final = frozenset((Status.REJECTED, Status.REJECTED_OUTLIER))


class Standing(msgspec.Struct, frozen=True):
    """What one event is taken for."""

    status: Status
    state_root: int | None  # of the state before it; None for an outlier


UNDECIDED: Final = Standing(Status.OUTLIER, None)


class Standings:
    """A view of stored events. Any thread."""

    def __init__(self, by_nid: Mapping[int, Standing] | None = None) -> None:
        """`by_nid`: what counts instead of what is stored; None while nothing is decided again."""
        self._by_nid = by_nid

    def list_events(self, txn: ReadTxn, event_nids: Collection[int]) -> dict[int, EventRecord]:
        """As `events.list_events`."""
        return {nid: self._see(record) for nid, record in events.list_events(txn, event_nids).items()}

    def list_events_by_id(self, txn: ReadTxn, event_ids: Collection[EventID]) -> dict[EventID, EventRecord]:
        """As `events.list_events_by_id`."""
        found = events.list_events_by_id(txn, event_ids)
        return {event_id: self._see(record) for event_id, record in found.items()}

    def find_rejected(self, txn: ReadTxn, records: Collection[EventRecord]) -> set[EventID]:
        """Those that are rejected for good: not those that will be decided again. `records` came from here.
        Cost: 1 query if there are any."""
        rejected = {record.event_nid: record.event_id for record in records if record.status in REJECTED}
        if rejected and self._by_nid is None:
            for nid in partial_rooms.list_among(txn, rejected.keys()):
                del rejected[nid]
        return set(rejected.values())

    def filter_rejected(self, stored: AbstractSet[int], event_nids: Collection[int]) -> set[int]:
        """Those of the events that are rejected, `stored` being those of which that is stored."""
        if self._by_nid is None:
            return set(stored)
        return {
            nid
            for nid in event_nids
            if (nid in stored if nid not in self._by_nid else self._by_nid[nid].status in REJECTED)
        }

    def _see(self, record: EventRecord) -> EventRecord:
        if self._by_nid is None or (seen := self._by_nid.get(record.event_nid)) is None:
            return record
        return msgspec.structs.replace(record, status=seen.status, state_root=seen.state_root)


AS_STORED: Final = Standings()
