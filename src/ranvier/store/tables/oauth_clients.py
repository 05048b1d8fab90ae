"""Clients that registered themselves.

Table: oauth_clients. Owner: services.oauth. Growth: one row for each different client; `evict_oauth_client` bounds it.
Index -> query: primary key -> find; by_use -> what goes first.

Spec: client-server API, "Client registration".
"""

from typing import Final

from ranvier.store.database import ReadTxn, WriteTxn

_FIND: Final = "SELECT metadata FROM oauth_clients WHERE client_id = :client_id"
_INSERT: Final = """
    INSERT INTO oauth_clients (client_id, metadata, created_ms, used_ms)
    VALUES (:client_id, :metadata, :now_ms, :now_ms)
    ON CONFLICT (client_id) DO UPDATE SET used_ms = excluded.used_ms
"""
_TOUCH: Final = "UPDATE oauth_clients SET used_ms = :now_ms WHERE client_id = :client_id"
_COUNT: Final = "SELECT COUNT(*) FROM oauth_clients"
_UNUSED: Final = "NOT EXISTS (SELECT 1 FROM oauth_grants g WHERE g.client_id = oauth_clients.client_id)"
_EVICT: Final = f"""
    DELETE FROM oauth_clients WHERE client_id IN
        (SELECT client_id FROM oauth_clients WHERE {_UNUSED} ORDER BY used_ms LIMIT 1)
"""  # noqa: S608
_DELETE_UNUSED: Final = f"DELETE FROM oauth_clients WHERE used_ms < :before_ms AND {_UNUSED}"  # noqa: S608


def insert_oauth_client(txn: WriteTxn, client_id: str, metadata: bytes, now_ms: int) -> None:
    """Register a client, or note that it registered again."""
    txn.execute(_INSERT, client_id=client_id, metadata=metadata, now_ms=now_ms)


def find_oauth_client(txn: ReadTxn, client_id: str) -> bytes | None:
    """Its metadata, JSON."""
    value: bytes | None = txn.value(_FIND, client_id=client_id)
    return value


def touch_oauth_client(txn: WriteTxn, client_id: str, now_ms: int) -> bool:
    """Note that it is in use; False if it is gone."""
    return txn.execute(_TOUCH, client_id=client_id, now_ms=now_ms) == 1


def count_oauth_clients(txn: ReadTxn) -> int:
    return int(txn.value(_COUNT))


def evict_oauth_client(txn: WriteTxn) -> bool:
    """Delete the client without a session that was unused for longest; False if there is none."""
    return txn.execute(_EVICT) == 1


def delete_unused_oauth_clients(txn: WriteTxn, before_ms: int) -> int:
    """Delete those without a session that were last used before a time."""
    return txn.execute(_DELETE_UNUSED, before_ms=before_ms)
