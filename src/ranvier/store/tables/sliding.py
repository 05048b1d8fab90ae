"""What sliding sync sorts and filters a user's rooms by, and the few facts of rooms that only it tells.

Tables: none of its own; it reads rooms, room_summaries, memberships, membership_changes, account_data and
receipts. What connections know stands in `sliding_connections`.
Index -> query: primary keys, memberships_by_user, receipts_by_user, receipts_by_position.
"""

from collections.abc import Collection
from typing import Final

import msgspec

from ranvier.core.identifiers import RoomID
from ranvier.store.database import ReadTxn
from ranvier.store.tables.account_data import GLOBAL
from ranvier.store.tables.batches import in_batches
from ranvier.store.tables.receipts import StoredReceipt, stored_receipt


class RoomFacts(msgspec.Struct, frozen=True):
    """What lists sort and filter by, and how new the room is."""

    newest_position: int
    bump_position: int  # of the newest event that is activity; 0: none
    room_type: str | None
    is_encrypted: bool


class Absence(msgspec.Struct, frozen=True):
    """A room in which a user is something other than joined."""

    room_nid: int
    membership: str  # invite, knock, leave or ban
    event_nid: int
    position: int
    is_forgotten: bool
    sender_nid: int  # who made it so; 0: the event is not here


_FACTS: Final = """
    SELECT r.room_nid, r.newest_position, r.bump_position, s.room_type,
        CASE WHEN s.encryption IS NULL THEN 0 ELSE 1 END
    FROM rooms r LEFT JOIN room_summaries s ON s.room_nid = r.room_nid WHERE r.room_nid IN (:nids[])
"""
_ABSENCES: Final = """
    SELECT m.room_nid, m.membership, m.event_nid, m.position, m.is_forgotten, COALESCE(e.sender_nid, 0)
    FROM memberships m LEFT JOIN events e ON e.event_nid = m.event_nid
    WHERE m.user_nid = :user_nid AND m.membership IN ('invite', 'knock', 'leave', 'ban')
"""
_ONCE_JOINED: Final = """
    SELECT DISTINCT room_nid FROM membership_changes
    WHERE user_nid = :user_nid AND previous = 'join' AND room_nid IN (:nids[])
"""
_ROOM_NIDS: Final = "SELECT room_id, room_nid FROM rooms WHERE room_id IN (:room_ids[])"
_OF_TYPE: Final = """
    SELECT room_nid, content FROM account_data
    WHERE user_nid = :user_nid AND type = :type AND content IS NOT NULL
"""
_CHANGED: Final = """
    SELECT r.room_nid FROM rooms r WHERE r.room_nid IN (:nids[]) AND (
        r.newest_position > :since
        OR EXISTS (SELECT 1 FROM room_states s WHERE s.room_nid = r.room_nid AND s.position > :since)
        OR EXISTS (SELECT 1 FROM receipts c WHERE c.room_nid = r.room_nid AND c.position > :since)
        OR EXISTS (SELECT 1 FROM typing_versions t WHERE t.room_nid = r.room_nid AND t.position > :since)
    )
"""
_READ_ROOMS: Final = """
    SELECT DISTINCT room_nid FROM receipts
    WHERE user_nid = :user_nid AND is_local = 1 AND position > :since AND position <= :up_to
"""
_RECEIPTS_ON: Final = """
    SELECT r.room_nid, r.user_nid, r.type, r.thread_id, r.event_id, r.room_order, r.ts_ms, r.is_local, r.position
    FROM events e JOIN receipts r ON r.room_nid = e.room_nid AND r.position > e.event_nid
        AND r.event_id = e.event_id
    WHERE e.event_nid IN (:nids[]) AND r.position <= :up_to AND r.type = 'm.read'
"""
# Ordered as the primary key is: so the user's few rows of a room are found by it.
_OWN_RECEIPTS: Final = """
    SELECT room_nid, user_nid, type, thread_id, event_id, room_order, ts_ms, is_local, position FROM receipts
    WHERE room_nid IN (:nids[]) AND user_nid = :user_nid AND position <= :up_to
    ORDER BY room_nid, user_nid, type, thread_id
"""


def list_facts(txn: ReadTxn, room_nids: Collection[int]) -> dict[int, RoomFacts]:
    """By room_nid. Cost: 1 query per 4,096."""
    return {
        nid: RoomFacts(newest, bump, room_type, is_encrypted == 1)
        for batch in in_batches(list(room_nids))
        for nid, newest, bump, room_type, is_encrypted in txn.all(_FACTS, nids=batch)
    }


def list_absences(txn: ReadTxn, user_nid: int) -> list[Absence]:
    """Where the user is invited, knocks, has left or is banned."""
    return [
        Absence(nid, membership, event_nid, position, is_forgotten == 1, sender_nid)
        for nid, membership, event_nid, position, is_forgotten, sender_nid in txn.all(
            _ABSENCES, user_nid=user_nid
        )
    ]


def list_once_joined(txn: ReadTxn, user_nid: int, room_nids: Collection[int]) -> set[int]:
    """Those of the rooms that the user left after having been in them. Cost follows the user's history."""
    return {
        nid
        for batch in in_batches(list(room_nids))
        for (nid,) in txn.all(_ONCE_JOINED, user_nid=user_nid, nids=batch)
    }


def find_room_nids(txn: ReadTxn, room_ids: Collection[str]) -> dict[RoomID, int]:
    """Numbers of rooms; those that are not known are left out."""
    return {
        RoomID(room_id): nid
        for batch in in_batches(list(room_ids))
        for room_id, nid in txn.all(_ROOM_NIDS, room_ids=batch)
    }


def list_room_account_data_of_type(txn: ReadTxn, user_nid: int, type_: str) -> dict[int, bytes]:
    """One type of a user's account data, of all rooms that have it. Cost follows the user's account data."""
    return {
        nid: content for nid, content in txn.all(_OF_TYPE, user_nid=user_nid, type=type_) if nid != GLOBAL
    }


def list_changed_since(txn: ReadTxn, room_nids: Collection[int], since: int) -> set[int]:
    """The rooms that changed for anybody, where memory does not tell. Cost: a few index seeks a room."""
    return {
        nid for batch in in_batches(list(room_nids)) for (nid,) in txn.all(_CHANGED, nids=batch, since=since)
    }


def list_rooms_read(txn: ReadTxn, user_nid: int, since: int, up_to: int) -> set[int]:
    """The rooms in which a receipt of the user's moved in (since, up_to]."""
    return {nid for (nid,) in txn.all(_READ_ROOMS, user_nid=user_nid, since=since, up_to=up_to)}


def list_receipts_on(txn: ReadTxn, event_nids: Collection[int], up_to: int) -> list[StoredReceipt]:
    """The public receipts that stand on these events. Cost: the receipts of their rooms since the events."""
    return [
        stored_receipt(row)
        for batch in in_batches(list(event_nids))
        for row in txn.all(_RECEIPTS_ON, nids=batch, up_to=up_to)
    ]


def list_receipts_of(
    txn: ReadTxn, room_nids: Collection[int], user_nid: int, up_to: int
) -> list[StoredReceipt]:
    """A user's receipts in rooms, private ones included. Cost: one index seek a room."""
    return [
        stored_receipt(row)
        for batch in in_batches(list(room_nids))
        for row in txn.all(_OWN_RECEIPTS, nids=batch, user_nid=user_nid, up_to=up_to)
    ]
