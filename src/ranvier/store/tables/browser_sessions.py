"""Browsers in which somebody is signed in on this server's own pages.

Table: browser_sessions. Owner: services.oauth. Growth: one row a sign-in, bounded for each user by `insert_browser`.
Index -> query: primary key -> every page; by_user -> sign out everywhere, bound; by_expiry -> sweep.
"""

from typing import Final

import msgspec

from ranvier.store.database import ReadTxn, WriteTxn

MAX_BROWSERS: Final = 20
"""Of one user; the one that proved who it is longest ago goes first."""


class Browser(msgspec.Struct, frozen=True):
    user_nid: int
    proved_ms: int
    expires_ms: int


_INSERT: Final = """
    INSERT INTO browser_sessions (session_hash, user_nid, proved_ms, expires_ms)
    VALUES (:session_hash, :user_nid, :proved_ms, :expires_ms)
"""
_FIND: Final = """
    SELECT user_nid, proved_ms, expires_ms FROM browser_sessions
    WHERE session_hash = :session_hash AND expires_ms > :now_ms
"""
_BOUND: Final = """
    DELETE FROM browser_sessions WHERE session_hash IN (
        SELECT session_hash FROM browser_sessions WHERE user_nid = :user_nid ORDER BY proved_ms DESC
        LIMIT 1000 OFFSET :kept
    )
"""
_DELETE: Final = "DELETE FROM browser_sessions WHERE session_hash = :session_hash"
_DELETE_EXPIRED: Final = "DELETE FROM browser_sessions WHERE expires_ms <= :now_ms"


def insert_browser(txn: WriteTxn, session_hash: bytes, browser: Browser) -> None:
    txn.execute(
        _INSERT,
        session_hash=session_hash,
        user_nid=browser.user_nid,
        proved_ms=browser.proved_ms,
        expires_ms=browser.expires_ms,
    )
    txn.execute(_BOUND, user_nid=browser.user_nid, kept=MAX_BROWSERS)


def find_browser(txn: ReadTxn, session_hash: bytes, now_ms: int) -> Browser | None:
    row = txn.first(_FIND, session_hash=session_hash, now_ms=now_ms)
    return None if row is None else Browser(*row)


def delete_browser(txn: WriteTxn, session_hash: bytes) -> None:
    txn.execute(_DELETE, session_hash=session_hash)


def delete_expired_browsers(txn: WriteTxn, now_ms: int) -> int:
    return txn.execute(_DELETE_EXPIRED, now_ms=now_ms)
