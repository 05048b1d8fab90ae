"""Backups of room keys: versions, each with its sessions.

Tables: key_backup_versions, key_backup_sessions. Owner: services.devices.
Growth: one row a version, one a session that a user ever got the key of. Index -> query: the primary keys serve all.

A version that was deleted keeps its row, so that its number is never given out again; its sessions are deleted.

Spec: client-server API, "Server-side key backups".
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from ranvier.store.database import ReadTxn, Row, WriteTxn
from ranvier.store.tables.batches import in_batches

SessionName = tuple[str, str]
"""(room_id, session_id)."""


class BackupVersion(msgspec.Struct, frozen=True):
    version: int
    algorithm: str
    auth_data: bytes  # JSON
    etag: int  # grows with each change of the keys
    key_count: int
    is_deleted: bool


class BackedUpSession(msgspec.Struct, frozen=True):
    first_message_index: int
    forwarded_count: int
    is_verified: bool
    session_data: bytes  # JSON

    @property
    def rank(self) -> tuple[bool, int, int]:
        """Of two keys for one session, the one with the lower rank is kept.

        Spec: client-server API, "Server-side key backups": verified before unverified, then the lower
        first_message_index, then the lower forwarded_count.
        """
        return not self.is_verified, self.first_message_index, self.forwarded_count


class NamedSession(msgspec.Struct, frozen=True):
    room_id: str
    session_id: str
    session: BackedUpSession


_VERSION: Final = "SELECT version, algorithm, auth_data, etag, key_count, is_deleted FROM key_backup_versions"
_FIND: Final = f"{_VERSION} WHERE user_nid = :user_nid AND version = :version"
_CURRENT: Final = f"""
    {_VERSION} WHERE user_nid = :user_nid AND is_deleted = 0 ORDER BY version DESC LIMIT 1
"""
_NEWEST: Final = "SELECT MAX(version) FROM key_backup_versions WHERE user_nid = :user_nid"
_INSERT: Final = """
    INSERT INTO key_backup_versions (user_nid, version, algorithm, auth_data)
    VALUES (:user_nid, :version, :algorithm, :auth_data)
"""
_SET_AUTH_DATA: Final = """
    UPDATE key_backup_versions SET auth_data = :auth_data WHERE user_nid = :user_nid AND version = :version
"""
_DELETE: Final = """
    UPDATE key_backup_versions SET is_deleted = 1, key_count = 0, etag = etag + 1
    WHERE user_nid = :user_nid AND version = :version
"""
_CHANGED: Final = """
    UPDATE key_backup_versions SET etag = etag + :changes, key_count = key_count + :added
    WHERE user_nid = :user_nid AND version = :version
"""
_SESSION: Final = """
    SELECT room_id, session_id, first_message_index, forwarded_count, is_verified, session_data
    FROM key_backup_sessions WHERE user_nid = :user_nid AND version = :version
"""
_PAGE: Final = f"""
    {_SESSION} AND (room_id, session_id) > (:after_room_id, :after_session_id)
    ORDER BY room_id, session_id LIMIT :limit
"""
_ROOM_PAGE: Final = f"""
    {_SESSION} AND room_id = :room_id AND session_id > :after_session_id ORDER BY session_id LIMIT :limit
"""
_ONE: Final = f"{_SESSION} AND room_id = :room_id AND session_id = :session_id"
_EXISTING: Final = """
    WITH wanted(room_id, session_id) AS (:names[2])
    SELECT s.room_id, s.session_id, s.first_message_index, s.forwarded_count, s.is_verified, s.session_data
    FROM wanted JOIN key_backup_sessions s
        ON s.user_nid = :user_nid AND s.version = :version
        AND s.room_id = wanted.room_id AND s.session_id = wanted.session_id
"""
_UPSERT: Final = """
    INSERT INTO key_backup_sessions (user_nid, version, room_id, session_id, first_message_index,
        forwarded_count, is_verified, session_data)
    VALUES (:user_nid, :version, :room_id, :session_id, :first_message_index, :forwarded_count, :is_verified,
        :session_data)
    ON CONFLICT (user_nid, version, room_id, session_id) DO UPDATE SET
        first_message_index = excluded.first_message_index, forwarded_count = excluded.forwarded_count,
        is_verified = excluded.is_verified, session_data = excluded.session_data
