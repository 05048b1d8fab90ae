"""Where two devices meet: a small text that whoever knows its id may read and replace.

Table: rendezvous_sessions. Owner: services.rendezvous. Growth: one row a session, for minutes.
Index -> query: primary key -> find, replace, delete; by_expiry -> clean up.
"""

from typing import Final

import msgspec

from ranvier.store.database import ReadTxn, WriteTxn


class RendezvousSession(msgspec.Struct, frozen=True):
    session_id: str
    content: bytes
    revision: int
    modified_ms: int
    expires_ms: int


_COUNT: Final = "SELECT COUNT(*) FROM rendezvous_sessions"
_INSERT: Final = """
    INSERT INTO rendezvous_sessions (session_id, content, revision, modified_ms, expires_ms)
    VALUES (:session_id, :content, :revision, :modified_ms, :expires_ms)
"""
_FIND: Final = """
    SELECT session_id, content, revision, modified_ms, expires_ms FROM rendezvous_sessions
    WHERE session_id = :session_id AND expires_ms > :now_ms
"""
_REPLACE: Final = """
    UPDATE rendezvous_sessions SET content = :content, revision = revision + 1, modified_ms = :now_ms
    WHERE session_id = :session_id AND revision = :revision
"""
_DELETE: Final = "DELETE FROM rendezvous_sessions WHERE session_id = :session_id AND expires_ms > :now_ms"
_EXPIRE: Final = "DELETE FROM rendezvous_sessions WHERE expires_ms <= :now_ms"


def count_rendezvous_sessions(txn: ReadTxn) -> int:
    return int(txn.value(_COUNT))


def insert_rendezvous_session(txn: WriteTxn, session: RendezvousSession) -> None:
    txn.execute(_INSERT, **msgspec.structs.asdict(session))


def find_rendezvous_session(txn: ReadTxn, session_id: str, now_ms: int) -> RendezvousSession | None:
    """A session that has not expired."""
    row = txn.first(_FIND, session_id=session_id, now_ms=now_ms)
    return None if row is None else RendezvousSession(*row)


def replace_rendezvous_content(
    txn: WriteTxn, session_id: str, revision: int, content: bytes, now_ms: int
) -> bool:
    """Whether it still was the content of that revision."""
    replaced = txn.execute(_REPLACE, session_id=session_id, revision=revision, content=content, now_ms=now_ms)
    return replaced == 1


def delete_rendezvous_session(txn: WriteTxn, session_id: str, now_ms: int) -> bool:
    """False if there is no such session, or it has expired."""
    return txn.execute(_DELETE, session_id=session_id, now_ms=now_ms) == 1


def delete_expired_rendezvous_sessions(txn: WriteTxn, now_ms: int) -> int:
    """How many those were."""
    return txn.execute(_EXPIRE, now_ms=now_ms)
