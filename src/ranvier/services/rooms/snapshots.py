"""A room as it is now (or was when the user left it), in one answer.

Spec: client-server API, `GET /rooms/{roomId}/initialSync` (deprecated).
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from ranvier.core.identifiers import RoomID
from ranvier.core.tokens import room_order_of
from ranvier.io.clock import Clock
from ranvier.services.requester import Requester
from ranvier.services.rooms.access import access_state
from ranvier.services.rooms.history import PageRequest, range_of
from ranvier.services.rooms.pages import Pages
from ranvier.services.rooms.showing import Frame, Showing
from ranvier.services.rooms.sight import Sight
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables.account_data import list_account_data_of_rooms
from ranvier.store.tables.directory import is_published

MESSAGES: Final = 20


class RoomSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Events are client events as JSON, the oldest first. Places are room_orders."""

    membership: str
    messages: Sequence[bytes]
    start: int
    end: int
    state: Sequence[bytes]
    is_published: bool
    account_data: Sequence[tuple[str, bytes]]  # type, content as JSON


class Snapshots:
    """Reads rooms whole."""

    def __init__(self, db: Database, clock: Clock, sight: Sight, showing: Showing, pages: Pages) -> None:
        self._db = db
        self._clock = clock
        self._sight = sight
        self._showing = showing
        self._pages = pages

    async def get_room(self, requester: Requester, room_id: RoomID) -> RoomSnapshot:
        """Raises: Forbidden (the requester may not look into the room)."""
        frame = Frame(self._clock.now_ms(), room_id)
        return await self._db.read(self._read, requester, room_id, frame)

    def _read(self, txn: ReadTxn, requester: Requester, room_id: RoomID, frame: Frame) -> RoomSnapshot:
        viewer = self._showing.access_room(txn, requester, room_id)
        access = access_state(txn, self._sight, room_id, requester.user_nid)
        asked = PageRequest(backwards=True, limit=MESSAGES)
        start, part = range_of(asked, newest=room_order_of(txn.position), sees_until=viewer.sees_until)
        events = self._pages.read(txn, viewer, part).events[::-1]
        oldest = start
        if events and events[0][0].room_order is not None:
            oldest = events[0][0].room_order - 1
        data = list_account_data_of_rooms(txn, requester.user_nid, (viewer.room_nid,))
        return RoomSnapshot(
            membership=viewer.standpoint.membership,
            messages=self._pages.encode(txn, viewer, events, frame),
            start=oldest,
            end=start,
            state=self._pages.encode_root(txn, access.state_root, frame),
            is_published=is_published(txn, viewer.room_nid),
            account_data=[(one.type, one.content) for one in data if one.content is not None],
        )
