"""Which event of a room is nearest to a time.

Spec: client-server API, `GET /rooms/{roomId}/timestamp_to_event`.
"""

from typing import Final

import msgspec

from ranvier.core.errors import NotFound
from ranvier.core.identifiers import RoomID
from ranvier.services.requester import Requester
from ranvier.services.rooms.history import FillGap
from ranvier.services.rooms.remote_times import FetchNear, TimedEvent
from ranvier.services.rooms.showing import Showing
from ranvier.services.rooms.sight import Viewer
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables import edges
from ranvier.store.tables.timeline import END_OF_TIMELINE, list_events_near

MAX_INVISIBLE: Final = 5_000
"""Events in a row that the requester may not see, after which the search ends."""

_FIRST_TRY: Final = 5
_BATCH: Final = 500


MAX_ROUNDS: Final = 10
"""How often missing history is fetched to reach an event that another server knows, about 100 events each time."""


class _Found(msgspec.Struct, frozen=True):
    """What is known here."""

    room_nid: int
    event: TimedEvent | None
    has_gaps: bool  # whether history is missing: another server may know a nearer event


class Timestamps:
    """Finds events by time."""

    def __init__(self, db: Database, showing: Showing, fetch: FetchNear, fill_gap: FillGap) -> None:
        self._db = db
        self._showing = showing
        self._fetch = fetch
        self._fill_gap = fill_gap

    async def find_event(
        self, requester: Requester, room_id: RoomID, ts: int, *, forwards: bool
    ) -> TimedEvent:
        """The visible event that is nearest to a time (ms), at or after it, or at or before it.

        Raises: Forbidden (the requester may not look into the room), NotFound.
        """
        found = await self._db.read(self._read, requester, room_id, ts, forwards=forwards)
        if found.has_gaps:
            told = await self._fetch(room_id, ts, forwards)
            for _ in range(MAX_ROUNDS):
                if told is None or _is_as_near(found.event, told, ts) or not found.has_gaps:
                    break
                # Only what is here is shown: whether the requester may see it is to be known first.
                if not await self._fill_gap(found.room_nid, END_OF_TIMELINE):
                    break
                found = await self._db.read(self._read, requester, room_id, ts, forwards=forwards)
        if found.event is None:
            direction = "after" if forwards else "before"
            raise NotFound(f"There is no event {direction} this time that you may see.")
        return found.event

    def _read(
        self, txn: ReadTxn, requester: Requester, room_id: RoomID, ts: int, *, forwards: bool
    ) -> _Found:
        viewer = self._showing.access_room(txn, requester, room_id)
        has_gaps = bool(edges.list_gaps_below(txn, viewer.room_nid, END_OF_TIMELINE, 1))
        return _Found(viewer.room_nid, self._find_near(txn, viewer, ts, forwards=forwards), has_gaps)

    def _find_near(self, txn: ReadTxn, viewer: Viewer, ts: int, *, forwards: bool) -> TimedEvent | None:
        offset, limit = 0, _FIRST_TRY
        while offset < MAX_INVISIBLE:
            records = list_events_near(
                txn, viewer.room_nid, ts, forwards=forwards, limit=limit, offset=offset
            )
            for record, _ in self._showing.visible(txn, viewer, records).values():
                return TimedEvent(record.event_id, record.origin_server_ts)
            if len(records) < limit:
                return None
            offset, limit = offset + limit, _BATCH
        return None


def _is_as_near(event: TimedEvent | None, told: TimedEvent, ts: int) -> bool:
    """Whether an event is at least as near to a time as one that another server told of."""
    return event is not None and abs(event.origin_server_ts - ts) <= abs(told.origin_server_ts - ts)
