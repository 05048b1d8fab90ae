"""EDUs that have to reach other servers even if it takes days: to-device messages, device list updates.

Tables: outbox_edus, outbox. Owner: services.federation. Growth: the content once, a row for each server that
it has not reached yet.
Index -> query: (server, position) -> what to send next; position -> whether a content is still needed;
(server, coalesce_key) -> what a later EDU replaces.
"""

from collections.abc import Collection
from typing import Final

import msgspec

from ranvier.store.database import Kind, ReadTxn, WriteTxn
from ranvier.store.tables.batches import in_batches


class QueuedEdu(msgspec.Struct, frozen=True):
    position: int
    edu_type: str
    content: bytes  # JSON


_INSERT_EDU: Final = """
    INSERT INTO outbox_edus (position, edu_type, content) VALUES (:position, :edu_type, :content)
"""
_REPLACED: Final = """
    SELECT server_nid, position FROM outbox
    WHERE server_nid IN (:server_nids[]) AND coalesce_key = :coalesce_key
"""
_DROP: Final = "DELETE FROM outbox WHERE server_nid = :server_nid AND position = :position"
_INSERT: Final = """
    INSERT INTO outbox (server_nid, position, coalesce_key) VALUES (:server_nid, :position, :coalesce_key)
"""
_NEXT: Final = """
    SELECT o.position, e.edu_type, e.content FROM outbox o JOIN outbox_edus e ON e.position = o.position
    WHERE o.server_nid = :server_nid ORDER BY o.position LIMIT :limit
"""
_DONE: Final = """
    DELETE FROM outbox WHERE server_nid = :server_nid AND position <= :upto RETURNING position
"""
_DROP_CONTENT: Final = """
    DELETE FROM outbox_edus WHERE position IN (:positions[])
        AND NOT EXISTS (SELECT 1 FROM outbox o WHERE o.position = outbox_edus.position)
"""
_WAITING: Final = "SELECT DISTINCT server_nid FROM outbox"


def queue_edu(
    txn: WriteTxn,
    server_nids: Collection[int],
    edu_type: str,
    content: bytes,
    coalesce_key: str | None = None,
) -> int:
    """Queue an EDU for servers, in place of one with the same key that still waits. Returns its position.

    Effects: a SERVER hint for each.
    """
    position = txn.next_position()
    nids = sorted(set(server_nids))
    if not nids:
        return position
    if coalesce_key is not None:
        _drop_replaced(txn, nids, coalesce_key)
    txn.execute(_INSERT_EDU, position=position, edu_type=edu_type, content=content)
    txn.execute_many(
        _INSERT,
        [{"server_nid": nid, "position": position, "coalesce_key": coalesce_key} for nid in nids],
    )
    for nid in nids:
        txn.hint(Kind.SERVER, nid)
    return position


def list_queued(txn: ReadTxn, server_nid: int, limit: int) -> list[QueuedEdu]:
    """What waits for a server, the oldest first."""
    return [QueuedEdu(*row) for row in txn.all(_NEXT, server_nid=server_nid, limit=limit)]


def delete_sent(txn: WriteTxn, server_nid: int, upto: int) -> None:
    """The server has all EDUs up to a position (or will never get them). Contents that nobody waits for
    go."""
    _drop_contents(txn, [row[0] for row in txn.all(_DONE, server_nid=server_nid, upto=upto)])


def list_waiting_servers(txn: ReadTxn) -> list[int]:
    """The servers for whom anything waits: read once, at start."""
    return [row[0] for row in txn.all(_WAITING)]


def _drop_replaced(txn: WriteTxn, server_nids: list[int], coalesce_key: str) -> None:
    replaced = [
        {"server_nid": nid, "position": position}
        for batch in in_batches(server_nids)
        for nid, position in txn.all(_REPLACED, server_nids=batch, coalesce_key=coalesce_key)
    ]
    if replaced:
        txn.execute_many(_DROP, replaced)
        _drop_contents(txn, sorted({row["position"] for row in replaced}))


def _drop_contents(txn: WriteTxn, positions: list[int]) -> None:
    for batch in in_batches(positions):
        txn.execute(_DROP_CONTENT, positions=batch)
