"""A room's threads, the most recently active first.

Spec: client-server API, `GET /rooms/{roomId}/threads`.
"""

from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from ranvier.core.identifiers import RoomID
from ranvier.core.tokens import room_order_of
from ranvier.io.clock import Clock
from ranvier.services.requester import Requester
from ranvier.services.rooms.aggregations import Aggregations
from ranvier.services.rooms.showing import Frame, Showing
from ranvier.services.rooms.sight import Viewer
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables import events, relations
from ranvier.store.tables.relations import Thread

MAX_THREADS: Final = 100
"""In one answer."""

MAX_ROUNDS: Final = 10
"""Queries for one answer, while what they find is invisible."""


class ThreadsRequest(msgspec.Struct, frozen=True, kw_only=True):
    limit: int
    start: int | None = None  # the room_order behind which later activity is left out
    participated: bool = False  # only threads that the requester began or replied in


class ThreadList(msgspec.Struct, frozen=True):
    roots: Sequence[bytes]  # client events as JSON
    end: int | None  # the `start` of what follows; None: there is no more


class Threads:
    """Lists threads."""

    def __init__(self, db: Database, clock: Clock, showing: Showing, aggregations: Aggregations) -> None:
        self._db = db
        self._clock = clock
        self._showing = showing
        self._aggregations = aggregations

    async def list_threads(self, requester: Requester, room_id: RoomID, asked: ThreadsRequest) -> ThreadList:
        """Raises: Forbidden (the requester may not look into the room)."""
        frame = Frame(self._clock.now_ms(), room_id)
        return await self._db.read(self._read, requester, room_id, asked, frame)

    def _read(
        self, txn: ReadTxn, requester: Requester, room_id: RoomID, asked: ThreadsRequest, frame: Frame
    ) -> ThreadList:
        viewer = self._showing.access_room(txn, requester, room_id)
        limit = min(asked.limit, MAX_THREADS)
        newest = room_order_of(txn.position)
        below = min(newest if asked.start is None else asked.start, newest) + 1
        participant = requester.user_nid if asked.participated else None
        for _ in range(MAX_ROUNDS):
            found = relations.list_threads(txn, viewer.room_nid, below, limit + 1, participant)
            has_more = len(found) > limit
            threads = found[:limit]
            roots = self._encode(txn, viewer, threads, frame)
            if not has_more:
                return ThreadList(roots, None)
            below = threads[-1].newest_order
            if roots:
                break
        return ThreadList(roots, below - 1)

    def _encode(self, txn: ReadTxn, viewer: Viewer, threads: Collection[Thread], frame: Frame) -> list[bytes]:
        """The roots that the viewer may see and that have a reply which the viewer may see, in order."""
        known = events.list_events_by_id(txn, [thread.root_event_id for thread in threads])
        records = [known[thread.root_event_id] for thread in threads if thread.root_event_id in known]
        in_room = [record for record in records if record.room_nid == viewer.room_nid]
        visible = self._showing.visible_or_hidden(txn, viewer, in_room)
        bundles = self._aggregations.bundle(txn, viewer, [record for record, _ in visible], frame)
        with_replies = [(record, what) for record, what in visible if record.event_nid in bundles]
        return self._showing.client_events(txn, viewer, with_replies, frame, bundles)
