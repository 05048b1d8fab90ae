"""Up to where users have read: receipts, public and private, and the fully read marker.

Spec: client-server API, "Receipts", "Fully read markers", "Marking notifications as read".
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec

from ranvier.core.errors import InvalidParam, NotFound
from ranvier.core.identifiers import EventID, RoomID
from ranvier.core.limits import MAX_IDENTIFIER_BYTES
from ranvier.io.clock import Clock
from ranvier.services.ephemeral.joined import find_joined_room
from ranvier.services.ephemeral.presence import PresenceTracker
from ranvier.services.requester import Requester
from ranvier.services.rooms.live import LiveRooms
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables import account_data, notifications, receipts, relations
from ranvier.store.tables.events import KnownEvent, list_known
from ranvier.store.tables.receipts import UNTHREADED, Receipt, ReceiptType

MAIN_TIMELINE: Final = "main"
"""As `thread_id`: all that is in no thread."""


class Marker(StrEnum):
    """What can be set to an event. The values are those of the specification."""

    READ = "m.read"
    PRIVATE = "m.read.private"
    FULLY_READ = "m.fully_read"


class _Reading(msgspec.Struct, frozen=True, kw_only=True):
    user_nid: int
    room_nid: int
    markers: Mapping[Marker, EventID]
    thread_id: str
    now_ms: int


class _Place(msgspec.Struct, frozen=True):
    """An event that was read: its place in the timeline, and the place for counting (a position)."""

    event_id: EventID
    room_order: int

    @property
    def read_up_to(self) -> int:
        # A backfilled event has a new number but an old place: just behind the live event before it.
        return self.room_order >> 20


def parse_marker(text: str) -> Marker:
    """Raises: InvalidParam for a type of receipt that does not exist."""
    try:
        return Marker(text)
    except ValueError as error:
        raise InvalidParam(f"There are no receipts of type {text[:100]!r}.") from error


def parse_thread_id(value: object) -> str:
    """The thread that a receipt is for. Raises: InvalidParam."""
    if not isinstance(value, str) or not value:
        raise InvalidParam("thread_id must be a string that is not empty.")
    if "\0" in value or len(value.encode(errors="replace")) > MAX_IDENTIFIER_BYTES:
        raise InvalidParam("thread_id is main or the event id of a thread's root.")
    return value


class Receipts:
    """Moves what users have read."""

    def __init__(self, db: Database, live: LiveRooms, clock: Clock, presence: PresenceTracker) -> None:
        self._db = db
        self._live = live
        self._clock = clock
        self._presence = presence

    async def mark(
        self,
        requester: Requester,
        room_id: RoomID,
        markers: Mapping[Marker, EventID],
        thread_id: str | None = None,
    ) -> None:
        """Set each marker to its event; one that is not ahead of where it stands stays there.

        Args:
            thread_id - whose thread is read: main, the id of its root, or None: the whole room.

        Raises: Forbidden (not joined); NotFound (no such event in the room's timeline); InvalidParam (a
            thread that the event is not in, or one given for the fully read marker).
        """
        room = await find_joined_room(self._live, room_id, requester.user_id)
        self._presence.note_activity(requester)
        if thread_id is not None and Marker.FULLY_READ in markers:
            raise InvalidParam("The fully read marker has no thread_id.")
        reading = _Reading(
            user_nid=requester.user_nid,
            room_nid=room.nid,
            markers=markers,
            thread_id=UNTHREADED if thread_id is None else thread_id,
            now_ms=self._clock.now_ms(),
        )
        if markers:
            await self._db.write(_store, reading)


def _store(txn: WriteTxn, reading: _Reading) -> None:
    known = list_known(txn, set(reading.markers.values()))
    places = {
        marker: _place(event_id, known.get(event_id), reading.room_nid)
        for marker, event_id in reading.markers.items()
    }
    for marker, place in places.items():
        if marker is Marker.FULLY_READ:
            _move_fully_read(txn, reading, place)
        else:
            _move_receipt(txn, reading, ReceiptType(marker.value), place)


def _place(event_id: EventID, event: KnownEvent | None, room_nid: int) -> _Place:
    if event is None or event.room_nid != room_nid or event.room_order is None:
        raise NotFound("There is no such event in this room.")
    return _Place(event_id, event.room_order)


def _move_receipt(txn: WriteTxn, reading: _Reading, type_: ReceiptType, place: _Place) -> None:
    thread_nid = _find_thread(txn, reading, place.event_id)
    receipts.set_receipt(
        txn,
        Receipt(
            reading.room_nid,
            reading.user_nid,
            type_,
            reading.thread_id,
            place.event_id,
            place.room_order,
            reading.now_ms,
            True,
        ),
    )
    notifications.mark_read(txn, reading.room_nid, reading.user_nid, thread_nid, place.read_up_to)


def _find_thread(txn: ReadTxn, reading: _Reading, event_id: EventID) -> int:
    """The thread as the counts name it. Raises: InvalidParam when the event is not in it."""
    thread_id = reading.thread_id
    if thread_id == UNTHREADED:
        return notifications.EVERYTHING
    root = relations.find_thread_root(txn, reading.room_nid, event_id)
    if thread_id == MAIN_TIMELINE:
        if root is not None:
            raise InvalidParam("The event is in a thread, not in the main timeline.")
        return notifications.MAIN_TIMELINE
    # The root opens its thread: reading it, or what relates to it, may be told for either.
    if thread_id != root and not relations.is_related(txn, reading.room_nid, event_id, EventID(thread_id)):
        raise InvalidParam("The event is not in this thread.")
    known = list_known(txn, (EventID(thread_id),)).get(EventID(thread_id))
    if known is None or known.room_nid != reading.room_nid:
        raise InvalidParam("There is no such thread in this room.")
    return known.event_nid


def _move_fully_read(txn: WriteTxn, reading: _Reading, place: _Place) -> None:
    stored = account_data.find_account_data(txn, reading.user_nid, reading.room_nid, Marker.FULLY_READ)
    if stored is not None:
        event_id = msgspec.json.decode(stored, type=_FullyRead).event_id
        before = list_known(txn, (event_id,)).get(event_id)
        if before is not None and before.room_order is not None and before.room_order >= place.room_order:
            return
    content = msgspec.json.encode(_FullyRead(place.event_id))
    account_data.set_account_data(txn, reading.user_nid, reading.room_nid, Marker.FULLY_READ, content)


class _FullyRead(msgspec.Struct, frozen=True):
    event_id: EventID
