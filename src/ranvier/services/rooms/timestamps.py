"""Which event of a room is nearest to a time.

Spec: client-server API, `GET /rooms/{roomId}/timestamp_to_event`.
"""

from typing import Final

import msgspec

from ranvier.core.errors import NotFound
from ranvier.core.identifiers import EventID, RoomID
from ranvier.services.requester import Requester
from ranvier.services.rooms.showing import Showing
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables.timeline import list_events_near

MAX_INVISIBLE: Final = 5_000
"""Events in a row that the requester may not see, after which the search ends."""

_FIRST_TRY: Final = 5
_BATCH: Final = 500


class TimedEvent(msgspec.Struct, frozen=True):
    event_id: EventID
    origin_server_ts: int


class Timestamps:
    """Finds events by time."""

    def __init__(self, db: Database, showing: Showing) -> None:
        self._db = db
        self._showing = showing

    async def find_event(
        self, requester: Requester, room_id: RoomID, ts: int, *, forwards: bool
    ) -> TimedEvent:
        """The visible event that is nearest to a time (ms), at or after it, or at or before it.

        Raises: Forbidden (the requester may not look into the room), NotFound.
        """
        found = await self._db.read(self._read, requester, room_id, ts, forwards=forwards)
        if found is None:
            direction = "after" if forwards else "before"
            raise NotFound(f"There is no event {direction} this time that you may see.")
        return found

    def _read(
        self, txn: ReadTxn, requester: Requester, room_id: RoomID, ts: int, *, forwards: bool
    ) -> TimedEvent | None:
        viewer = self._showing.access_room(txn, requester, room_id)
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
