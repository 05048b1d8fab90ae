"""Backups of room keys. Spec: client-server API, "Server-side key backups"."""

from typing import Final

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import InvalidParam
from ranvier.http.endpoint import Rate, endpoint
from ranvier.http.request import Request
from ranvier.http.responses import Response
from ranvier.services.devices.key_backup import BackupInfo, BackupState, KeyBackups, KeyData

VERSIONS: Final = "/_matrix/client/v3/room_keys/version"
VERSION: Final = f"{VERSIONS}/{{version}}"
KEYS: Final = "/_matrix/client/v3/room_keys/keys"
ROOM_KEYS: Final = f"{KEYS}/{{roomId}}"
KEY: Final = f"{ROOM_KEYS}/{{sessionId}}"
MAX_BODY_BYTES: Final = 16 * 1024 * 1024


class NewBackup(msgspec.Struct, frozen=True):
    algorithm: str
    auth_data: JsonObject


class VersionAnswer(msgspec.Struct, frozen=True):
    version: str


class BackupUpdate(msgspec.Struct, frozen=True):
    algorithm: str
    auth_data: JsonObject
    version: str | None = None


class RoomBackup(msgspec.Struct, frozen=True):
    sessions: dict[str, KeyData]


class RoomsBackup(msgspec.Struct, frozen=True):
    rooms: dict[str, RoomBackup]


class KeyBackupVersions:
    """The endpoints at /room_keys/version."""

    def __init__(self, backups: KeyBackups) -> None:
        self._backups = backups

    @endpoint("POST", VERSIONS, operation="postRoomKeysVersion", rate=Rate.WRITE)
    async def post_room_keys_version(self, request: Request) -> VersionAnswer:
        body = request.body(NewBackup)
        return VersionAnswer(await self._backups.create(request.requester, body.algorithm, body.auth_data))

    @endpoint("GET", VERSIONS, operation="getRoomKeysVersionCurrent")
    async def get_room_keys_version_current(self, request: Request) -> BackupInfo:
        return await self._backups.get_current(request.requester)

    @endpoint("GET", VERSION, operation="getRoomKeysVersion")
    async def get_room_keys_version(self, request: Request) -> BackupInfo:
        return await self._backups.get(request.requester, request.path["version"])

    @endpoint("PUT", VERSION, operation="putRoomKeysVersion", rate=Rate.WRITE)
    async def put_room_keys_version(self, request: Request) -> dict[str, object]:
        version, body = request.path["version"], request.body(BackupUpdate)
        if body.version is not None and body.version != version:
            raise InvalidParam("The version in the body is not the one in the path.")
        await self._backups.update(request.requester, version, body.algorithm, body.auth_data)
        return {}

    @endpoint("DELETE", VERSION, operation="deleteRoomKeysVersion", rate=Rate.WRITE)
    async def delete_room_keys_version(self, request: Request) -> dict[str, object]:
        await self._backups.delete(request.requester, request.path["version"])
        return {}


class KeyBackupKeys:
    """The endpoints at /room_keys/keys."""

    def __init__(self, backups: KeyBackups) -> None:
        self._backups = backups

    @endpoint("PUT", KEYS, operation="putRoomKeys", rate=Rate.WRITE, max_body_bytes=MAX_BODY_BYTES)
    async def put_room_keys(self, request: Request) -> BackupState:
        keys = {
            (room_id, session_id): key
            for room_id, room in request.body(RoomsBackup).rooms.items()
            for session_id, key in room.sessions.items()
        }
        return await self._backups.put_keys(request.requester, _version(request), keys)

    @endpoint(
        "PUT", ROOM_KEYS, operation="putRoomKeysByRoomId", rate=Rate.WRITE, max_body_bytes=MAX_BODY_BYTES
    )
    async def put_room_keys_by_room_id(self, request: Request) -> BackupState:
        sessions = request.body(RoomBackup).sessions
        keys = {(request.path["roomId"], session_id): key for session_id, key in sessions.items()}
        return await self._backups.put_keys(request.requester, _version(request), keys)

    @endpoint("PUT", KEY, operation="putRoomKeyBySessionId", rate=Rate.WRITE)
    async def put_room_key_by_session_id(self, request: Request) -> BackupState:
        name = (request.path["roomId"], request.path["sessionId"])
        keys = {name: request.body(KeyData)}
        return await self._backups.put_keys(request.requester, _version(request), keys)

    @endpoint("GET", KEYS, operation="getRoomKeys")
    async def get_room_keys(self, request: Request) -> Response:
        return Response(stream=await self._backups.get_keys(request.requester, _version(request)))

    @endpoint("GET", ROOM_KEYS, operation="getRoomKeysByRoomId")
    async def get_room_keys_by_room_id(self, request: Request) -> Response:
        pieces = await self._backups.get_keys_of_room(
            request.requester, _version(request), request.path["roomId"]
        )
        return Response(stream=pieces)

    @endpoint("GET", KEY, operation="getRoomKeyBySessionId")
    async def get_room_key_by_session_id(self, request: Request) -> bytes:
        room_id, session_id = request.path["roomId"], request.path["sessionId"]
        return await self._backups.get_key(request.requester, _version(request), room_id, session_id)

    @endpoint("DELETE", KEYS, operation="deleteRoomKeys", rate=Rate.WRITE)
    async def delete_room_keys(self, request: Request) -> BackupState:
        return await self._backups.delete_keys(request.requester, _version(request))

    @endpoint("DELETE", ROOM_KEYS, operation="deleteRoomKeysByRoomId", rate=Rate.WRITE)
    async def delete_room_keys_by_room_id(self, request: Request) -> BackupState:
        return await self._backups.delete_keys(request.requester, _version(request), request.path["roomId"])

    @endpoint("DELETE", KEY, operation="deleteRoomKeyBySessionId", rate=Rate.WRITE)
    async def delete_room_key_by_session_id(self, request: Request) -> BackupState:
        room_id, session_id = request.path["roomId"], request.path["sessionId"]
        return await self._backups.delete_keys(request.requester, _version(request), room_id, session_id)


def _version(request: Request) -> str:
    return request.query().required("version")
