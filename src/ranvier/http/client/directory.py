"""Room aliases. Spec: client-server API, "Room aliases"."""

import msgspec

from ranvier.core.identifiers import RoomAlias, parse_room_alias, parse_room_id
from ranvier.http.endpoint import Auth, Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.rooms.aliases import Aliases, ResolvedAlias

_ALIAS = "/_matrix/client/v3/directory/room/{roomAlias}"


class RoomIdBody(msgspec.Struct, frozen=True):
    room_id: str


class AliasesAnswer(msgspec.Struct, frozen=True):
    aliases: list[RoomAlias]


class Directory:
    """Aliases and where they lead."""

    def __init__(self, aliases: Aliases) -> None:
        self._aliases = aliases

    @endpoint("GET", _ALIAS, operation="getRoomIdByAlias", auth=Auth.NONE)
    async def get_room_id_by_alias(self, request: Request) -> ResolvedAlias:
        return await self._aliases.resolve(_alias(request))

    @endpoint("PUT", _ALIAS, operation="setRoomAlias", rate=Rate.WRITE)
    async def set_room_alias(self, request: Request) -> dict[str, object]:
        alias = _alias(request)
        room_id = parse_room_id(request.body(RoomIdBody).room_id)
        await self._aliases.create(request.requester, alias, room_id)
        return {}

    @endpoint("DELETE", _ALIAS, operation="deleteRoomAlias", rate=Rate.WRITE)
    async def delete_room_alias(self, request: Request) -> dict[str, object]:
        await self._aliases.delete(request.requester, _alias(request))
        return {}

    @endpoint("GET", "/_matrix/client/v3/rooms/{roomId}/aliases", operation="getLocalAliases")
    async def get_local_aliases(self, request: Request) -> AliasesAnswer:
        room_id = request.room_id
        return AliasesAnswer(await self._aliases.list_of_room(request.requester, room_id))


def _alias(request: Request) -> RoomAlias:
    return parse_room_alias(request.path["roomAlias"])
