"""A room's past for clients: a page of it, or one event.

Spec: client-server API, `GET /rooms/{roomId}/messages`, `GET /rooms/{roomId}/event/{eventId}`.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from ranvier.core.filters import EventFilter, compile_event_filter
from ranvier.core.identifiers import EventID, RoomID
from ranvier.core.tokens import room_order_of
from ranvier.io.clock import Clock
from ranvier.services.requester import Requester
from ranvier.services.rooms.pages import NO_FILTER, Pages, Range, Stretch
from ranvier.services.rooms.showing import Frame, Showing
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables.edges import Gap, list_gaps_between
from ranvier.store.tables.timeline import START_OF_TIMELINE

MAX_PAGE: Final = 500
"""Events in one answer."""

MAX_FILLS: Final = 5
"""How often other servers are asked for one page: each time they give a hundred events or so."""


class PageRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of a timeline is asked for. A place is a room_order: the point just behind that event."""

    backwards: bool
    limit: int
    start: int | None = None  # None: the newest or the oldest event, by the direction
    stop: int | None = None
    filter: EventFilter = NO_FILTER


class EventPage(msgspec.Struct, frozen=True, kw_only=True):
    """Client events as JSON, in the order of reading."""

    start: int  # the place where reading began
    end: int | None  # where it goes on; None: there is no more
    events: Sequence[bytes]
    state: Sequence[bytes] | None = None  # None: not asked for


FillGap = Callable[[int, int], Awaitable[int]]
"""(room_nid, room_order): fetches what is missing below that place from other servers; how many events came."""


async def fill_nothing(_room_nid: int, _below: int) -> int:
    """Where there is no federation, nothing is missing that could be had."""
    return 0


class History:
    """Reads timelines."""

    def __init__(self, db: Database, clock: Clock, showing: Showing, pages: Pages, fill_gap: FillGap) -> None:
        self._db = db
        self._clock = clock
        self._showing = showing
        self._pages = pages
        self._fill_gap = fill_gap

    async def get_messages(self, requester: Requester, room_id: RoomID, asked: PageRequest) -> EventPage:
        """A page of the room's timeline; where history is missing in it, other servers are asked first.

        Raises: Forbidden (the requester may not look into the room), BadJsonValue (too many wildcards).
        """
        frame = Frame(self._clock.now_ms(), room_id)
        page, gap = await self._db.read(self._read_messages, requester, room_id, asked, frame)
        for _ in range(MAX_FILLS):
            if gap is None or not await self._fill_gap(*gap):
                break
            page, gap = await self._db.read(self._read_messages, requester, room_id, asked, frame)
        return page

    async def get_event(
        self, requester: Requester, event_id: EventID, room_id: RoomID | None = None
    ) -> bytes:
        """One event, of a certain room or of any. Raises: NotFound, also when the requester may not see it."""
        return await self._db.read(self._read_event, requester, event_id, room_id, self._clock.now_ms())

    def _read_messages(
        self, txn: ReadTxn, requester: Requester, room_id: RoomID, asked: PageRequest, frame: Frame
    ) -> tuple[EventPage, tuple[int, int] | None]:
        """The page, and the newest gap in it: room_nid and room_order."""
        viewer = self._showing.access_room(txn, requester, room_id)
        start, part = range_of(asked, newest=room_order_of(txn.position), sees_until=viewer.sees_until)
        stretch = self._pages.read(txn, viewer, part)
        gaps = self._list_gaps(txn, viewer.room_nid, asked, stretch, part)
        page = EventPage(
            start=start,
            end=_end(stretch, part),
            events=self._pages.encode(txn, viewer, stretch.events, frame),
            state=(
                self._pages.encode_members(txn, viewer, stretch.events, frame)
                if asked.filter.lazy_load_members
                else None
            ),
        )
        return page, (viewer.room_nid, gaps[0].room_order) if gaps else None

    def _list_gaps(
        self, txn: ReadTxn, room_nid: int, asked: PageRequest, stretch: Stretch, part: Range
    ) -> Sequence[Gap]:
        # Also one right above the range, where clients stand: it is under the first event that they have.
        after, upto = part.above, part.below
        if asked.backwards:
            after = after if stretch.last_order is None else stretch.last_order - 1
        elif asked.start is None:
            # From the beginning all history would have to be here first.
            return ()
        else:
            upto = upto if stretch.last_order is None else stretch.last_order
        return list_gaps_between(txn, room_nid, after, upto, 1)

    def _read_event(
        self, txn: ReadTxn, requester: Requester, event_id: EventID, room_id: RoomID | None, now_ms: int
    ) -> bytes:
        viewer, record, membership = self._showing.access_event(txn, requester, room_id, event_id)
        frame = Frame(now_ms, viewer.room_id)
        return self._pages.encode(txn, viewer, [(record, membership)], frame)[0]


def range_of(asked: PageRequest, *, newest: int, sees_until: int) -> tuple[int, Range]:
    """The place where reading begins, and the range of orders to read.

    Args: newest - the place at the end of the timeline; sees_until - the order behind which the viewer sees
    nothing.
    """
    if asked.backwards:
        start = newest if asked.start is None else asked.start
        below = min(start, newest, sees_until) + 1
        above = START_OF_TIMELINE if asked.stop is None else asked.stop
    else:
        start = START_OF_TIMELINE if asked.start is None else asked.start
        above = start
        below = min(newest if asked.stop is None else asked.stop, newest, sees_until) + 1
    return start, Range(
        above=above,
        below=below,
        backwards=asked.backwards,
        limit=min(asked.limit, MAX_PAGE),
        filter=asked.filter,
    )


def _end(stretch: Stretch, part: Range) -> int | None:
    """The place where the reading of a part goes on; None: there is no more.

    COMPAT: what a filter lets pass has one even where nothing is left, as in Synapse: Complement expects it.
    """
    end = resume_at(stretch.last_order, backwards=part.backwards)
    if end is None and stretch.events and compile_event_filter(part.filter).checks:
        return part.above if part.backwards else part.below - 1
    return end


def resume_at(last_order: int | None, *, backwards: bool) -> int | None:
    """The place where reading goes on behind the last event that was looked at; None: there is no more."""
    if last_order is None:
        return None
    return last_order - 1 if backwards else last_order
