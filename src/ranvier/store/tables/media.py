"""Media: what an mxc:// URI stands for.

Tables: media, media_usage. Owners: services.media.{uploading,remote,url_previews} insert, sweeping and moderating
delete. Growth: one row an upload, a remote file that somebody looked at, or a picture of a preview.
Index -> query: primary key -> find; media_reserved -> expired reservations; media_cached -> what nobody looked at
for long; media_by_uploader -> pending reservations.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from ranvier.store.database import ReadTxn, Row, WriteTxn
from ranvier.store.tables.media_blobs import release_blobs, retain_blob

CONTENT_QUARANTINED: Final = "content"
"""Who quarantined what came in with a content that was quarantined before."""


class Medium(msgspec.Struct, frozen=True, kw_only=True):
    server_nid: int
    media_id: str
    blob_hash: bytes | None = None  # None: reserved
    size_bytes: int = 0
    content_type: str | None = None
    file_name: str | None = None
    uploader_nid: int | None = None  # None: a copy of what is elsewhere
    created_ms: int
    accessed_ms: int
    expires_ms: int | None = None
    quarantined_by: str | None = None
    is_protected: bool = False
    is_open: bool = False


class Usage(msgspec.Struct, frozen=True):
    media_count: int = 0
    size_bytes: int = 0


COLUMNS: Final = """server_nid, media_id, blob_hash, size_bytes, content_type, file_name, uploader_nid, created_ms,
    accessed_ms, expires_ms, quarantined_by, is_protected, is_open"""

_FIND: Final = f"""
    SELECT {COLUMNS} FROM media WHERE server_nid = :server_nid AND media_id = :media_id
"""  # noqa: S608
_INSERT: Final = f"""
    INSERT INTO media ({COLUMNS})
    VALUES (:server_nid, :media_id, :blob_hash, :size_bytes, :content_type, :file_name, :uploader_nid, :created_ms,
        :accessed_ms, :expires_ms, :quarantined_by, :is_protected, :is_open)
    ON CONFLICT (server_nid, media_id) DO NOTHING
"""  # noqa: S608
_COMPLETE: Final = """
    UPDATE media SET blob_hash = :blob_hash, size_bytes = :size_bytes, content_type = :content_type,
        file_name = :file_name, expires_ms = NULL, quarantined_by = :quarantined_by, is_open = :is_open
    WHERE server_nid = :server_nid AND media_id = :media_id AND blob_hash IS NULL
"""
_TOUCH: Final = """
    UPDATE media SET accessed_ms = :now_ms
    WHERE server_nid = :server_nid AND media_id = :media_id AND accessed_ms < :now_ms
"""
_COUNT_RESERVED: Final = """
    SELECT COUNT(*) FROM media WHERE uploader_nid = :user_nid AND expires_ms > :now_ms AND expires_ms IS NOT NULL
"""
_DELETE_EXPIRED: Final = "DELETE FROM media WHERE expires_ms <= :now_ms AND blob_hash IS NULL"
_DELETE: Final = "DELETE FROM media WHERE server_nid = :server_nid AND media_id = :media_id"
_THUMBNAIL_BLOBS: Final = """
    SELECT blob_hash FROM thumbnails WHERE server_nid = :server_nid AND media_id = :media_id
"""
_DELETE_THUMBNAILS: Final = "DELETE FROM thumbnails WHERE server_nid = :server_nid AND media_id = :media_id"
_ADD_USAGE: Final = """
    INSERT INTO media_usage (user_nid, media_count, size_bytes) VALUES (:user_nid, :count, :size_bytes)
    ON CONFLICT (user_nid) DO UPDATE SET media_count = media_usage.media_count + excluded.media_count,
        size_bytes = media_usage.size_bytes + excluded.size_bytes
"""
_FIND_USAGE: Final = "SELECT media_count, size_bytes FROM media_usage WHERE user_nid = :user_nid"
_LIST_UNUSED: Final = f"""
    SELECT {COLUMNS} FROM media WHERE uploader_nid IS NULL AND accessed_ms < :before_ms
    ORDER BY accessed_ms LIMIT :limit
