"""Media as administrators see them: lists, quarantine, and what each user's come to.

Table: media. Owner: services.media.{moderating,deleting,accounting}.
Index -> query: media_by_uploader -> a user's media; media_by_blob -> equal contents; the rest scans, for administrators
alone.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Final, Literal

import msgspec

from ranvier.store.database import ReadTxn, WriteTxn
from ranvier.store.tables.batches import in_batches
from ranvier.store.tables.media import COLUMNS, Medium, medium_of

Order = Literal[
    "media_id", "upload_name", "created_ts", "last_access_ts", "media_length", "media_type", "quarantined_by",
    "safe_from_quarantine",
]  # fmt: skip
_ORDERS: Final[Mapping[Order, str]] = {
    "media_id": "media_id",
    "upload_name": "file_name",
    "created_ts": "created_ms",
    "last_access_ts": "accessed_ms",
    "media_length": "size_bytes",
    "media_type": "content_type",
    "quarantined_by": "quarantined_by",
    "safe_from_quarantine": "is_protected",
}

Key = tuple[int, str]
"""(server_nid, media_id)."""


class UserMedia(msgspec.Struct, frozen=True):
    """What a user uploaded in a span of time."""

    user_nid: int
    media_count: int
    size_bytes: int


_OF_USER: Final = "FROM media WHERE uploader_nid = :user_nid AND blob_hash IS NOT NULL"
_LIST: Final = f"""
    WITH wanted(server_nid, media_id) AS (:keys[2])
    SELECT {", ".join(f"m.{name.strip()}" for name in COLUMNS.split(","))}
    FROM wanted JOIN media m ON m.server_nid = wanted.server_nid AND m.media_id = wanted.media_id
"""  # noqa: S608
_LIST_EQUAL: Final = f"SELECT {COLUMNS} FROM media WHERE blob_hash IN (:hashes[])"  # noqa: S608
_LIST_OLD: Final = f"""
    SELECT {COLUMNS} FROM media
    WHERE uploader_nid IS NOT NULL AND blob_hash IS NOT NULL AND accessed_ms < :before_ms AND size_bytes > :above_bytes
        AND is_protected = 0 AND media_id > :after
    ORDER BY media_id LIMIT :limit
"""  # noqa: S608
_QUARANTINE: Final = """
    UPDATE media SET quarantined_by = :by
    WHERE blob_hash IN (:hashes[]) AND is_protected = 0 AND quarantined_by IS NULL
"""
_RELEASE: Final = """
    UPDATE media SET quarantined_by = NULL WHERE blob_hash IN (:hashes[]) AND quarantined_by IS NOT NULL
"""
_PROTECT: Final = """
    UPDATE media SET is_protected = :is_protected WHERE server_nid = :server_nid AND media_id = :media_id
"""
_USAGE: Final = """
    SELECT uploader_nid, COUNT(*), SUM(size_bytes) FROM media
    WHERE uploader_nid IS NOT NULL AND blob_hash IS NOT NULL AND created_ms >= :from_ms AND created_ms <= :until_ms
    GROUP BY uploader_nid
"""
_ROOM_AVATARS: Final = "SELECT avatar_url FROM room_summaries WHERE avatar_url IS NOT NULL"
_USER_AVATARS: Final = "SELECT value FROM profile_fields WHERE field = 'avatar_url'"


def list_user_media(
    txn: ReadTxn, user_nid: int, order: Order, *, backwards: bool, limit: int, offset: int = 0
) -> list[Medium]:
    """A page of what a user uploaded."""
    direction = "DESC" if backwards else "ASC"
    sql = f"SELECT {COLUMNS} {_OF_USER} ORDER BY {_ORDERS[order]} {direction}, media_id LIMIT :limit OFFSET :offset"
    return [medium_of(row) for row in txn.all(sql, user_nid=user_nid, limit=limit, offset=offset)]


def count_user_media(txn: ReadTxn, user_nid: int) -> int:
    count: int = txn.value(f"SELECT COUNT(*) {_OF_USER}", user_nid=user_nid)
    return count


def list_media(txn: ReadTxn, keys: Collection[Key]) -> list[Medium]:
    """Those of `keys` that are here, reserved ones included."""
    return [medium_of(row) for batch in in_batches(sorted(set(keys))) for row in txn.all(_LIST, keys=batch)]


def list_old_uploads(txn: ReadTxn, before_ms: int, above_bytes: int, after: str, limit: int) -> list[Medium]:
    """Uploads that nobody looked at since `before_ms`, larger than `above_bytes` and not protected: by media id, those
    behind `after`.
    """
    rows = txn.all(_LIST_OLD, before_ms=before_ms, above_bytes=above_bytes, after=after, limit=limit)
    return [medium_of(row) for row in rows]


def list_equal_media(txn: ReadTxn, hashes: Collection[bytes]) -> list[Medium]:
    """Every medium that has one of these contents."""
    return [
        medium_of(row) for batch in in_batches(sorted(hashes)) for row in txn.all(_LIST_EQUAL, hashes=batch)
    ]


def quarantine_contents(txn: WriteTxn, hashes: Sequence[bytes], by: str) -> int:
    """Quarantine all media with these contents but protected ones. How many that changed."""
    return sum(txn.execute(_QUARANTINE, hashes=batch, by=by) for batch in in_batches(hashes))


def release_contents(txn: WriteTxn, hashes: Sequence[bytes]) -> int:
    """Take all media with these contents out of quarantine. How many that changed."""
    return sum(txn.execute(_RELEASE, hashes=batch) for batch in in_batches(hashes))


def set_protected(txn: WriteTxn, server_nid: int, media_id: str, *, is_protected: bool) -> bool:
    """Whether there is such a medium."""
    changed = txn.execute(_PROTECT, server_nid=server_nid, media_id=media_id, is_protected=is_protected)
    return changed > 0


def list_usage(txn: ReadTxn, from_ms: int, until_ms: int) -> list[UserMedia]:
    """What each user uploaded, in no order."""
    rows = txn.all(_USAGE, from_ms=from_ms, until_ms=until_ms)
    return [UserMedia(nid, count, int(size)) for nid, count, size in rows]


def list_avatars(txn: ReadTxn) -> tuple[list[str], list[bytes]]:
    """The avatars of rooms, and those of users as JSON."""
    rooms = [str(row[0]) for row in txn.all(_ROOM_AVATARS)]
    return rooms, [bytes(row[0]) for row in txn.all(_USER_AVATARS)]
