"""Sessions of sync v3 and what each asks for; in the homeserver's database and in a proxy's.

Tables: sync_v3_sessions, sync_v3_filters. Owner: historical.sync_v3.sessions.
Growth: a few rows a device that uses sync v3, expiring; at most MAX_FILTERS rows a session.
Index -> query: primary keys -> a token's session and filter; by_device -> the sessions of a device, the
longest unused first; by_use -> those that expire; (session, filter) -> the newest filters of a session.
"""

from typing import Final

import msgspec

from ranvier.store.database import ReadTxn, WriteTxn

MAX_FILTERS: Final = 64
"""Of a session. Who changes its mind more often cannot use a token as old as that."""


class Session(msgspec.Struct, frozen=True):
    session_id: int
    is_classic: bool
    events: int
    to_device: int
    used_ms: int


_INSERT: Final = """
    INSERT INTO sync_v3_sessions (session_id, device, is_classic, events, to_device, used_ms)
    VALUES (:session_id, :device, 0, 0, 0, :now_ms)
"""
_UPSERT_CLASSIC: Final = """
    INSERT INTO sync_v3_sessions (session_id, device, is_classic, events, to_device, used_ms)
    VALUES (:session_id, :device, 1, :position, :position, :now_ms)
    ON CONFLICT (device) WHERE is_classic = 1 DO UPDATE SET
        events = excluded.events, to_device = excluded.to_device, used_ms = excluded.used_ms
"""
_LIST: Final = """
    SELECT session_id, is_classic, events, to_device, used_ms FROM sync_v3_sessions
    WHERE device = :device ORDER BY used_ms, session_id
"""
_CONFIRM: Final = """
    UPDATE sync_v3_sessions SET events = :events, to_device = :to_device, used_ms = :now_ms
    WHERE session_id = :session_id
"""
_DELETE: Final = "DELETE FROM sync_v3_sessions WHERE session_id IN (:session_ids[])"
_DELETE_OF_DEVICE: Final = "DELETE FROM sync_v3_sessions WHERE device = :device"
_DELETE_UNUSED: Final = """
    DELETE FROM sync_v3_sessions WHERE session_id IN (
        SELECT session_id FROM sync_v3_sessions WHERE used_ms < :before_ms ORDER BY used_ms LIMIT :limit
    )
"""
_FILTER: Final = """
    SELECT request FROM sync_v3_filters WHERE filter_id = :filter_id AND session_id = :session_id
"""
_FILTERS: Final = """
    SELECT filter_id, request FROM sync_v3_filters WHERE session_id = :session_id ORDER BY filter_id DESC
"""
_INSERT_FILTER: Final = """
    INSERT INTO sync_v3_filters (filter_id, session_id, request) VALUES (:filter_id, :session_id, :request)
"""
_DELETE_FILTERS: Final = "DELETE FROM sync_v3_filters WHERE filter_id IN (:filter_ids[])"


def insert_session(txn: WriteTxn, device: str, now_ms: int) -> int:
    """A new session, which has confirmed nothing; its number."""
    session_id = txn.next_position()
    txn.execute(_INSERT, session_id=session_id, device=device, now_ms=now_ms)
    return session_id


def confirm_classic(txn: WriteTxn, device: str, position: int, now_ms: int) -> None:
    """Note how far the device's classic sync has come."""
    txn.execute(
        _UPSERT_CLASSIC, session_id=txn.next_position(), device=device, position=position, now_ms=now_ms
    )


def list_sessions(txn: ReadTxn, device: str) -> list[Session]:
    """The sessions of a device, its classic sync among them, the longest unused first."""
    return [
        Session(session_id, is_classic == 1, events, to_device, used_ms)
        for session_id, is_classic, events, to_device, used_ms in txn.all(_LIST, device=device)
    ]


def confirm(txn: WriteTxn, session_id: int, events: int, to_device: int, now_ms: int) -> None:
    """Note how far the client has come: the token that it sent."""
    txn.execute(_CONFIRM, session_id=session_id, events=events, to_device=to_device, now_ms=now_ms)


def delete_sessions(txn: WriteTxn, session_ids: list[int]) -> None:
    txn.execute(_DELETE, session_ids=session_ids)


def delete_sessions_of(txn: WriteTxn, device: str) -> None:
    txn.execute(_DELETE_OF_DEVICE, device=device)


def delete_unused_sessions(txn: WriteTxn, before_ms: int, limit: int) -> int:
    """Forget sessions that were not used since a time; how many."""
    return txn.execute(_DELETE_UNUSED, before_ms=before_ms, limit=limit)


def find_filter(txn: ReadTxn, session_id: int, filter_id: int) -> bytes | None:
    """What the session asked for (JSON), or None if this is no filter of it."""
    value: bytes | None = txn.value(_FILTER, filter_id=filter_id, session_id=session_id)
    return value


def put_filter(txn: WriteTxn, session_id: int, request: bytes) -> int:
    """The number under which the session's request is stored; an equal one is not stored twice."""
    stored = txn.all(_FILTERS, session_id=session_id)
    for filter_id, known in stored:
        if known == request:
            return int(filter_id)
    filter_id = txn.next_position()
    txn.execute(_INSERT_FILTER, filter_id=filter_id, session_id=session_id, request=request)
    oldest = [number for number, _ in stored[MAX_FILTERS - 1 :]]
    if oldest:
        txn.execute(_DELETE_FILTERS, filter_ids=oldest)
    return filter_id
