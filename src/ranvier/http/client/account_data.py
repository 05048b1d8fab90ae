"""What clients keep here. Spec: client-server API, "Client Config"; DELETE: MSC3391."""

from ranvier.core.canonical_json import JsonObject
from ranvier.core.identifiers import RoomID, UserID, parse_room_id
from ranvier.http.endpoint import Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.accounts.account_data import AccountDataStore

_GLOBAL = "/user/{userId}/account_data/{type}"
_ROOM = "/user/{userId}/rooms/{roomId}/account_data/{type}"
_STABLE = "/_matrix/client/v3"
_UNSTABLE = "/_matrix/client/unstable/org.matrix.msc3391"


class AccountData:
    """The endpoints at /account_data."""

    def __init__(self, store: AccountDataStore) -> None:
        self._store = store

    @endpoint("PUT", _STABLE + _GLOBAL, operation="setAccountData", rate=Rate.WRITE, guests=True)
    @endpoint("PUT", _STABLE + _ROOM, operation="setAccountDataPerRoom", rate=Rate.WRITE, guests=True)
    async def set_account_data(self, request: Request) -> JsonObject:
        await self._store.set(
            request.requester, *_owner_and_room(request), request.path["type"], request.json()
        )
        return {}

    @endpoint("GET", _STABLE + _GLOBAL, operation="getAccountData", guests=True)
    @endpoint("GET", _STABLE + _ROOM, operation="getAccountDataPerRoom", guests=True)
    async def get_account_data(self, request: Request) -> bytes:
        return await self._store.get(request.requester, *_owner_and_room(request), request.path["type"])

    @endpoint("DELETE", _UNSTABLE + _GLOBAL, operation="deleteAccountData", rate=Rate.WRITE, guests=True)
    @endpoint("DELETE", _UNSTABLE + _ROOM, operation="deleteAccountDataPerRoom", rate=Rate.WRITE, guests=True)
    async def delete_account_data(self, request: Request) -> JsonObject:
        await self._store.delete(request.requester, *_owner_and_room(request), request.path["type"])
        return {}


def _owner_and_room(request: Request) -> tuple[UserID, RoomID | None]:
    """Who is named in the path (compared with who asks, never looked up), and which room, if one is."""
    room_id = request.path.get("roomId")
    return UserID(request.path["userId"]), None if room_id is None else parse_room_id(room_id)
