"""Subscribing to threads and unsubscribing from them.

A client that subscribes by itself names the event that made it do so. After the user has unsubscribed, only a later
event can do that again. Whoever subscribes to a first thread gets the push rules that look at subscriptions.

Spec: MSC4306.
"""

from typing import Final

from ranvier.core.errors import ConflictingUnsubscription, NotFound, NotInThread, ServerFault
from ranvier.core.identifiers import EventID, RoomID
from ranvier.services.push.rules import follow_threads
from ranvier.services.requester import Requester
from ranvier.services.rooms.showing import Showing
from ranvier.store.database import Conflict, Database, ReadTxn, WriteTxn
from ranvier.store.tables.events import EventRecord, find_event
from ranvier.store.tables.relations import THREAD, list_relations_of
from ranvier.store.tables.thread_subscriptions import (
    Subscription,
    find_subscription,
    subscribe,
    unsubscribe,
)

MAX_ATTEMPTS: Final = 10


class ThreadSubscribing:
    """What one user wants of one thread."""

    def __init__(self, db: Database, showing: Showing) -> None:
        self._db = db
        self._showing = showing

    async def get(self, requester: Requester, room_id: RoomID, root: EventID) -> Subscription:
        """Raises: NotFound, also when there is none."""
        return await self._db.read(self._get, requester, room_id, root)

    async def subscribe(
        self, requester: Requester, room_id: RoomID, root: EventID, cause: EventID | None
    ) -> None:
        """`cause` is the event that made the client subscribe by itself.

        Raises: NotFound, NotInThread, ConflictingUnsubscription.
        """
        for _ in range(MAX_ATTEMPTS):
            try:
                return await self._db.write(self._subscribe, requester, room_id, root, cause)
            except Conflict:
                continue  # the user's push rules changed at the same time
        raise ServerFault("the push rules change too fast")

    async def unsubscribe(self, requester: Requester, room_id: RoomID, root: EventID) -> None:
        """Raises: NotFound."""
        await self._db.write(self._unsubscribe, requester, room_id, root)

    def _get(self, txn: ReadTxn, requester: Requester, room_id: RoomID, root: EventID) -> Subscription:
        record = self._find_root(txn, requester, room_id, root)
        found = find_subscription(txn, requester.user_nid, record.room_nid, record.event_nid)
        if found is None or not found.is_subscribed:
            raise NotFound("You are not subscribed to this thread.")
        return found

    def _subscribe(
        self, txn: WriteTxn, requester: Requester, room_id: RoomID, root: EventID, cause: EventID | None
    ) -> None:
        record = self._find_root(txn, requester, room_id, root)
        before = find_subscription(txn, requester.user_nid, record.room_nid, record.event_nid)
        is_subscribed = before is not None and before.is_subscribed
        if cause is not None:
            caused_by = _find_in_thread(txn, record, cause)
            if is_subscribed:
                return
            if before is not None and caused_by.event_nid <= before.unsubscribed_position:
                raise ConflictingUnsubscription("You unsubscribed from this thread after that event.")
        elif before is not None and is_subscribed and not before.is_automatic:
            return
        follow_threads(txn, requester.user_nid)
        subscribe(
            txn, requester.user_nid, record.room_nid, record.event_nid, before, automatic=cause is not None
        )

    def _unsubscribe(self, txn: WriteTxn, requester: Requester, room_id: RoomID, root: EventID) -> None:
        record = self._find_root(txn, requester, room_id, root)
        found = find_subscription(txn, requester.user_nid, record.room_nid, record.event_nid)
        if found is not None and found.is_subscribed:
            unsubscribe(txn, requester.user_nid, record.room_nid, record.event_nid)

    def _find_root(self, txn: ReadTxn, requester: Requester, room_id: RoomID, root: EventID) -> EventRecord:
        _, record, _ = self._showing.access_event(txn, requester, room_id, root)
        return record


def _find_in_thread(txn: ReadTxn, root: EventRecord, event_id: EventID) -> EventRecord:
    """Raises: NotInThread."""
    record = find_event(txn, event_id)
    if record is not None and record.room_nid == root.room_nid:
        relation = list_relations_of(txn, (record.event_nid,)).get(record.event_nid)
        if relation is not None and relation.rel_type == THREAD and relation.target_event_id == root.event_id:
            return record
    raise NotInThread("That event is not in this thread.")
