"""Smaller pictures of media.

Table: thumbnails. Owner: services.media.thumbnails; they go with their medium. Growth: one row for each size that
somebody asked for, of a list of a few hundred.
Index -> query: primary key -> find.
"""

from typing import Final

import msgspec

from ranvier.store.database import ReadTxn, WriteTxn
from ranvier.store.tables.media_blobs import release_blobs, retain_blob


class Shape(msgspec.Struct, frozen=True):
    """Which smaller picture is meant. Width and height in pixels, as the list of sizes has them."""

    width: int
    height: int
    method: str
    is_animated: bool


class Thumbnail(msgspec.Struct, frozen=True):
    content_type: str
    size_bytes: int
    blob_hash: bytes


_FIND: Final = """
    SELECT content_type, size_bytes, blob_hash FROM thumbnails
    WHERE server_nid = :server_nid AND media_id = :media_id AND width = :width AND height = :height
        AND method = :method AND is_animated = :is_animated
"""
_INSERT: Final = """
    INSERT INTO thumbnails (server_nid, media_id, width, height, method, is_animated, content_type, size_bytes,
        blob_hash)
    SELECT :server_nid, :media_id, CAST(:width AS {int}), CAST(:height AS {int}), :method,
        CAST(:is_animated AS {bool}), :content_type, CAST(:size_bytes AS {int}), :blob_hash
    WHERE EXISTS (SELECT 1 FROM media WHERE server_nid = :server_nid AND media_id = :media_id)
    ON CONFLICT (server_nid, media_id, width, height, method, is_animated) DO NOTHING
"""


def find_thumbnail(txn: ReadTxn, server_nid: int, media_id: str, shape: Shape) -> Thumbnail | None:
    row = txn.first(_FIND, server_nid=server_nid, media_id=media_id, **msgspec.structs.asdict(shape))
    return None if row is None else Thumbnail(row[0], row[1], bytes(row[2]))


def insert_thumbnail(
    txn: WriteTxn, server_nid: int, media_id: str, shape: Shape, thumbnail: Thumbnail, now_ms: int
) -> None:
    """Add a thumbnail whose content is held, unless it is there or its medium has gone. Raises: Conflict."""
    retain_blob(txn, thumbnail.blob_hash)
    inserted = txn.execute(
        _INSERT,
        server_nid=server_nid,
        media_id=media_id,
        **msgspec.structs.asdict(shape),
        **msgspec.structs.asdict(thumbnail),
    )
    if not inserted:
        release_blobs(txn, [thumbnail.blob_hash], now_ms)
