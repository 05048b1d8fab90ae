"""What happened around an event.

Spec: client-server API, `GET /rooms/{roomId}/context/{eventId}`.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from ranvier.core.filters import EventFilter
from ranvier.core.identifiers import EventID, RoomID
from ranvier.io.clock import Clock
from ranvier.services.requester import Requester
from ranvier.services.rooms.pages import Pages, Range
from ranvier.services.rooms.showing import Frame, Showing, VisibleEvent
from ranvier.services.rooms.sight import Viewer
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables.events import EventRecord
from ranvier.store.tables.timeline import END_OF_TIMELINE, START_OF_TIMELINE

MAX_AROUND: Final = 200
"""Events before and after together."""


class ContextRequest(msgspec.Struct, frozen=True, kw_only=True):
    event_id: EventID
    limit: int  # events before and after together
    filter: EventFilter  # not for the event itself


class EventContext(msgspec.Struct, frozen=True, kw_only=True):
    """Client events as JSON. Places are room_orders: points just behind an event."""

    start: int
    end: int
    event: bytes
    before: Sequence[bytes]  # the nearest first
    after: Sequence[bytes]
    state: Sequence[bytes]  # of the room behind the last of these events


class Contexts:
    """Reads what is around events."""

    def __init__(self, db: Database, clock: Clock, showing: Showing, pages: Pages) -> None:
        self._db = db
        self._clock = clock
        self._showing = showing
        self._pages = pages

    async def get_context(self, requester: Requester, room_id: RoomID, asked: ContextRequest) -> EventContext:
        """Raises: NotFound (no such event that the requester may see), BadJsonValue (see `Pages.read`)."""
        frame = Frame(self._clock.now_ms(), room_id)
        return await self._db.read(self._read, requester, room_id, asked, frame)

    def _read(
        self, txn: ReadTxn, requester: Requester, room_id: RoomID, asked: ContextRequest, frame: Frame
    ) -> EventContext:
        viewer, target, membership = self._showing.access_event(txn, requester, room_id, asked.event_id)
        before, after = self._read_around(txn, viewer, target, asked)
        every = [*reversed(before), (target, membership), *after]
        shown = self._pages.encode(txn, viewer, every, frame)
        split = len(before)
        return EventContext(
            start=_order(every[0]) - 1,
            end=_order(every[-1]),
            event=shown[split],
            before=shown[:split][::-1],
            after=shown[split + 1 :],
            state=self._pages.encode_state(txn, viewer, every, asked.filter, frame),
        )

    def _read_around(
        self, txn: ReadTxn, viewer: Viewer, target: EventRecord, asked: ContextRequest
    ) -> tuple[Sequence[VisibleEvent], Sequence[VisibleEvent]]:
        order = _order((target, ""))
        limit = min(asked.limit, MAX_AROUND)
        below = min(viewer.sees_until, END_OF_TIMELINE - 1) + 1
        before = Range(
            above=START_OF_TIMELINE, below=order, backwards=True, limit=limit // 2, filter=asked.filter
        )
        after = Range(
            above=order, below=below, backwards=False, limit=limit - limit // 2, filter=asked.filter
        )
        return (
            self._pages.read(txn, viewer, before).events if before.limit else (),
            self._pages.read(txn, viewer, after).events if after.limit else (),
        )


def _order(event: VisibleEvent) -> int:
    order = event[0].room_order
    assert order is not None, "what is visible stands in the timeline"
    return order
