"""Read receipts, public and private, of local and remote users.

Table: receipts. Owner: services.ephemeral. Growth: one row a user, room, type and thread.
Index -> query: primary key -> upsert, all of a room; by_position -> what changed in rooms since P; to_send
-> the public receipts of local users, for other servers.

A receipt never moves backwards: one that is not ahead of what is stored changes nothing.

Spec: client-server API, "Receipts"; server-server API, "Receipts".
"""

from collections.abc import Collection
from enum import Enum
from typing import Final

import msgspec

from ranvier.core.identifiers import EventID
from ranvier.store.database import Kind, ReadTxn, Row, WriteTxn
from ranvier.store.tables.batches import in_batches

UNTHREADED: Final = ""
"""As `thread_id`: a receipt for no thread in particular. Others are "main" or the thread root's event id."""


class ReceiptType(Enum):
    READ = "m.read"
    PRIVATE = "m.read.private"


class Receipt(msgspec.Struct, frozen=True):
    room_nid: int
    user_nid: int
    type: ReceiptType
    thread_id: str
    event_id: EventID
    room_order: int | None  # of the event; None: not known here
    ts_ms: int
    is_local: bool


class StoredReceipt(msgspec.Struct, frozen=True):
    receipt: Receipt
    position: int


_COLUMNS: Final = "room_nid, user_nid, type, thread_id, event_id, room_order, ts_ms, is_local, position"
# Ahead: further down the timeline. Where an event is not known, the time at which it was read decides.
_SET: Final = f"""
    INSERT INTO receipts ({_COLUMNS})
    VALUES (:room_nid, :user_nid, :type, :thread_id, :event_id, :room_order, :ts_ms, :is_local, :position)
    ON CONFLICT (room_nid, user_nid, type, thread_id) DO UPDATE SET event_id = excluded.event_id,
        room_order = excluded.room_order, ts_ms = excluded.ts_ms, position = excluded.position
    WHERE CASE WHEN receipts.room_order IS NULL OR excluded.room_order IS NULL
        THEN receipts.event_id <> excluded.event_id AND receipts.ts_ms <= excluded.ts_ms
        ELSE receipts.room_order < excluded.room_order END
"""  # noqa: S608
_LIST: Final = f"""
    SELECT {_COLUMNS} FROM receipts
    WHERE room_nid IN (:room_nids[]) AND (type = 'm.read' OR user_nid = :viewer_nid) AND position <= :up_to
    ORDER BY room_nid, position
"""  # noqa: S608
_CHANGES: Final = f"""
    SELECT {_COLUMNS} FROM receipts
    WHERE room_nid IN (:room_nids[]) AND position > :since AND position <= :up_to
        AND (type = 'm.read' OR user_nid = :viewer_nid)
    ORDER BY room_nid, position
"""  # noqa: S608
# Ordered as the primary key is: so the user's few rows of a room are found by it, and not what changed by position.
_PRIVATE: Final = f"""
    SELECT {_COLUMNS} FROM receipts
    WHERE room_nid IN (:room_nids[]) AND user_nid = :user_nid AND type = 'm.read.private'
        AND position > :since AND position <= :up_to
    ORDER BY room_nid, user_nid, type, thread_id
"""  # noqa: S608
_TO_SEND: Final = f"""
    SELECT {_COLUMNS} FROM receipts
    WHERE position > :since AND position <= :up_to AND is_local = 1 AND type = 'm.read'
    ORDER BY position LIMIT :limit
"""  # noqa: S608
_ALL_CHANGES: Final = f"""
    SELECT {_COLUMNS} FROM receipts
    WHERE room_nid IN (:room_nids[]) AND position > :since AND position <= :up_to ORDER BY room_nid, position
"""  # noqa: S608
_ROOMS_CHANGED: Final = (
    "SELECT DISTINCT room_nid FROM receipts WHERE position > :since AND position <= :up_to"
)
_ROOMS_CHANGED_BY: Final = """
    SELECT DISTINCT room_nid FROM receipts
    WHERE user_nid IN (:user_nids[]) AND is_local = 1 AND position > :since AND position <= :up_to
"""


