"""Other servers as recipients: how far each one got, and when to try again.

Table: destinations. Owner: services.federation. Growth: one row a server that anything was ever sent to.
Index -> query: primary key -> one destination.
"""

from collections.abc import Collection
from typing import Final

import msgspec

from ranvier.core.identifiers import RoomID, ServerName
from ranvier.store.database import ReadTxn, WriteTxn
from ranvier.store.tables.batches import in_batches
from ranvier.store.tables.patterns import like


class Destination(msgspec.Struct, frozen=True):
    server_nid: int
    sent_position: int  # every event up to here that concerns the server was delivered
    failing_since_ms: int | None  # None: the last request succeeded
    retry_at_ms: int
    retry_interval_ms: int
    last_success_ms: int | None


_COLUMNS: Final = (
    "server_nid, sent_position, failing_since_ms, retry_at_ms, retry_interval_ms, last_success_ms"
)
_LIST: Final = f"SELECT {_COLUMNS} FROM destinations WHERE server_nid IN (:nids[])"  # noqa: S608
_KNOWN: Final = """
    SELECT s.server_name, d.server_nid, d.sent_position, d.failing_since_ms, d.retry_at_ms, d.retry_interval_ms,
        d.last_success_ms
    FROM destinations d JOIN servers s ON s.server_nid = d.server_nid
    WHERE CAST(:pattern AS TEXT) IS NULL OR s.server_name LIKE :pattern ESCAPE '!' ORDER BY s.server_name
"""
_SHARED: Final = """
    SELECT r.room_id, r.newest_local_position FROM room_servers rs JOIN rooms r ON r.room_nid = rs.room_nid
    WHERE rs.server_nid = :server_nid
"""
_COUNT_SHARED: Final = "SELECT COUNT(*) FROM room_servers WHERE server_nid = :server_nid"
_FAILING: Final = """
    SELECT server_nid FROM destinations WHERE server_nid IN (:nids[]) AND failing_since_ms IS NOT NULL
"""
_BEHIND: Final = """
    SELECT DISTINCT rs.server_nid FROM room_servers rs JOIN rooms r ON r.room_nid = rs.room_nid
    LEFT JOIN destinations d ON d.server_nid = rs.server_nid
    WHERE r.newest_local_position > COALESCE(d.sent_position, 0)
"""
_MISSED: Final = """
    SELECT r.room_nid, r.newest_local_position FROM room_servers rs JOIN rooms r ON r.room_nid = rs.room_nid
    WHERE rs.server_nid = :server_nid AND r.newest_local_position > :after
    ORDER BY r.newest_local_position LIMIT :limit
"""
_SENT: Final = """
    INSERT INTO destinations (server_nid, sent_position, last_success_ms)
    VALUES (:server_nid, :position, :now_ms)
    ON CONFLICT (server_nid) DO UPDATE SET
        sent_position = {greatest}(destinations.sent_position, excluded.sent_position),
        failing_since_ms = NULL, retry_at_ms = 0, retry_interval_ms = 0,
        last_success_ms = excluded.last_success_ms
"""
_FAILED: Final = """
    INSERT INTO destinations (server_nid, sent_position, failing_since_ms, retry_at_ms, retry_interval_ms)
    VALUES (:server_nid, 0, :now_ms, :retry_at_ms, :retry_interval_ms)
    ON CONFLICT (server_nid) DO UPDATE SET
        failing_since_ms = COALESCE(destinations.failing_since_ms, excluded.failing_since_ms),
        retry_at_ms = excluded.retry_at_ms, retry_interval_ms = excluded.retry_interval_ms
"""
_RECOVERED: Final = """
    UPDATE destinations SET failing_since_ms = NULL, retry_at_ms = 0, retry_interval_ms = 0,
        last_success_ms = :now_ms
    WHERE server_nid = :server_nid
"""
_RETRY_NOW: Final = "UPDATE destinations SET retry_at_ms = 0 WHERE server_nid = :server_nid"


def list_destinations(txn: ReadTxn, server_nids: Collection[int]) -> dict[int, Destination]:
    """By server_nid; a server to which nothing was sent yet is left out."""
    return {
        row[0]: Destination(*row)
        for batch in in_batches(list(server_nids))
        for row in txn.all(_LIST, nids=batch)
    }


def list_known_destinations(txn: ReadTxn, search_term: str | None) -> list[tuple[ServerName, Destination]]:
    """Every server that anything was ever sent to, by name; only those with a term in it. Cost: reads the table."""
    pattern = None if search_term is None else f"%{like(search_term.lower())}%"
    return [(row[0], Destination(*row[1:])) for row in txn.all(_KNOWN, pattern=pattern)]


def list_rooms_with(
    txn: ReadTxn, server_nid: int, *, backwards: bool, limit: int, offset: int
) -> list[tuple[RoomID, int]]:
    """(room_id, position of our newest event there) of the rooms that a server is in, by room id."""
    direction = "DESC" if backwards else "ASC"
    sql = f"{_SHARED} ORDER BY r.room_id {direction} LIMIT :limit OFFSET :offset"
    return [tuple(row) for row in txn.all(sql, server_nid=server_nid, limit=limit, offset=offset)]


def count_rooms_with(txn: ReadTxn, server_nid: int) -> int:
    return int(txn.value(_COUNT_SHARED, server_nid=server_nid))


def list_failing(txn: ReadTxn, server_nids: Collection[int]) -> set[int]:
    """Those of the servers that did not answer when they were last asked."""
    return {nid for batch in in_batches(list(server_nids)) for (nid,) in txn.all(_FAILING, nids=batch)}


def list_behind(txn: ReadTxn) -> list[int]:
    """The servers that share a room with newer events of ours than they got, this one perhaps among them: read
    once, at start. Cost: walks the servers of all rooms."""
    return [row[0] for row in txn.all(_BEHIND)]


def list_missed(txn: ReadTxn, server_nid: int, after: int, limit: int) -> list[tuple[int, int]]:
    """(room_nid, position of its newest event of ours) of the rooms with a server that got such events after a
    position, the oldest first."""
    return [
        (room_nid, position)
        for room_nid, position in txn.all(_MISSED, server_nid=server_nid, after=after, limit=limit)
    ]


def note_success(txn: WriteTxn, server_nid: int, position: int, now_ms: int) -> None:
    """The server took all events up to a position; it is in order again."""
    txn.execute(_SENT, server_nid=server_nid, position=position, now_ms=now_ms)


def note_failure(txn: WriteTxn, server_nid: int, now_ms: int, retry_interval_ms: int) -> None:
    """The server failed us; no further request for `retry_interval_ms`. One that has taken nothing so far may lack
    all that concerns it."""
    txn.execute(
        _FAILED,
        server_nid=server_nid,
        now_ms=now_ms,
        retry_at_ms=now_ms + retry_interval_ms,
        retry_interval_ms=retry_interval_ms,
    )


def note_recovery(txn: WriteTxn, server_nid: int, now_ms: int) -> None:
    """A request to the server succeeded, whatever is still to be sent to it."""
    txn.execute(_RECOVERED, server_nid=server_nid, now_ms=now_ms)


def retry_now(txn: WriteTxn, server_nid: int) -> None:
    """The server was heard of: the next request need not wait."""
    txn.execute(_RETRY_NOW, server_nid=server_nid)
