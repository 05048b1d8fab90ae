"""What relates to an event, a page at a time.

Spec: client-server API, `GET /rooms/{roomId}/relations/{eventId}[/{relType}[/{eventType}]]`.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from ranvier.core.errors import InvalidParam
from ranvier.core.identifiers import EventID, RoomID
from ranvier.core.tokens import room_order_of
from ranvier.io.clock import Clock
from ranvier.services.requester import Requester
from ranvier.services.rooms.history import EventPage, PageRequest, range_of, resume_at
from ranvier.services.rooms.pages import Pages, Range
from ranvier.services.rooms.showing import Frame, Showing, VisibleEvent
from ranvier.services.rooms.sight import Viewer
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables import events, relations

MAX_DEPTH: Final = 3
"""Levels of relations that `recurse` follows; the specification asks for as many at least."""

MAX_PARENTS: Final = 500
"""Events on each level below which `recurse` looks for others."""

MAX_ROUNDS: Final = 10
"""Queries for one page, while what they find is invisible."""


class Relating(msgspec.Struct, frozen=True, kw_only=True):
    """Which relations are asked for."""

    event_id: EventID
    rel_type: str | None = None  # None: any
    event_type: str | None = None
    recurse: bool = False


class Relations:
    """Reads what relates to events."""

    def __init__(self, db: Database, clock: Clock, showing: Showing, pages: Pages) -> None:
        self._db = db
        self._clock = clock
        self._showing = showing
        self._pages = pages

    async def get_relating_events(
        self, requester: Requester, room_id: RoomID, relating: Relating, asked: PageRequest
    ) -> EventPage:
        """Raises: NotFound (no such event that the requester may see); InvalidParam (a type that none can be)."""
        if "\0" in f"{relating.rel_type}{relating.event_type}":
            raise InvalidParam("A type does not contain U+0000.")
        frame = Frame(self._clock.now_ms(), room_id)
        return await self._db.read(self._read, requester, relating, asked, frame, room_id)

    def _read(
        self,
        txn: ReadTxn,
        requester: Requester,
        relating: Relating,
        asked: PageRequest,
        frame: Frame,
        room_id: RoomID,
    ) -> EventPage:
        viewer, *_ = self._showing.access_event(txn, requester, room_id, relating.event_id)
        start, part = range_of(asked, newest=room_order_of(txn.position), sees_until=viewer.sees_until)
        parents = _list_parents(txn, viewer.room_nid, relating)
        found, last = self._read_visible(txn, viewer, relating, parents, part)
        end = resume_at(last, backwards=asked.backwards)
        return EventPage(start=start, end=end, events=self._pages.encode(txn, viewer, found, frame))

    def _read_visible(
        self,
        txn: ReadTxn,
        viewer: Viewer,
        relating: Relating,
        parents: Sequence[EventID],
        part: Range,
    ) -> tuple[list[VisibleEvent], int | None]:
        """The first visible ones, and the order of the last that was looked at if there are more."""
        last: int | None = None
        for _ in range(MAX_ROUNDS):
            rows = relations.list_relations_page(
                txn,
                viewer.room_nid,
                parents,
                relations.Page(
                    above=part.above, below=part.below, backwards=part.backwards, limit=part.limit + 1
                ),
                relating.rel_type,
                relating.event_type,
            )
            last = rows[part.limit - 1][1] if len(rows) > part.limit else None
            rows = rows[: part.limit]
            records = events.list_events(txn, [nid for nid, _ in rows])
            visible = self._showing.visible(txn, viewer, [records[nid] for nid, _ in rows])
            if visible or last is None:
                return list(visible.values()), last
            part = part.after(last)
        return [], last


def _list_parents(txn: ReadTxn, room_nid: int, relating: Relating) -> list[EventID]:
    """The event, and with `recurse` those below it that something may relate to.

    An event relates to one other, and a cycle of them cannot hang on an event outside it; but ids are chosen
    freely in old room versions, so what was seen is not followed again.
    """
    level = [relating.event_id]
    parents = list(level)
    for _ in range(MAX_DEPTH - 1 if relating.recurse else 0):
        children = relations.list_parents_below(
            txn, room_nid, level, relating.rel_type, relating.event_type, MAX_PARENTS
        )
        seen = set(parents)
        level = [event_id for event_id in children if event_id not in seen]
        if not level:
            break
        parents += level
    return parents