def set_receipt(txn: WriteTxn, receipt: Receipt) -> int | None:
    """Move a receipt forward; the position, or None if it is not ahead of what is stored."""
    position = txn.next_position()
    changed = txn.execute(
        _SET,
        room_nid=receipt.room_nid,
        user_nid=receipt.user_nid,
        type=receipt.type.value,
        thread_id=receipt.thread_id,
        event_id=receipt.event_id,
        room_order=receipt.room_order,
        ts_ms=receipt.ts_ms,
        is_local=receipt.is_local,
        position=position,
    )
    if not changed:
        return None
    if receipt.type is ReceiptType.READ:
        txn.hint(Kind.ROOM, receipt.room_nid)
    txn.hint(Kind.USER, receipt.user_nid)
    return position


def list_receipts(
    txn: ReadTxn, room_nids: Collection[int], viewer_nid: int, up_to: int
) -> list[StoredReceipt]:
    """All that the viewer may see in these rooms: public ones, and the private ones that are its own."""
    return [
        stored_receipt(row)
        for batch in in_batches(list(room_nids))
        for row in txn.all(_LIST, room_nids=batch, viewer_nid=viewer_nid, up_to=up_to)
    ]


def list_receipt_changes(
    txn: ReadTxn, room_nids: Collection[int], viewer_nid: int, since: int, up_to: int
) -> list[StoredReceipt]:
    """Those that changed in (since, up_to], by room and position. Cost: one index seek a room, and what
    changed.
    """
    return [
        stored_receipt(row)
        for batch in in_batches(list(room_nids))
        for row in txn.all(_CHANGES, room_nids=batch, viewer_nid=viewer_nid, since=since, up_to=up_to)
    ]


def list_private_receipts(
    txn: ReadTxn, room_nids: Collection[int], user_nid: int, since: int, up_to: int
) -> list[StoredReceipt]:
    """A user's private receipts that changed in (since, up_to], by room. Cost: one index seek a room."""
    return [
        stored_receipt(row)
        for batch in in_batches(list(room_nids))
        for row in txn.all(_PRIVATE, room_nids=batch, user_nid=user_nid, since=since, up_to=up_to)
    ]


def list_receipts_to_send(txn: ReadTxn, since: int, up_to: int, limit: int) -> list[StoredReceipt]:
    """Public receipts of local users that changed in (since, up_to], oldest first, for other servers."""
    return [stored_receipt(row) for row in txn.all(_TO_SEND, since=since, up_to=up_to, limit=limit)]


def list_all_receipt_changes(
    txn: ReadTxn, room_nids: Collection[int], since: int, up_to: int
) -> list[StoredReceipt]:
    """What changed in (since, up_to], everybody's private receipts included: the caller decides who sees them.
    Cost: as `list_receipt_changes`.
    """
    return [
        stored_receipt(row)
        for batch in in_batches(list(room_nids))
        for row in txn.all(_ALL_CHANGES, room_nids=batch, since=since, up_to=up_to)
    ]


def list_rooms_with_receipt_changes(txn: ReadTxn, since: int, up_to: int) -> list[int]:
    """Rooms where a receipt changed in (since, up_to]. Cost: walks an index of all receipts; for a start only."""
    return [row[0] for row in txn.all(_ROOMS_CHANGED, since=since, up_to=up_to)]


def list_rooms_with_own_receipt_changes(
    txn: ReadTxn, user_nids: Collection[int], since: int, up_to: int
) -> set[int]:
    """Rooms where a receipt of one of these local users changed in (since, up_to]."""
    return {
        row[0]
        for batch in in_batches(list(user_nids))
        for row in txn.all(_ROOMS_CHANGED_BY, user_nids=batch, since=since, up_to=up_to)
    }


def stored_receipt(row: Row) -> StoredReceipt:
    """The record of a row of the columns above."""
    room_nid, user_nid, type_, thread_id, event_id, room_order, ts_ms, is_local, position = row
    receipt = Receipt(
        room_nid, user_nid, ReceiptType(type_), thread_id, event_id, room_order, ts_ms, bool(is_local)
    )
    return StoredReceipt(receipt, position)
