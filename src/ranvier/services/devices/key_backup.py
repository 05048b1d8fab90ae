"""Backups of room keys, encrypted by clients for themselves.

Spec: client-server API, "Server-side key backups".
"""

from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Final

import msgspec
import orjson

from ranvier.core.canonical_json import JsonObject
from ranvier.core.encryption_keys import is_name
from ranvier.core.errors import InvalidParam, NotFound, WrongRoomKeysVersion
from ranvier.core.limits import MAX_SAFE_INTEGER
from ranvier.services.requester import Requester
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables import key_backup as table
from ranvier.store.tables.key_backup import BackedUpSession, BackupVersion, NamedSession, SessionName

PAGE_SIZE: Final = 500
"""Keys that are in memory at a time, of a backup that is read as a whole: about half a megabyte."""

Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_SAFE_INTEGER)]


class KeyData(msgspec.Struct, frozen=True):
    """A key, as a client sends it."""

    first_message_index: Count
    forwarded_count: Count
    is_verified: bool
    session_data: JsonObject


class BackupInfo(msgspec.Struct, frozen=True):
    """A version, as a client sees it."""

    algorithm: str
    auth_data: msgspec.Raw
    count: int
    etag: str
    version: str


class BackupState(msgspec.Struct, frozen=True):
    """What becomes of a version by a change of its keys."""

    etag: str
    count: int


