"""Visits of browsers that are on their way through another identity provider.

Table: sso_visits. Owner: services.sso. Growth: one row a visit, until it ends or expires.
Index -> query: primary key -> find and take; by_expiry -> count and clean up.
"""

from typing import Final

from ranvier.store.database import ReadTxn, WriteTxn

_COUNT: Final = "SELECT COUNT(*) FROM sso_visits"
_INSERT: Final = """
    INSERT INTO sso_visits (ticket_hash, cookie_hash, content, expires_ms)
    VALUES (:ticket_hash, :cookie_hash, :content, :expires_ms)
"""
_FIND: Final = "SELECT cookie_hash, content, expires_ms FROM sso_visits WHERE ticket_hash = :ticket_hash"
_DELETE: Final = "DELETE FROM sso_visits WHERE ticket_hash = :ticket_hash"
_EXPIRE: Final = "DELETE FROM sso_visits WHERE expires_ms <= :now_ms"


def count_visits(txn: ReadTxn) -> int:
    return int(txn.value(_COUNT))


def insert_visit(
    txn: WriteTxn, ticket_hash: bytes, cookie_hash: bytes, content: bytes, expires_ms: int
) -> None:
    txn.execute(
        _INSERT, ticket_hash=ticket_hash, cookie_hash=cookie_hash, content=content, expires_ms=expires_ms
    )


def find_visit(txn: ReadTxn, ticket_hash: bytes, now_ms: int) -> tuple[bytes, bytes] | None:
    """(cookie_hash, content) of a visit that has not expired."""
    row = txn.first(_FIND, ticket_hash=ticket_hash)
    return (row[0], row[1]) if row is not None and row[2] > now_ms else None


def delete_visit(txn: WriteTxn, ticket_hash: bytes) -> bool:
    """False if it has ended meanwhile."""
    return txn.execute(_DELETE, ticket_hash=ticket_hash) == 1


def delete_expired_visits(txn: WriteTxn, now_ms: int) -> int:
    """How many those were."""
    return txn.execute(_EXPIRE, now_ms=now_ms)
