"""Filters that clients uploaded.

Table: filters. Owner: services.accounts. Growth: one row a distinct filter of a user.
Index -> query: primary key -> find; UNIQUE (user, hash) -> the same filter again gets the same id.

Spec: client-server API, "Filtering".
"""

import hashlib
from typing import Final

from ranvier.store.database import ReadTxn, WriteTxn

_SAME: Final = "SELECT filter_id FROM filters WHERE user_nid = :user_nid AND content_hash = :content_hash"
_NEXT: Final = "SELECT COALESCE(MAX(filter_id), 0) + 1 FROM filters WHERE user_nid = :user_nid"
_INSERT: Final = """
    INSERT INTO filters (user_nid, filter_id, content_hash, content)
    VALUES (:user_nid, :filter_id, :content_hash, :content)
"""
_FIND: Final = "SELECT content FROM filters WHERE user_nid = :user_nid AND filter_id = :filter_id"

_MAX_FILTER_ID: Final = 2**63 - 1


def upsert_filter(txn: WriteTxn, user_nid: int, content: bytes) -> int:
    """Store a filter in canonical JSON; its id, which is that of the same content stored before."""
    content_hash = hashlib.sha256(content).digest()
    filter_id: int | None = txn.value(_SAME, user_nid=user_nid, content_hash=content_hash)
    if filter_id is None:
        filter_id = int(txn.value(_NEXT, user_nid=user_nid))
        txn.execute(
            _INSERT, user_nid=user_nid, filter_id=filter_id, content_hash=content_hash, content=content
        )
    return filter_id


def find_filter(txn: ReadTxn, user_nid: int, filter_id: int) -> bytes | None:
    """The filter (JSON), or None. Filters never change: cache them. Total: any int may be asked for."""
    if not 0 < filter_id <= _MAX_FILTER_ID:
        return None
    value: bytes | None = txn.value(_FIND, user_nid=user_nid, filter_id=filter_id)
    return value
