"""Which contents are kept as files, and how many rows want each.

Table: blobs. Owner: services.media.storing; services.media.sweeping deletes. Growth: one row a distinct content.
Index -> query: primary key -> hold, retain, release; blobs_unreferenced -> doom, claim.

A blob's file is deleted in three steps: doom (no row wants it, so from here on none can), delete the file, delete
the row. Who brings a doomed content waits until its row is gone.
"""

from collections.abc import Collection, Sequence
from typing import Final

from ranvier.store.database import Conflict, WriteTxn
from ranvier.store.tables.batches import in_batches

_HOLD: Final = """
    INSERT INTO blobs (blob_hash, size_bytes, reference_count, touched_ms)
    VALUES (:blob_hash, :size_bytes, 0, :now_ms)
    ON CONFLICT (blob_hash) DO UPDATE SET touched_ms = excluded.touched_ms WHERE blobs.reference_count >= 0
"""
_RETAIN: Final = """
    UPDATE blobs SET reference_count = reference_count + 1 WHERE blob_hash = :blob_hash AND reference_count >= 0
"""
_RELEASE: Final = """
    UPDATE blobs SET reference_count = reference_count - 1, touched_ms = :now_ms WHERE blob_hash = :blob_hash
"""
_FIND: Final = "SELECT reference_count, is_quarantined FROM blobs WHERE blob_hash = :blob_hash"
_LIST_UNREFERENCED: Final = """
    SELECT blob_hash FROM blobs
    WHERE reference_count = 0 AND touched_ms < :before_ms AND is_quarantined = 0
    ORDER BY touched_ms LIMIT :limit {skip_locked}
"""
_LIST_ABANDONED: Final = """
    SELECT blob_hash FROM blobs WHERE reference_count = -1 AND touched_ms < :before_ms
    ORDER BY touched_ms LIMIT :limit {skip_locked}
"""
_DOOM: Final = "UPDATE blobs SET reference_count = -1, touched_ms = :now_ms WHERE blob_hash IN (:hashes[])"
_DELETE: Final = "DELETE FROM blobs WHERE reference_count = -1 AND blob_hash IN (:hashes[])"
_SET_QUARANTINE: Final = "UPDATE blobs SET is_quarantined = :is_quarantined WHERE blob_hash IN (:hashes[])"


def hold_blob(txn: WriteTxn, blob_hash: bytes, size_bytes: int, now_ms: int) -> bool:
    """Keep a content from being doomed for a while; False when it is doomed already."""
    return txn.execute(_HOLD, blob_hash=blob_hash, size_bytes=size_bytes, now_ms=now_ms) > 0


def retain_blob(txn: WriteTxn, blob_hash: bytes) -> bool:
    """One more row wants the content; whether the content is quarantined.

    Raises: Conflict when it was not held, or longer ago than anybody holds.
    """
    if not txn.execute(_RETAIN, blob_hash=blob_hash):
        raise Conflict("the content is not there any more")
    row = txn.first(_FIND, blob_hash=blob_hash)
    return row is not None and bool(row[1])


def release_blobs(txn: WriteTxn, hashes: Sequence[bytes], now_ms: int) -> None:
    """One row less for each of `hashes`, as often as it is named."""
    txn.execute_many(_RELEASE, [{"blob_hash": blob_hash, "now_ms": now_ms} for blob_hash in sorted(hashes)])


def doom_unreferenced(txn: WriteTxn, before_ms: int, now_ms: int, limit: int) -> list[bytes]:
    """Give up contents that no row wants and that were touched before `before_ms`. The caller alone may delete
    their files. Quarantined ones are kept: what comes again must be known again.
    """
    return _doom(txn, _LIST_UNREFERENCED, before_ms, now_ms, limit)


def claim_abandoned(txn: WriteTxn, before_ms: int, now_ms: int, limit: int) -> list[bytes]:
    """Take over contents that were doomed before `before_ms` by a process that died since."""
    return _doom(txn, _LIST_ABANDONED, before_ms, now_ms, limit)


def delete_doomed(txn: WriteTxn, hashes: Collection[bytes]) -> None:
    """The files are gone; forget the contents."""
    for batch in in_batches(sorted(hashes)):
        txn.execute(_DELETE, hashes=batch)


def set_blobs_quarantined(txn: WriteTxn, hashes: Collection[bytes], *, is_quarantined: bool) -> None:
    """Mark contents, so that media which come later with them are quarantined, too; or take the mark off."""
    for batch in in_batches(sorted(hashes)):
        txn.execute(_SET_QUARANTINE, hashes=batch, is_quarantined=is_quarantined)


def _doom(txn: WriteTxn, candidates: str, before_ms: int, now_ms: int, limit: int) -> list[bytes]:
    hashes = [bytes(row[0]) for row in txn.all(candidates, before_ms=before_ms, limit=limit)]
    if hashes:
        txn.execute(_DOOM, hashes=hashes, now_ms=now_ms)
    return hashes