"""
_DELETE_ALL: Final = "DELETE FROM key_backup_sessions WHERE user_nid = :user_nid AND version = :version"
_DELETE_ROOM: Final = f"{_DELETE_ALL} AND room_id = :room_id"
_DELETE_ONE: Final = f"{_DELETE_ROOM} AND session_id = :session_id"


def insert_version(txn: WriteTxn, user_nid: int, algorithm: str, auth_data: bytes) -> int:
    """Begin a backup, which is the current one from now on; its number."""
    version: int = (txn.value(_NEWEST, user_nid=user_nid) or 0) + 1
    txn.execute(_INSERT, user_nid=user_nid, version=version, algorithm=algorithm, auth_data=auth_data)
    return version


def find_version(txn: ReadTxn, user_nid: int, version: int) -> BackupVersion | None:
    """A version, deleted ones included."""
    row = txn.first(_FIND, user_nid=user_nid, version=version)
    return None if row is None else _version_of(row)


def find_current_version(txn: ReadTxn, user_nid: int) -> BackupVersion | None:
    """The newest version that is not deleted."""
    row = txn.first(_CURRENT, user_nid=user_nid)
    return None if row is None else _version_of(row)


def set_auth_data(txn: WriteTxn, user_nid: int, version: int, auth_data: bytes) -> None:
    txn.execute(_SET_AUTH_DATA, user_nid=user_nid, version=version, auth_data=auth_data)


def delete_version(txn: WriteTxn, user_nid: int, version: int) -> None:
    """Delete a version with all its keys."""
    txn.execute(_DELETE_ALL, user_nid=user_nid, version=version)
    txn.execute(_DELETE, user_nid=user_nid, version=version)


def merge_sessions(
    txn: WriteTxn, user_nid: int, version: int, sessions: Mapping[SessionName, BackedUpSession]
) -> None:
    """Store keys, each unless there is one for its session already that is as good or better.

    Effects: the version's etag and count. Cost: 1 query for 4,096 sessions, 2 statements.
    """
    old = _existing(txn, user_nid, version, list(sessions))
    better = {
        name: session
        for name, session in sessions.items()
        if name not in old or session.rank < old[name].rank
    }
    if not better:
        return
    txn.execute_many(
        _UPSERT,
        [
            {
                "user_nid": user_nid,
                "version": version,
                "room_id": room_id,
                "session_id": session_id,
                **msgspec.structs.asdict(session),
                "is_verified": int(session.is_verified),
            }
            for (room_id, session_id), session in sorted(better.items(), key=lambda item: item[0])
        ],
    )
    added = len(better.keys() - old.keys())
    txn.execute(_CHANGED, user_nid=user_nid, version=version, changes=len(better), added=added)


def find_session(txn: ReadTxn, user_nid: int, version: int, name: SessionName) -> BackedUpSession | None:
    row = txn.first(_ONE, user_nid=user_nid, version=version, room_id=name[0], session_id=name[1])
    return None if row is None else _session(row).session


def list_sessions(
    txn: ReadTxn, user_nid: int, version: int, after: SessionName, limit: int
) -> list[NamedSession]:
    """Keys of a version by (room_id, session_id), those behind `after`; ("", "") is before them all."""
    rows = txn.all(
        _PAGE,
        user_nid=user_nid,
        version=version,
        after_room_id=after[0],
        after_session_id=after[1],
        limit=limit,
    )
    return [_session(row) for row in rows]


def list_sessions_of_room(
    txn: ReadTxn, user_nid: int, version: int, after: SessionName, limit: int
) -> list[NamedSession]:
    """Keys of one room by session_id, those behind `after`; (room_id, "") is before them all."""
    rows = txn.all(
        _ROOM_PAGE,
        user_nid=user_nid,
        version=version,
        room_id=after[0],
        after_session_id=after[1],
        limit=limit,
    )
    return [_session(row) for row in rows]


def delete_sessions(
    txn: WriteTxn, user_nid: int, version: int, room_id: str | None = None, session_id: str | None = None
) -> None:
    """Delete the keys of a version, or of one of its rooms, or of one session of a room.

    Effects: the version's etag and count, if there were any.
    """
    if room_id is None:
        deleted = txn.execute(_DELETE_ALL, user_nid=user_nid, version=version)
    elif session_id is None:
        deleted = txn.execute(_DELETE_ROOM, user_nid=user_nid, version=version, room_id=room_id)
    else:
        deleted = txn.execute(
            _DELETE_ONE, user_nid=user_nid, version=version, room_id=room_id, session_id=session_id
        )
    if deleted:
        txn.execute(_CHANGED, user_nid=user_nid, version=version, changes=1, added=-deleted)


def _version_of(row: Row) -> BackupVersion:
    version, algorithm, auth_data, etag, key_count, is_deleted = row
    return BackupVersion(version, algorithm, auth_data, etag, key_count, bool(is_deleted))


def _existing(
    txn: ReadTxn, user_nid: int, version: int, names: Sequence[SessionName]
) -> dict[SessionName, BackedUpSession]:
    return {
        (row[0], row[1]): _session(row).session
        for batch in in_batches(names)
        for row in txn.all(_EXISTING, user_nid=user_nid, version=version, names=batch)
    }


def _session(row: Row) -> NamedSession:
    room_id, session_id, first_message_index, forwarded_count, is_verified, session_data = row
    return NamedSession(
        room_id,
        session_id,
        BackedUpSession(first_message_index, forwarded_count, bool(is_verified), session_data),
    )
