"""Looking into rooms as an administrator: everything that stands in their timelines, whoever may see it."""

from collections.abc import Collection

from ranvier.core.canonical_json import JsonObject, parse_object
from ranvier.core.errors import NotFound
from ranvier.core.identifiers import EventID, RoomID
from ranvier.services.administration.people import get_room
from ranvier.services.requester import Requester
from ranvier.services.rooms.context import ContextRequest, Contexts, EventContext
from ranvier.services.rooms.history import EventPage, History, PageRequest
from ranvier.services.rooms.remote_times import TimedEvent
from ranvier.services.rooms.sight import Viewer
from ranvier.services.rooms.timestamps import Timestamps
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables import events
from ranvier.store.tables.events import EventRecord

_NOBODY = 0
"""The number of no user: nothing is hidden from them because they ignore somebody, and nothing is their own."""


class FullSight:
    """Sees every event of a timeline. In the place of `rooms.sight.Sight`."""

    def visible(self, txn: ReadTxn, viewer: Viewer, records: Collection[EventRecord]) -> dict[int, str]:
        """All that stand in the timeline."""
        return {
            record.event_nid: "leave"
            for record in records
            if record.room_order is not None and record.state_root is not None
        }

    def is_world_readable(self, txn: ReadTxn, state_root: int) -> bool:
        """Whoever looks this way may."""
        return True


class RoomReading:
    """Reads rooms for administrators. All raise NotFound for a room that is not known here."""

    def __init__(self, db: Database, history: History, contexts: Contexts, timestamps: Timestamps) -> None:
        """All of these with `FullSight`, and without a way to other servers."""
        self._db = db
        self._history = history
        self._contexts = contexts
        self._timestamps = timestamps

    async def get_messages(self, requester: Requester, room_id: RoomID, asked: PageRequest) -> EventPage:
        """Raises: BadJsonValue."""
        await self._db.read(get_room, room_id)
        return await self._history.get_messages(_onlooker(requester), room_id, asked)

    async def get_context(self, requester: Requester, room_id: RoomID, asked: ContextRequest) -> EventContext:
        """Raises: NotFound, BadJsonValue."""
        await self._db.read(get_room, room_id)
        return await self._contexts.get_context(_onlooker(requester), room_id, asked)

    async def find_event(
        self, requester: Requester, room_id: RoomID, ts: int, *, forwards: bool
    ) -> TimedEvent:
        """The event that is nearest to a time (ms), at or after it, or at or before it. Raises: NotFound."""
        await self._db.read(get_room, room_id)
        return await self._timestamps.find_event(_onlooker(requester), room_id, ts, forwards=forwards)

    async def get_stored(self, event_id: EventID) -> JsonObject:
        """An event as it is stored, of whatever status, also what was redacted while that is kept.

        Raises: NotFound.
        """
        record = await self._db.read(events.find_event, event_id)
        if record is None:
            raise NotFound("There is no such event here.")
        return {**parse_object(record.json), "event_id": event_id}


def _onlooker(requester: Requester) -> Requester:
    return Requester(user_id=requester.user_id, user_nid=_NOBODY, device_id=None)