"""  # noqa: S608
_CACHE_SIZE: Final = "SELECT COALESCE(SUM(size_bytes), 0) FROM media WHERE uploader_nid IS NULL"


def find_medium(txn: ReadTxn, server_nid: int, media_id: str) -> Medium | None:
    """One medium, reserved or complete."""
    row = txn.first(_FIND, server_nid=server_nid, media_id=media_id)
    return None if row is None else medium_of(row)


def insert_medium(txn: WriteTxn, medium: Medium) -> bool:
    """Add a medium whose content is held, or a reservation; False if there is one of this name.

    Raises: Conflict when the content is not held.
    """
    is_quarantined = medium.blob_hash is not None and retain_blob(txn, medium.blob_hash)
    if is_quarantined:
        medium = msgspec.structs.replace(medium, quarantined_by=CONTENT_QUARANTINED)
    if not txn.execute(_INSERT, **msgspec.structs.asdict(medium)):
        if medium.blob_hash is not None:
            release_blobs(txn, [medium.blob_hash], medium.created_ms)
        return False
    if medium.blob_hash is not None:
        _add_usage(txn, medium, 1)
    return True


def complete_medium(txn: WriteTxn, medium: Medium) -> bool:
    """Give a reservation the content of `medium`; False if it has one or is gone. Raises: Conflict."""
    if medium.blob_hash is None:
        raise ValueError("a reservation is completed with a content")
    is_quarantined = retain_blob(txn, medium.blob_hash)
    changed = txn.execute(
        _COMPLETE,
        server_nid=medium.server_nid,
        media_id=medium.media_id,
        blob_hash=medium.blob_hash,
        size_bytes=medium.size_bytes,
        content_type=medium.content_type,
        file_name=medium.file_name,
        quarantined_by=CONTENT_QUARANTINED if is_quarantined else None,
        is_open=medium.is_open,
    )
    if not changed:
        release_blobs(txn, [medium.blob_hash], medium.accessed_ms)
        return False
    _add_usage(txn, medium, 1)
    return True


def touch_medium(txn: WriteTxn, server_nid: int, media_id: str, now_ms: int) -> None:
    """Somebody looked at it."""
    txn.execute(_TOUCH, server_nid=server_nid, media_id=media_id, now_ms=now_ms)


def count_reservations(txn: ReadTxn, user_nid: int, now_ms: int) -> int:
    """A user's reservations that wait for their content."""
    count: int = txn.value(_COUNT_RESERVED, user_nid=user_nid, now_ms=now_ms)
    return count


def delete_expired_reservations(txn: WriteTxn, now_ms: int) -> int:
    """Delete reservations that nobody used in time; how many there were."""
    return txn.execute(_DELETE_EXPIRED, now_ms=now_ms)


def delete_media(txn: WriteTxn, media: Sequence[Medium], now_ms: int) -> None:
    """Delete media with their thumbnails. Their contents are let go.

    Cost: 4 statements a medium.
    """
    for medium in media:
        key = {"server_nid": medium.server_nid, "media_id": medium.media_id}
        hashes = [bytes(row[0]) for row in txn.all(_THUMBNAIL_BLOBS, **key)]
        txn.execute(_DELETE_THUMBNAILS, **key)
        if not txn.execute(_DELETE, **key):
            continue  # another process came first
        if medium.blob_hash is not None:
            hashes.append(medium.blob_hash)
            _add_usage(txn, medium, -1)
        release_blobs(txn, hashes, now_ms)


def find_usage(txn: ReadTxn, user_nid: int) -> Usage:
    """What a user's uploads come to."""
    row = txn.first(_FIND_USAGE, user_nid=user_nid)
    return Usage() if row is None else Usage(*row)


def list_unused_copies(txn: ReadTxn, before_ms: int, limit: int) -> list[Medium]:
    """Copies of what is elsewhere that nobody looked at since `before_ms`, the longest unused first."""
    return [medium_of(row) for row in txn.all(_LIST_UNUSED, before_ms=before_ms, limit=limit)]


def sum_copies(txn: ReadTxn) -> int:
    """Bytes that all copies of what is elsewhere have together. Cost: a scan of an index of them."""
    return int(txn.value(_CACHE_SIZE))


def medium_of(row: Row) -> Medium:
    """From a row of COLUMNS."""
    (
        server_nid, media_id, blob_hash, size_bytes, content_type, file_name, uploader_nid, created_ms,
        accessed_ms, expires_ms, quarantined_by, is_protected, is_open,
    ) = row  # fmt: skip
    return Medium(
        server_nid=server_nid,
        media_id=media_id,
        blob_hash=None if blob_hash is None else bytes(blob_hash),
        size_bytes=size_bytes,
        content_type=content_type,
        file_name=file_name,
        uploader_nid=uploader_nid,
        created_ms=created_ms,
        accessed_ms=accessed_ms,
        expires_ms=expires_ms,
        quarantined_by=quarantined_by,
        is_protected=bool(is_protected),
        is_open=bool(is_open),
    )


def _add_usage(txn: WriteTxn, medium: Medium, count: int) -> None:
    if medium.uploader_nid is not None:
        txn.execute(
            _ADD_USAGE, user_nid=medium.uploader_nid, count=count, size_bytes=count * medium.size_bytes
        )
