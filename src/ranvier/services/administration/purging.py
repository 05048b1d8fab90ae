"""Taking rooms, and the past of rooms, out of the database.

A purge is many small transactions: whoever writes meanwhile waits for one of them at most. It may be broken off at any
moment and begun anew. The order of the steps is explained in `store.tables.purge`.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from ranvier.core.errors import InvalidParam, NotFound
from ranvier.core.identifiers import EventID, RoomID
from ranvier.io.clock import Clock
from ranvier.services.administration.people import get_room
from ranvier.services.administration.tasks import PURGE_HISTORY, Tasks
from ranvier.services.requester import Requester
from ranvier.services.rooms.live import LiveRooms
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables import purge
from ranvier.store.tables.admin_tasks import AdminTask
from ranvier.store.tables.events import find_event
from ranvier.store.tables.jobs import Job, enqueue_job
from ranvier.store.tables.timeline import START_OF_TIMELINE

DEPARTURES: Final = "forget departures"
"""The kind of job that takes the last of a purged room away; its key is the room id."""
DEPARTURES_KEPT_MS: Final = 7 * 24 * 3_600_000

BATCH: Final = 500
"""Rows that one transaction takes."""
USERS_AT_ONCE: Final = 500
PAUSE_S: Final = 0.005
"""Between two transactions: others come first."""

Progress = Callable[[int], Awaitable[None]]
"""Told how many events are gone."""

_Page = Callable[[WriteTxn, int, int, int], int | None]
_Some = Callable[[WriteTxn, int, int], bool]


class Departures(msgspec.Struct, frozen=True):
    """Who has left a purged room, up to which position."""

    room_nid: int
    upto: int


class RoomPurge:
    """Takes a whole room away."""

    def __init__(self, db: Database, clock: Clock, live: LiveRooms) -> None:
        self._db = db
        self._clock = clock
        self._live = live

    async def purge(self, room_id: RoomID, room_nid: int, progress: Progress) -> int:
        """Delete all that is known of a room, but that its users have left it, which goes a week later. Returns
        how many events were deleted this time.

        Nobody may enter the room meanwhile: `rooms.is_blocked`.
        """
        await self._db.write(purge.begin_purge, room_nid)
        self._live.forget(room_id)
        await self._go_through(purge.purge_of_users, room_nid)
        for some in (purge.purge_rows, purge.hide_events, purge.purge_states):
            await self._repeat(some, room_nid)
        deleted = 0
        while found := await self._db.write(purge.purge_events, room_nid, BATCH):
            deleted += found
            await progress(deleted)
            await self._clock.sleep(PAUSE_S)
        departures = Departures(room_nid=room_nid, upto=self._db.position())
        await self._db.write(_keep_departures, room_id, departures, self._clock.now_ms() + DEPARTURES_KEPT_MS)
        # Last: what connections know is written a while after they were told.
        await self._go_through(purge.purge_of_connections, room_nid)
        return deleted

    async def forget_departures(self, job: Job) -> None:
        """Do a job of kind DEPARTURES."""
        gone = msgspec.json.decode(job.payload, type=Departures)

        def page(txn: WriteTxn, room_nid: int, after: int, limit: int) -> int | None:
            return purge.forget_departures(txn, room_nid, gone.upto, after, limit)

        await self._go_through(page, gone.room_nid)

    async def _go_through(self, page: _Page, room_nid: int) -> None:
        after: int | None = -(2**63)
        while after is not None:
            after = await self._db.write(page, room_nid, after, USERS_AT_ONCE)
            await self._clock.sleep(PAUSE_S)

    async def _repeat(self, some: _Some, room_nid: int) -> None:
        while await self._db.write(some, room_nid, BATCH):
            await self._clock.sleep(PAUSE_S)


class HistoryWish(msgspec.Struct, frozen=True, kw_only=True):
    """Up to where a room's past is to go."""

    room_id: RoomID
    below: int  # room_order
    delete_local_events: bool = False


class HistoryPurge:
    """Takes the past of rooms away: messages, not state."""

    def __init__(self, db: Database, clock: Clock, tasks: Tasks) -> None:
        self._db = db
        self._clock = clock
        self._tasks = tasks

    async def start(
        self,
        requester: Requester,
        room_id: RoomID,
        *,
        event_id: EventID | None,
        before_ms: int | None,
        delete_local_events: bool,
    ) -> str:
        """Begin to purge what came before an event, or before a time; the id of the task.

        Raises: NotFound, InvalidParam.
        """
        below = await self._db.read(_find_border, room_id, event_id, before_ms)
        wish = HistoryWish(room_id=room_id, below=below, delete_local_events=delete_local_events)
        return await self._tasks.start(requester, PURGE_HISTORY, room_id, wish)

    async def run(self, task: AdminTask) -> dict[str, int]:
        """Do the task. Raises: NotFound: the room is gone meanwhile."""
        wish = msgspec.json.decode(task.wish, type=HistoryWish)
        above, deleted = START_OF_TIMELINE, 0
        while True:
            reached, count = await self._db.write(_purge_some, wish, above)
            deleted += count
            if reached is None:
                return {"events_deleted": deleted}
            above = reached
            await self._tasks.note(task, {"events_deleted": deleted})
            await self._clock.sleep(PAUSE_S)


def _keep_departures(txn: WriteTxn, room_id: RoomID, departures: Departures, until_ms: int) -> None:
    enqueue_job(txn, DEPARTURES, room_id, msgspec.json.encode(departures), until_ms)


def _find_border(txn: ReadTxn, room_id: RoomID, event_id: EventID | None, before_ms: int | None) -> int:
    """The order below which events go."""
    room = get_room(txn, room_id)
    if event_id is not None:
        event = find_event(txn, event_id)
        if event is None or event.room_nid != room.room_nid or event.room_order is None:
            raise NotFound("There is no such event in the timeline of this room.")
        return event.room_order
    if before_ms is None:
        raise InvalidParam("Name an event, or a time: purge_up_to_event_id or purge_up_to_ts.")
    order = purge.find_order_before(txn, room.room_nid, before_ms)
    if order is None:
        raise NotFound("There is no event before this time.")
    return order


def _purge_some(txn: WriteTxn, wish: HistoryWish, above: int) -> tuple[int | None, int]:
    """Up to which order all is purged, None: to the end; and how many events went."""
    room = get_room(txn, wish.room_id)
    found = purge.list_past(
        txn,
        room.room_nid,
        above=above,
        below=wish.below,
        # The next event will cite these.
        kept=room.extremities,
        with_local=wish.delete_local_events,
        limit=BATCH,
    )
    if not found:
        return None, 0
    return found[-1].room_order, purge.purge_past(txn, room.room_nid, found)
