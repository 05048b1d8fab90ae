"""Tags on rooms. Spec: client-server API, "Room Tagging"."""

from ranvier.core.canonical_json import JsonObject
from ranvier.core.identifiers import RoomID, UserID
from ranvier.http.endpoint import Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.accounts.account_data import AccountDataStore

_TAGS = "/_matrix/client/v3/user/{userId}/rooms/{roomId}/tags"


class Tags:
    """The endpoints at /tags."""

    def __init__(self, store: AccountDataStore) -> None:
        self._store = store

    @endpoint("GET", _TAGS, operation="getRoomTags", guests=True)
    async def get_room_tags(self, request: Request) -> JsonObject:
        return {"tags": await self._store.get_tags(request.requester, *_owner_and_room(request))}

    @endpoint("PUT", _TAGS + "/{tag}", operation="setRoomTag", rate=Rate.WRITE, guests=True)
    async def set_room_tag(self, request: Request) -> JsonObject:
        content = request.json(empty_is_object=True)
        await self._store.set_tag(request.requester, *_owner_and_room(request), request.path["tag"], content)
        return {}

    @endpoint("DELETE", _TAGS + "/{tag}", operation="deleteRoomTag", rate=Rate.WRITE, guests=True)
    async def delete_room_tag(self, request: Request) -> JsonObject:
        await self._store.delete_tag(request.requester, *_owner_and_room(request), request.path["tag"])
        return {}


def _owner_and_room(request: Request) -> tuple[UserID, RoomID]:
    return UserID(request.path["userId"]), request.room_id