class KeyBackups:
    """Looks after the backups of users."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def create(self, requester: Requester, algorithm: str, auth_data: JsonObject) -> str:
        """Begin a new backup; its version. Raises: InvalidParam."""
        if not is_name(algorithm):
            raise InvalidParam("An algorithm has a name of at most 255 characters.")
        data = orjson.dumps(auth_data)
        return str(await self._db.write(table.insert_version, requester.user_nid, algorithm, data))

    async def get_current(self, requester: Requester) -> BackupInfo:
        """Raises: NotFound."""
        found = await self._db.read(table.find_current_version, requester.user_nid)
        if found is None:
            raise NotFound("There is no backup.")
        return _info(found)

    async def get(self, requester: Requester, version: str) -> BackupInfo:
        """Raises: NotFound."""
        return _info(await self._db.read(_get, requester.user_nid, version))

    async def update(self, requester: Requester, version: str, algorithm: str, auth_data: JsonObject) -> None:
        """Replace the auth_data of a version. Raises: NotFound; InvalidParam: that is not its algorithm."""
        await self._db.write(_update, requester.user_nid, version, algorithm, orjson.dumps(auth_data))

    async def delete(self, requester: Requester, version: str) -> None:
        """Delete a version with all its keys; again is no error. Raises: NotFound."""
        await self._db.write(_delete, requester.user_nid, version)

    async def put_keys(
        self, requester: Requester, version: str, keys: Mapping[SessionName, KeyData]
    ) -> BackupState:
        """Store keys, each unless there is a better one. Raises: NotFound, WrongRoomKeysVersion, InvalidParam."""
        if not all(is_name(room_id) and is_name(session_id) for room_id, session_id in keys):
            raise InvalidParam("Ids of rooms and sessions have 1 to 255 characters.")
        sessions = {name: _session(key) for name, key in keys.items()}
        return await self._db.write(_put, requester.user_nid, version, sessions)

    async def get_key(self, requester: Requester, version: str, room_id: str, session_id: str) -> bytes:
        """One key (JSON). Raises: NotFound."""
        found = await self._db.read(_find_key, requester.user_nid, version, (room_id, session_id))
        if found is None:
            raise NotFound("There is no such key.")
        return _key_json(found)

    async def get_keys(self, requester: Requester, version: str) -> AsyncIterator[bytes]:
        """The keys of all rooms: a JSON object in pieces. Raises (before the first piece): NotFound."""
        number = (await self._db.read(_get, requester.user_nid, version)).version
        return self._pieces(requester.user_nid, number)

    async def get_keys_of_room(
        self, requester: Requester, version: str, room_id: str
    ) -> AsyncIterator[bytes]:
        """The keys of one room: a JSON object in pieces. Raises (before the first piece): NotFound."""
        number = (await self._db.read(_get, requester.user_nid, version)).version
        return self._room_pieces(requester.user_nid, number, room_id)

    async def delete_keys(
        self, requester: Requester, version: str, room_id: str | None = None, session_id: str | None = None
    ) -> BackupState:
        """Delete the keys of a version, or of a room of it, or of one session. Raises: NotFound."""
        return await self._db.write(_delete_keys, requester.user_nid, version, room_id, session_id)

    async def _pieces(self, user_nid: int, version: int) -> AsyncIterator[bytes]:
        yield b'{"rooms":{'
        after, room_id = ("", ""), None
        while page := await self._db.read(table.list_sessions, user_nid, version, after, PAGE_SIZE):
            pieces = []
            for one in page:
                if one.room_id != room_id:
                    pieces.append(b"" if room_id is None else b"}},")
                    pieces.append(b'%b:{"sessions":{' % orjson.dumps(one.room_id))
                else:
                    pieces.append(b",")
                pieces.append(_member(one))
                room_id = one.room_id
            after = (page[-1].room_id, page[-1].session_id)
            yield b"".join(pieces)
        yield b"}}" if room_id is None else b"}}}}"

    async def _room_pieces(self, user_nid: int, version: int, room_id: str) -> AsyncIterator[bytes]:
        yield b'{"sessions":{'
        after, is_first = (room_id, ""), True
        while page := await self._db.read(table.list_sessions_of_room, user_nid, version, after, PAGE_SIZE):
            members = b",".join([_member(one) for one in page])
            yield members if is_first else b"," + members
            after, is_first = (room_id, page[-1].session_id), False
        yield b"}}"


def _get(txn: ReadTxn, user_nid: int, version: str) -> BackupVersion:
    """A version that is there. Raises: NotFound."""
    found = _find(txn, user_nid, version)
    if found is None or found.is_deleted:
        raise NotFound("There is no such backup version.")
    return found


def _find(txn: ReadTxn, user_nid: int, version: str) -> BackupVersion | None:
    """A version, deleted ones included. What is no number was never given out."""
    if not (version.isascii() and version.isdigit() and len(version) < 10):
        return None
    return table.find_version(txn, user_nid, int(version))


def _update(txn: WriteTxn, user_nid: int, version: str, algorithm: str, auth_data: bytes) -> None:
    found = _get(txn, user_nid, version)
    if found.algorithm != algorithm:
        raise InvalidParam("The algorithm of a backup cannot be changed.")
    table.set_auth_data(txn, user_nid, found.version, auth_data)


def _delete(txn: WriteTxn, user_nid: int, version: str) -> None:
    found = _find(txn, user_nid, version)
    if found is None:
        raise NotFound("There is no such backup version.")
    if not found.is_deleted:
        table.delete_version(txn, user_nid, found.version)


def _put(
    txn: WriteTxn, user_nid: int, version: str, sessions: Mapping[SessionName, BackedUpSession]
) -> BackupState:
    found = _get(txn, user_nid, version)
    current = table.find_current_version(txn, user_nid)
    if current is not None and current.version != found.version:
        raise WrongRoomKeysVersion(
            "Keys go into the current backup version only.", current_version=str(current.version)
        )
    table.merge_sessions(txn, user_nid, found.version, sessions)
    return _state(_get(txn, user_nid, version))


def _find_key(txn: ReadTxn, user_nid: int, version: str, name: SessionName) -> BackedUpSession | None:
    found = _get(txn, user_nid, version)
    return table.find_session(txn, user_nid, found.version, name)


def _delete_keys(
    txn: WriteTxn, user_nid: int, version: str, room_id: str | None, session_id: str | None
) -> BackupState:
    found = _get(txn, user_nid, version)
    table.delete_sessions(txn, user_nid, found.version, room_id, session_id)
    return _state(_get(txn, user_nid, version))


def _session(key: KeyData) -> BackedUpSession:
    return BackedUpSession(
        key.first_message_index, key.forwarded_count, key.is_verified, orjson.dumps(key.session_data)
    )


def _info(found: BackupVersion) -> BackupInfo:
    return BackupInfo(
        found.algorithm,
        msgspec.Raw(found.auth_data),
        found.key_count,
        str(found.etag),
        str(found.version),
    )


def _state(found: BackupVersion) -> BackupState:
    return BackupState(str(found.etag), found.key_count)


def _member(one: NamedSession) -> bytes:
    return b"%b:%b" % (orjson.dumps(one.session_id), _key_json(one.session))


def _key_json(key: BackedUpSession) -> bytes:
    return b'{"first_message_index":%d,"forwarded_count":%d,"is_verified":%b,"session_data":%b}' % (
        key.first_message_index,
        key.forwarded_count,
        b"true" if key.is_verified else b"false",
        key.session_data,
    )
