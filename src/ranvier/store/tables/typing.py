"""Who is typing in which room, until when.

Tables: typing, typing_versions. Owner: services.ephemeral. Growth: one row a user who types now; one a room.
Index -> query: primary key -> who types in a room; by_deadline -> who has stopped; versions primary key ->
rooms in which the set changed since P.

The set of a room has one version: clients and servers are told the whole set, so nobody needs to hear who
left it.

Spec: client-server API, "Typing Notifications".
"""

from collections.abc import Collection
from typing import Final

from ranvier.store.database import Kind, ReadTxn, WriteTxn
from ranvier.store.tables.batches import in_batches

_SET: Final = """
    INSERT INTO typing (room_nid, user_nid, until_ms) VALUES (:room_nid, :user_nid, :until_ms)
    ON CONFLICT (room_nid, user_nid) DO UPDATE SET until_ms = excluded.until_ms
"""
_IS_TYPING: Final = "SELECT 1 FROM typing WHERE room_nid = :room_nid AND user_nid = :user_nid"
_STOP: Final = "DELETE FROM typing WHERE room_nid = :room_nid AND user_nid = :user_nid"
_EXPIRE: Final = "DELETE FROM typing WHERE until_ms <= :now_ms RETURNING room_nid, user_nid"
_NEXT_DEADLINE: Final = "SELECT MIN(until_ms) FROM typing"
_LIST: Final = """
    SELECT room_nid, user_nid FROM typing WHERE room_nid IN (:room_nids[]) ORDER BY room_nid, user_nid
"""
_CHANGED: Final = """
    SELECT room_nid FROM typing_versions
    WHERE room_nid IN (:room_nids[]) AND position > :since AND position <= :up_to
"""
_SET_VERSION: Final = """
    INSERT INTO typing_versions (room_nid, position) VALUES (:room_nid, :position)
    ON CONFLICT (room_nid) DO UPDATE SET position = excluded.position
"""


def start_typing(
    txn: WriteTxn, room_nid: int, user_nid: int, until_ms: int, *, is_renewed: bool = False
) -> bool:
    """The user types until then. False: it was typing already, only the deadline moved, and nobody is told, unless
    `is_renewed`."""
    was_typing = txn.value(_IS_TYPING, room_nid=room_nid, user_nid=user_nid) is not None
    txn.execute(_SET, room_nid=room_nid, user_nid=user_nid, until_ms=until_ms)
    if not was_typing or is_renewed:
        _changed(txn, room_nid)
    return not was_typing or is_renewed


def stop_typing(txn: WriteTxn, room_nid: int, user_nid: int) -> bool:
    """The user types no more: it said so, sent a message or left. False: it was not typing."""
    if not txn.execute(_STOP, room_nid=room_nid, user_nid=user_nid):
        return False
    _changed(txn, room_nid)
    return True


def stop_expired(txn: WriteTxn, now_ms: int) -> list[tuple[int, int]]:
    """End what is past its deadline; (room_nid, user_nid) of each."""
    stopped = [(room_nid, user_nid) for room_nid, user_nid in txn.all(_EXPIRE, now_ms=now_ms)]
    for room_nid in sorted({room_nid for room_nid, _ in stopped}):
        _changed(txn, room_nid)
    return stopped


def find_next_deadline(txn: ReadTxn) -> int | None:
    """When `stop_expired` has something to do next, in ms; None: nobody types."""
    value: int | None = txn.value(_NEXT_DEADLINE)
    return value


def list_typing(txn: ReadTxn, room_nids: Collection[int]) -> dict[int, list[int]]:
    """room_nid -> user_nids who type there. Every room asked for has an entry."""
    found: dict[int, list[int]] = {nid: [] for nid in room_nids}
    for batch in in_batches(list(found)):
        for room_nid, user_nid in txn.all(_LIST, room_nids=batch):
            found[room_nid].append(user_nid)
    return found


def list_rooms_typing_changed(txn: ReadTxn, room_nids: Collection[int], since: int, up_to: int) -> list[int]:
    """Of these rooms, those where the set of who types changed last in (since, up_to]."""
    return [
        room_nid
        for batch in in_batches(list(room_nids))
        for (room_nid,) in txn.all(_CHANGED, room_nids=batch, since=since, up_to=up_to)
    ]


def _changed(txn: WriteTxn, room_nid: int) -> None:
    txn.execute(_SET_VERSION, room_nid=room_nid, position=txn.next_position())
    txn.hint(Kind.ROOM, room_nid)
