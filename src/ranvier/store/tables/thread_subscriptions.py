"""Which threads users are subscribed to, or have unsubscribed from.

Table: thread_subscriptions. Owner: services.thread_subscriptions. Growth: one row for each user and thread.
Index -> query: primary key -> find, and list those in a room; by_position -> what changed; by_room -> purging a room.
"""

from collections.abc import Collection
from typing import Final

import msgspec

from ranvier.core.identifiers import EventID, RoomID
from ranvier.store.database import Kind, ReadTxn, WriteTxn
from ranvier.store.tables.batches import in_batches


class Subscription(msgspec.Struct, frozen=True):
    is_subscribed: bool
    is_automatic: bool
    unsubscribed_position: int  # 0: never unsubscribed


class SubscriptionChange(msgspec.Struct, frozen=True):
    room_id: RoomID
    root_event_id: EventID
    is_subscribed: bool
    is_automatic: bool
    position: int


_FIND: Final = """
    SELECT is_subscribed, is_automatic, unsubscribed_position FROM thread_subscriptions
    WHERE user_nid = :user_nid AND room_nid = :room_nid AND root_nid = :root_nid
"""
_SET: Final = """
    INSERT INTO thread_subscriptions (user_nid, room_nid, root_nid, is_subscribed, is_automatic,
        unsubscribed_position, position)
    VALUES (:user_nid, :room_nid, :root_nid, :is_subscribed, :is_automatic, :unsubscribed_position, :position)
    ON CONFLICT (user_nid, room_nid, root_nid) DO UPDATE SET is_subscribed = excluded.is_subscribed,
        is_automatic = excluded.is_automatic, unsubscribed_position = excluded.unsubscribed_position,
        position = excluded.position
"""
_SUBSCRIBED: Final = """
    SELECT t.user_nid, e.event_id FROM thread_subscriptions t JOIN events e ON e.event_nid = t.root_nid
    WHERE t.room_nid = :room_nid AND t.user_nid IN (:user_nids[]) AND t.is_subscribed = 1
"""
_CHANGES: Final = """
    SELECT r.room_id, e.event_id, t.is_subscribed, t.is_automatic, t.position
    FROM thread_subscriptions t
    JOIN rooms r ON r.room_nid = t.room_nid
    JOIN events e ON e.event_nid = t.root_nid
    WHERE t.user_nid = :user_nid AND t.position > :after AND t.position < :below
    ORDER BY t.position DESC LIMIT :limit
"""


def list_subscribed(txn: ReadTxn, room_nid: int, user_nids: Collection[int]) -> dict[int, list[EventID]]:
    """user_nid -> the roots of the threads in a room that they are subscribed to."""
    found: dict[int, list[EventID]] = {}
    for batch in in_batches(list(user_nids)):
        for user_nid, root in txn.all(_SUBSCRIBED, room_nid=room_nid, user_nids=batch):
            found.setdefault(user_nid, []).append(root)
    return found


def find_subscription(txn: ReadTxn, user_nid: int, room_nid: int, root_nid: int) -> Subscription | None:
    row = txn.first(_FIND, user_nid=user_nid, room_nid=room_nid, root_nid=root_nid)
    return None if row is None else Subscription(bool(row[0]), bool(row[1]), row[2])


def subscribe(
    txn: WriteTxn,
    user_nid: int,
    room_nid: int,
    root_nid: int,
    before: Subscription | None,
    *,
    automatic: bool,
) -> None:
    """`before` is what `find_subscription` found in this transaction."""
    left = 0 if before is None else before.unsubscribed_position
    _set(txn, user_nid, room_nid, root_nid, Subscription(True, automatic, left), txn.next_position())


def unsubscribe(txn: WriteTxn, user_nid: int, room_nid: int, root_nid: int) -> None:
    position = txn.next_position()
    _set(txn, user_nid, room_nid, root_nid, Subscription(False, False, position), position)


def list_subscription_changes(
    txn: ReadTxn, user_nid: int, after: int, below: int, limit: int
) -> list[SubscriptionChange]:
    """What changed between two positions, both left out, the newest first: the last change of each thread."""
    rows = txn.all(_CHANGES, user_nid=user_nid, after=after, below=below, limit=limit)
    return [
        SubscriptionChange(room_id, event_id, bool(is_subscribed), bool(is_automatic), position)
        for room_id, event_id, is_subscribed, is_automatic, position in rows
    ]


def _set(
    txn: WriteTxn, user_nid: int, room_nid: int, root_nid: int, now: Subscription, position: int
) -> None:
    txn.execute(
        _SET,
        user_nid=user_nid,
        room_nid=room_nid,
        root_nid=root_nid,
        is_subscribed=now.is_subscribed,
        is_automatic=now.is_automatic,
        unsubscribed_position=now.unsubscribed_position,
        position=position,
    )
    txn.hint(Kind.USER, user_nid)
    txn.hint(Kind.PUSH, user_nid)
