"""What sliding sync connections know of their clients, so that they outlive a restart.

Tables: sliding_connections, sliding_rooms. Owner: services.sliding.keeping.
Growth: one row a connection; one a room that it was told of. Unused connections are dropped, and a device has
at most MAX_OF_DEVICE.
Index -> query: (device, conn_id) -> the connection; (life, room) -> its rooms; by_use -> what to drop.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from ranvier.store.database import ReadTxn, WriteTxn
from ranvier.store.tables.batches import in_batches

MAX_OF_DEVICE: Final = 16
"""Connections of one device; the least recently used go first."""


class StoredConnection(msgspec.Struct, frozen=True):
    life: int
    device_nid: int
    conn_id: str
    answer: int
    position: int
    account_data_upto: int | None
    device_lists_upto: int | None
    subscriptions_upto: int | None
    required_states: bytes  # JSON
    used_ms: int


class StoredRoom(msgspec.Struct, frozen=True):
    room_nid: int
    upto: int | None
    depth: int
    required_state: int
    extensions: int
    membership: str
    is_direct: bool
    notifications: int | None
    highlights: int | None


class ConnectionChange(msgspec.Struct, frozen=True):
    """A connection as it is now, and how its rooms differ from those that are stored."""

    connection: StoredConnection
    before: int | None  # the answer that is stored; None: nothing is known of what is
    changed: Sequence[StoredRoom]  # all of them, if nothing is known
    gone: Sequence[int]
    is_kept: bool  # False: it grew beyond bounds, and is dropped


_DEVICE_EXISTS: Final = "SELECT 1 FROM devices WHERE device_nid = :device_nid"
_DROP_EARLIER: Final = """
    DELETE FROM sliding_connections
    WHERE device_nid = :device_nid AND conn_id = :conn_id AND life <= :life
"""
_INSERT: Final = """
    INSERT INTO sliding_connections (life, device_nid, conn_id, answer, position, account_data_upto,
        device_lists_upto, subscriptions_upto, required_states, used_ms)
    VALUES (:life, :device_nid, :conn_id, :answer, :position, :account_data_upto,
        :device_lists_upto, :subscriptions_upto, :required_states, :used_ms)
    ON CONFLICT (device_nid, conn_id) DO NOTHING
"""
_UPDATE: Final = """
    UPDATE sliding_connections SET answer = :answer, position = :position,
        account_data_upto = :account_data_upto, device_lists_upto = :device_lists_upto,
        subscriptions_upto = :subscriptions_upto, required_states = :required_states, used_ms = :used_ms
    WHERE life = :life AND answer = :before
"""
_DROP_OLDEST: Final = """
    DELETE FROM sliding_connections WHERE device_nid = :device_nid AND life IN (
        SELECT life FROM sliding_connections WHERE device_nid = :device_nid
        ORDER BY used_ms DESC, life DESC LIMIT 1000 OFFSET :keep
    )
"""
_UPSERT_ROOM: Final = """
    INSERT INTO sliding_rooms (life, room_nid, upto, depth, required_state, extensions, membership, is_direct,
        notifications, highlights)
    VALUES (:life, :room_nid, :upto, :depth, :required_state, :extensions, :membership, :is_direct,
        :notifications, :highlights)
    ON CONFLICT (life, room_nid) DO UPDATE SET upto = excluded.upto, depth = excluded.depth,
        required_state = excluded.required_state, extensions = excluded.extensions,
        membership = excluded.membership, is_direct = excluded.is_direct,
        notifications = excluded.notifications, highlights = excluded.highlights
"""
_DELETE_ROOMS: Final = "DELETE FROM sliding_rooms WHERE life = :life AND room_nid IN (:nids[])"
_DELETE: Final = "DELETE FROM sliding_connections WHERE life = :life"
_FIND: Final = """
    SELECT life, device_nid, conn_id, answer, position, account_data_upto, device_lists_upto,
        subscriptions_upto, required_states, used_ms
    FROM sliding_connections WHERE device_nid = :device_nid AND conn_id = :conn_id AND life = :life
"""
_FIND_SHOWN: Final = """
    SELECT answer FROM sliding_connections
    WHERE device_nid = :device_nid AND conn_id = :conn_id AND life = :life
"""
_ROOMS: Final = """
    SELECT room_nid, upto, depth, required_state, extensions, membership, is_direct, notifications, highlights
    FROM sliding_rooms WHERE life = :life
"""
_DELETE_UNUSED: Final = "DELETE FROM sliding_connections WHERE used_ms < :before_ms"


def find_shown(txn: ReadTxn, device_nid: int, conn_id: str, life: int) -> int | None:
    """The answer that the client showed last."""
    value: int | None = txn.value(_FIND_SHOWN, device_nid=device_nid, conn_id=conn_id, life=life)
    return value


def find_connection(
    txn: ReadTxn, device_nid: int, conn_id: str, life: int
) -> tuple[StoredConnection, list[StoredRoom]] | None:
    """A connection with its rooms."""
    row = txn.first(_FIND, device_nid=device_nid, conn_id=conn_id, life=life)
    if row is None:
        return None
    connection = StoredConnection(*row)
    rooms = [
        StoredRoom(nid, upto, depth, state, extensions, membership, is_direct == 1, notifications, highlights)
        for nid, upto, depth, state, extensions, membership, is_direct, notifications, highlights in txn.all(
            _ROOMS, life=life
        )
    ]
    return connection, rooms


def store_connection(txn: WriteTxn, change: ConnectionChange) -> bool:
    """Store a connection; an earlier life of it goes. False: what is stored is not what was believed, or the device
    is gone, or the connection has begun anew since.

    Cost: 1 statement, and 1 for rooms that changed; 4 more for a new one.
    """
    connection = change.connection
    if not change.is_kept:
        txn.execute(_DELETE, life=connection.life)
        return True
    fields = msgspec.structs.asdict(connection)
    if change.before is None:
        if txn.value(_DEVICE_EXISTS, device_nid=connection.device_nid) is None:
            return False
        names = {"device_nid": connection.device_nid, "conn_id": connection.conn_id}
        txn.execute(_DROP_EARLIER, life=connection.life, **names)
        if not txn.execute(_INSERT, **fields):
            return False
        txn.execute(_DROP_OLDEST, device_nid=connection.device_nid, keep=MAX_OF_DEVICE)
    else:
        kept = {key: fields[key] for key in fields if key not in ("device_nid", "conn_id")}
        if not txn.execute(_UPDATE, **kept, before=change.before):
            return False
    if change.changed:
        rows = [
            {**msgspec.structs.asdict(room), "life": connection.life, "is_direct": int(room.is_direct)}
            for room in change.changed
        ]
        txn.execute_many(_UPSERT_ROOM, rows)
    for batch in in_batches(list(change.gone)):
        txn.execute(_DELETE_ROOMS, life=connection.life, nids=batch)
    return True


def delete_unused(txn: WriteTxn, before_ms: int) -> int:
    """Drop the connections that were not used since; how many."""
    return txn.execute(_DELETE_UNUSED, before_ms=before_ms)
