"""What pages of the web say about themselves.

Table: url_previews. Owner: services.media.url_previews. Growth: one row for each URL that somebody asked about, until
it expires.
Index -> query: primary key -> find; url_previews_by_expiry -> delete.
"""

from typing import Final

from ranvier.store.database import ReadTxn, WriteTxn

_FIND: Final = "SELECT preview FROM url_previews WHERE url_hash = :url_hash AND expires_ms > :now_ms"
_UPSERT: Final = """
    INSERT INTO url_previews (url_hash, url, preview, fetched_ms, expires_ms)
    VALUES (:url_hash, :url, :preview, :now_ms, :expires_ms)
    ON CONFLICT (url_hash) DO UPDATE SET preview = excluded.preview, fetched_ms = excluded.fetched_ms,
        expires_ms = excluded.expires_ms
"""
_DELETE: Final = "DELETE FROM url_previews WHERE expires_ms <= :now_ms"


def find_url_preview(txn: ReadTxn, url_hash: bytes, now_ms: int) -> bytes | None:
    """The JSON of a preview that has not expired."""
    row = txn.first(_FIND, url_hash=url_hash, now_ms=now_ms)
    return None if row is None else bytes(row[0])


def upsert_url_preview(
    txn: WriteTxn, url_hash: bytes, url: str, preview: bytes, now_ms: int, expires_ms: int
) -> None:
    txn.execute(_UPSERT, url_hash=url_hash, url=url, preview=preview, now_ms=now_ms, expires_ms=expires_ms)


def delete_expired_previews(txn: WriteTxn, now_ms: int) -> int:
    """How many there were."""
    return txn.execute(_DELETE, now_ms=now_ms)
