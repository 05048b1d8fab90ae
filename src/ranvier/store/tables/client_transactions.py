"""Which event a client's request made, so that the same request again makes no second one.

Table: client_transactions. Owner: services.rooms. Growth: one row a sent event, for as long as it is kept.
Index -> query: primary key -> find; event_nid -> the transaction id that a device sees with its own events,
and expiry.
"""

from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from ranvier.store.database import ReadTxn, WriteTxn
from ranvier.store.tables.batches import in_batches


class ClientTransaction(msgspec.Struct, frozen=True):
    """The scope of a transaction id: the device and the path of the request.

    Spec: client-server API, "Transaction identifiers".
    """

    user_nid: int
    device_id: str  # "" if the token belongs to no device
    room_nid: int
    request: str  # what of the path stands between room and transaction id, e.g. "send/m.room.message"
    txn_id: str


_INSERT: Final = """
    INSERT INTO client_transactions (user_nid, device_id, room_nid, request, txn_id, event_nid, created_ms)
    VALUES (:user_nid, :device_id, :room_nid, :request, :txn_id, :event_nid, :created_ms)
"""
_FIND: Final = """
    SELECT event_nid FROM client_transactions
    WHERE user_nid = :user_nid AND device_id = :device_id AND room_nid = :room_nid AND request = :request
        AND txn_id = :txn_id
"""
_LIST: Final = """
    SELECT event_nid, txn_id FROM client_transactions
    WHERE event_nid IN (:nids[]) AND user_nid = :user_nid AND device_id = :device_id
"""
_LIST_ALL: Final = """
    SELECT event_nid, user_nid, device_id, txn_id FROM client_transactions WHERE event_nid IN (:nids[])
"""
_OLDEST: Final = """
    SELECT event_nid, created_ms FROM client_transactions ORDER BY event_nid LIMIT :limit
"""
_DELETE: Final = "DELETE FROM client_transactions WHERE event_nid <= :upto AND created_ms < :before_ms"


def insert_transactions(
    txn: WriteTxn, made: Sequence[tuple[ClientTransaction, int]], created_ms: int
) -> None:
    """Note which requests made which events (event_nid). Called by `append` alone, in the events' own transaction."""
    txn.execute_many(
        _INSERT,
        [
            {
                "user_nid": transaction.user_nid,
                "device_id": transaction.device_id,
                "room_nid": transaction.room_nid,
                "request": transaction.request,
                "txn_id": transaction.txn_id,
                "event_nid": event_nid,
                "created_ms": created_ms,
            }
            for transaction, event_nid in made
        ],
    )


def find_transaction(txn: ReadTxn, transaction: ClientTransaction) -> int | None:
    """The event_nid that this very request made before, or None."""
    value: int | None = txn.value(
        _FIND,
        user_nid=transaction.user_nid,
        device_id=transaction.device_id,
        room_nid=transaction.room_nid,
        request=transaction.request,
        txn_id=transaction.txn_id,
    )
    return value


def list_txn_ids(txn: ReadTxn, user_nid: int, device_id: str, event_nids: Collection[int]) -> dict[int, str]:
    """Of these events, those that the device itself sent: their transaction ids, for `unsigned`."""
    nids = list(event_nids)
    return {
        nid: txn_id
        for batch in in_batches(nids)
        for nid, txn_id in txn.all(_LIST, nids=batch, user_nid=user_nid, device_id=device_id)
    }


def list_transactions(txn: ReadTxn, event_nids: Collection[int]) -> dict[int, tuple[int, str, str]]:
    """event_nid -> (user_nid, device_id, transaction id), of those events that a client sent with one."""
    nids = list(event_nids)
    return {
        nid: (user_nid, device_id, txn_id)
        for batch in in_batches(nids)
        for nid, user_nid, device_id, txn_id in txn.all(_LIST_ALL, nids=batch)
    }


def delete_expired(txn: WriteTxn, before_ms: int, limit: int = 1000) -> int:
    """Forget the oldest transactions that were made before a time, at most `limit`; how many they were."""
    expired = [nid for nid, created_ms in txn.all(_OLDEST, limit=limit) if created_ms < before_ms]
    return txn.execute(_DELETE, upto=expired[-1], before_ms=before_ms) if expired else 0
