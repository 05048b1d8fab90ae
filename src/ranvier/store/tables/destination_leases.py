"""Which process sends to which other server, where several share the database.

Table: destination_leases. Owner: services.federation. Growth: one row a server that anything was sent to, on
PostgreSQL.
Index -> query: primary key -> who sends to a server; owner -> what a process that ends gives back.

Whoever holds the lease of a server has one transaction under way to it, and nobody else has any. When a process
dies, its leases end and others take them.
"""

from typing import Final

import msgspec

from ranvier.store.database import ReadTxn, WriteTxn


class Lease(msgspec.Struct, frozen=True):
    """What became of asking for one."""

    is_own: bool
    is_new: bool  # another process held it before, or nobody did
    until_ms: int


_FIND: Final = "SELECT owner, until_ms FROM destination_leases WHERE server_nid = :server_nid"
_TAKE: Final = """
    INSERT INTO destination_leases (server_nid, owner, until_ms) VALUES (:server_nid, :owner, :until_ms)
    ON CONFLICT (server_nid) DO UPDATE SET owner = excluded.owner, until_ms = excluded.until_ms
"""
_RELEASE: Final = "UPDATE destination_leases SET until_ms = 0, owner = '' WHERE owner = :owner"
_HELD: Final = """
    SELECT server_nid FROM destination_leases
    WHERE until_ms > :now_ms AND until_ms <= :latest_ms AND owner <> :owner
"""

MAX_AHEAD_MS: Final = 15 * 60_000
"""A lease that lasts longer is from before the clock was set back, and holds nobody up. Well more than any is taken
for: the clocks of several machines differ."""


def take_lease(txn: WriteTxn, server_nid: int, owner: str, now_ms: int, until_ms: int) -> Lease:
    """Take the lease of a server, or go on having it, unless another process has it now."""
    row = txn.first(_FIND, server_nid=server_nid)
    if row is not None and row[0] != owner and now_ms < row[1] <= now_ms + MAX_AHEAD_MS:
        return Lease(is_own=False, is_new=False, until_ms=row[1])
    txn.execute(_TAKE, server_nid=server_nid, owner=owner, until_ms=until_ms)
    return Lease(is_own=True, is_new=row is None or row[0] != owner, until_ms=until_ms)


def release_leases(txn: WriteTxn, owner: str) -> None:
    """The process ends: others need not wait until its leases do."""
    txn.execute(_RELEASE, owner=owner)


def list_leased(txn: ReadTxn, owner: str, now_ms: int) -> set[int]:
    """The servers to which other processes send."""
    return {row[0] for row in txn.all(_HELD, owner=owner, now_ms=now_ms, latest_ms=now_ms + MAX_AHEAD_MS)}
