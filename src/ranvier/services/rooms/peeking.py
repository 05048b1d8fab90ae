"""Listening to a room without being in it. Spec: client-server API, `GET /events?room_id=`."""

from typing import Final

from msgspec import structs

from ranvier.core.errors import Forbidden
from ranvier.core.identifiers import RoomID
from ranvier.core.tokens import room_order_of
from ranvier.io.clock import Clock
from ranvier.services.changes import Waiters, wait_for_news
from ranvier.services.requester import Requester
from ranvier.services.rooms.history import EventPage, History, PageRequest
from ranvier.store.database import Database
from ranvier.store.tables.rooms import find_room

MAX_EVENTS: Final = 100


class Peeking:
    """Reads on in a room's timeline, and waits at its end."""

    def __init__(self, db: Database, history: History, waiters: Waiters, clock: Clock) -> None:
        self._db = db
        self._history = history
        self._waiters = waiters
        self._clock = clock

    async def listen(
        self, requester: Requester, room_id: RoomID, start: int | None, timeout_ms: int
    ) -> EventPage:
        """The events behind the place `start` (None: from now on) that the requester may see, as soon as there
        are some; `end` is always there. Raises: Forbidden (the requester may not look into the room).
        """
        place = room_order_of(self._db.position()) if start is None else start
        room = await self._db.read(find_room, room_id)
        if room is None:
            raise Forbidden("You may not look into this room.")
        deadline = self._clock.monotonic() + timeout_ms / 1000
        while True:
            with self._waiters.watch_room(room.room_nid) as woken:
                # What comes while the page is read is for the next one: else it would be in both.
                stop = room_order_of(self._db.position())
                asked = PageRequest(backwards=False, limit=MAX_EVENTS, start=place, stop=stop)
                page = await self._history.get_messages(requester, room_id, asked)
                remaining = deadline - self._clock.monotonic()
                if page.events or remaining <= 0 or self._waiters.is_closed:
                    return page if page.end is not None else structs.replace(page, end=max(place, stop))
                await wait_for_news(woken, self._clock, remaining)
