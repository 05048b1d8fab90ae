"""Sessions of user-interactive authentication. They survive a restart and serve any process.

Tables: uia_sessions, uia_stages. Owner: services.accounts. Growth: one row a request that needs
authentication, until it is done or has not been used for a while.
Index -> query: primary keys -> find, complete; by_use -> clean up.

Spec: client-server API, "User-Interactive Authentication API": a session is good for the very request that
began it.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from ranvier.store.database import ReadTxn, WriteTxn


class UiaSession(msgspec.Struct, frozen=True):
    session_id: str
    user_nid: int | None  # None: nobody is logged in
    request: str  # method and path
    used_ms: int
    completed: Mapping[str, bytes]  # stage -> what it proved, JSON; in alphabetical order


_INSERT: Final = """
    INSERT INTO uia_sessions (session_id, user_nid, request, used_ms)
    VALUES (:session_id, :user_nid, :request, :used_ms)
"""
_FIND: Final = (
    "SELECT session_id, user_nid, request, used_ms FROM uia_sessions WHERE session_id = :session_id"
)
_STAGES: Final = "SELECT stage, result FROM uia_stages WHERE session_id = :session_id ORDER BY stage"
_TOUCH: Final = "UPDATE uia_sessions SET used_ms = :now_ms WHERE session_id = :session_id"
_COMPLETE: Final = """
    INSERT INTO uia_stages (session_id, stage, result) VALUES (:session_id, :stage, :result)
    ON CONFLICT (session_id, stage) DO UPDATE SET result = excluded.result
"""
_DELETE: Final = "DELETE FROM uia_sessions WHERE session_id = :session_id"
_EXPIRE: Final = "DELETE FROM uia_sessions WHERE used_ms < :before_ms"


def insert_uia_session(
    txn: WriteTxn, session_id: str, user_nid: int | None, request: str, now_ms: int
) -> None:
    """Begin a session. `session_id` is random and unguessable."""
    txn.execute(_INSERT, session_id=session_id, user_nid=user_nid, request=request, used_ms=now_ms)


def find_uia_session(txn: ReadTxn, session_id: str) -> UiaSession | None:
    row = txn.first(_FIND, session_id=session_id)
    if row is None:
        return None
    found_id, user_nid, request, used_ms = row
    return UiaSession(found_id, user_nid, request, used_ms, dict(txn.all(_STAGES, session_id=session_id)))


def complete_uia_stage(txn: WriteTxn, session_id: str, stage: str, result: bytes, now_ms: int) -> bool:
    """Note that a stage succeeded; False if the session is gone meanwhile."""
    if not txn.execute(_TOUCH, session_id=session_id, now_ms=now_ms):
        return False
    txn.execute(_COMPLETE, session_id=session_id, stage=stage, result=result)
    return True


def delete_uia_session(txn: WriteTxn, session_id: str) -> bool:
    """End the session when its request is carried out; False if somebody else did: one session, one request."""
    return txn.execute(_DELETE, session_id=session_id) == 1


def delete_stale_uia_sessions(txn: WriteTxn, before_ms: int) -> int:
    """Drop the sessions that were last used before a time; how many."""
    return txn.execute(_EXPIRE, before_ms=before_ms)
