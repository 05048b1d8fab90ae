"""What was answered to transactions of other servers.

Table: received_transactions. Owner: services.federation. Growth: one row a transaction, for as long as it is
kept.
Index -> query: primary key -> a repeated one; received_ms -> expiry.
"""

from typing import Final

from ranvier.store.database import ReadTxn, WriteTxn

_INSERT: Final = """
    INSERT INTO received_transactions (server_nid, txn_id, response, received_ms)
    VALUES (:server_nid, :txn_id, :response, :now_ms)
    ON CONFLICT (server_nid, txn_id) DO NOTHING
"""
_FIND: Final = (
    "SELECT response FROM received_transactions WHERE server_nid = :server_nid AND txn_id = :txn_id"
)
_DELETE: Final = "DELETE FROM received_transactions WHERE received_ms < :before_ms"


def insert_received(txn: WriteTxn, server_nid: int, txn_id: str, response: bytes, now_ms: int) -> None:
    """Keep the answer to a transaction; the first one stays."""
    txn.execute(_INSERT, server_nid=server_nid, txn_id=txn_id, response=response, now_ms=now_ms)


def find_received(txn: ReadTxn, server_nid: int, txn_id: str) -> bytes | None:
    """The answer that the transaction got before. Spec: server-server API, "Transactions"."""
    value: bytes | None = txn.value(_FIND, server_nid=server_nid, txn_id=txn_id)
    return value


def delete_received(txn: WriteTxn, before_ms: int) -> int:
    """Forget answers given before a time; how many they were."""
    return txn.execute(_DELETE, before_ms=before_ms)
