"""Other servers as recipients: how far each one got, and when to try again.

Table: destinations. Owner: services.federation. Growth: one row a server that anything was ever sent to.
Index -> query: primary key -> one destination; retry_at_ms -> which are due.
"""

from collections.abc import Collection
from typing import Final

import msgspec

from ranvier.store.database import ReadTxn, WriteTxn
from ranvier.store.tables.batches import in_batches


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
_DUE: Final = f"""
    SELECT {_COLUMNS} FROM destinations
    WHERE failing_since_ms IS NOT NULL AND retry_at_ms <= :now_ms ORDER BY retry_at_ms LIMIT :limit
"""  # noqa: S608
_ENSURE: Final = """
    INSERT INTO destinations (server_nid, sent_position) VALUES (:server_nid, :position)
    ON CONFLICT (server_nid) DO NOTHING
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
    INSERT INTO destinations (server_nid, failing_since_ms, retry_at_ms, retry_interval_ms)
    VALUES (:server_nid, :now_ms, :retry_at_ms, :retry_interval_ms)
    ON CONFLICT (server_nid) DO UPDATE SET
        failing_since_ms = COALESCE(destinations.failing_since_ms, excluded.failing_since_ms),
        retry_at_ms = excluded.retry_at_ms, retry_interval_ms = excluded.retry_interval_ms
"""
_RETRY_NOW: Final = "UPDATE destinations SET retry_at_ms = 0 WHERE server_nid = :server_nid"


def list_destinations(txn: ReadTxn, server_nids: Collection[int]) -> dict[int, Destination]:
    """By server_nid; a server to which nothing was sent yet is left out."""
    return {
        row[0]: Destination(*row)
        for batch in in_batches(list(server_nids))
        for row in txn.all(_LIST, nids=batch)
    }


def list_due(txn: ReadTxn, now_ms: int, limit: int) -> list[Destination]:
    """The failing destinations whose next try is due, the longest due first."""
    return [Destination(*row) for row in txn.all(_DUE, now_ms=now_ms, limit=limit)]


def insert_destinations(txn: WriteTxn, server_nids: Collection[int], position: int) -> None:
    """Note servers from whom on `position` events are to be sent, so that those missed while they cannot be
    reached are caught up with. A known one stays where it is."""
    if server_nids:
        txn.execute_many(_ENSURE, [{"server_nid": nid, "position": position} for nid in sorted(server_nids)])


def note_success(txn: WriteTxn, server_nid: int, position: int, now_ms: int) -> None:
    """The server took all events up to a position; it is in order again."""
    txn.execute(_SENT, server_nid=server_nid, position=position, now_ms=now_ms)


def note_failure(txn: WriteTxn, server_nid: int, now_ms: int, retry_interval_ms: int) -> None:
    """The server failed us; no further request for `retry_interval_ms`."""
    txn.execute(
        _FAILED,
        server_nid=server_nid,
        now_ms=now_ms,
        retry_at_ms=now_ms + retry_interval_ms,
        retry_interval_ms=retry_interval_ms,
    )


def retry_now(txn: WriteTxn, server_nid: int) -> None:
    """The server was heard of: the next request need not wait."""
    txn.execute(_RETRY_NOW, server_nid=server_nid)
