"""Signing keys of other servers, and the documents in which they were published.

Tables: server_keys, server_key_documents. Owner: services.remote. Growth: a row a key, a row a server.
Index -> query: primary keys.
"""

from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from ranvier.store.database import ReadTxn, WriteTxn
from ranvier.store.tables.batches import in_batches


class ServerKey(msgspec.Struct, frozen=True):
    """Spec: server-server API, "Retrieving server keys"."""

    server_nid: int
    key_id: str
    verify_key: bytes
    valid_until_ms: int  # of an old key: when it expired
    is_old: bool  # from old_verify_keys


class KeyDocument(msgspec.Struct, frozen=True):
    server_nid: int
    valid_until_ms: int
    received_ms: int
    json: bytes  # as the server signed it


_COLUMNS: Final = "server_nid, key_id, verify_key, valid_until_ms, is_old"
# A key that was revoked never becomes current again by an older document; otherwise the longer validity
# counts.
_UPSERT: Final = """
    INSERT INTO server_keys (server_nid, key_id, verify_key, valid_until_ms, is_old)
    VALUES (:server_nid, :key_id, :verify_key, :valid_until_ms, :is_old)
    ON CONFLICT (server_nid, key_id) DO UPDATE SET verify_key = excluded.verify_key,
        valid_until_ms = excluded.valid_until_ms, is_old = excluded.is_old
    WHERE excluded.is_old > server_keys.is_old OR (excluded.is_old = server_keys.is_old
        AND excluded.valid_until_ms >= server_keys.valid_until_ms)
"""
_LIST: Final = f"SELECT {_COLUMNS} FROM server_keys WHERE server_nid IN (:nids[])"  # noqa: S608
_UPSERT_DOCUMENT: Final = """
    INSERT INTO server_key_documents (server_nid, valid_until_ms, received_ms, json)
    VALUES (:server_nid, :valid_until_ms, :received_ms, :json)
    ON CONFLICT (server_nid) DO UPDATE SET valid_until_ms = excluded.valid_until_ms,
        received_ms = excluded.received_ms, json = excluded.json
    WHERE excluded.valid_until_ms >= server_key_documents.valid_until_ms
"""
_LIST_DOCUMENTS: Final = """
    SELECT server_nid, valid_until_ms, received_ms, json FROM server_key_documents WHERE server_nid IN
    (:nids[])
"""


def upsert_keys(txn: WriteTxn, keys: Sequence[ServerKey], document: KeyDocument | None) -> None:
    """Keep the keys of a document that was checked, and the document itself if it came from its own
    server."""
    if keys:
        txn.execute_many(
            _UPSERT, [{**msgspec.structs.asdict(key), "is_old": int(key.is_old)} for key in keys]
        )
    if document is not None:
        txn.execute(_UPSERT_DOCUMENT, **msgspec.structs.asdict(document))


def list_keys(txn: ReadTxn, server_nids: Collection[int]) -> list[ServerKey]:
    """Every key of these servers, valid or not."""
    return [
        ServerKey(nid, key_id, verify_key, valid_until_ms, is_old == 1)
        for batch in in_batches(list(server_nids))
        for nid, key_id, verify_key, valid_until_ms, is_old in txn.all(_LIST, nids=batch)
    ]


def list_key_documents(txn: ReadTxn, server_nids: Collection[int]) -> dict[int, KeyDocument]:
    """The newest documents of these servers, to pass on as a notary."""
    return {
        row[0]: KeyDocument(*row)
        for batch in in_batches(list(server_nids))
        for row in txn.all(_LIST_DOCUMENTS, nids=batch)
    }
