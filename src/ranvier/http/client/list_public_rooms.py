"""The published room directory. Spec: client-server API, "Published room directory"."""

from typing import Annotated, Literal

import msgspec

from ranvier.core.identifiers import ServerName, parse_server_name
from ranvier.http.endpoint import Auth, Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.rooms.public_rooms import MAX_PAGE, PublicRooms, RoomsPage, RoomsWish

_VISIBILITY = "/_matrix/client/v3/directory/list/room/{roomId}"


class VisibilityBody(msgspec.Struct, frozen=True):
    visibility: Literal["public", "private"] = "public"


class FilterBody(msgspec.Struct, frozen=True):
    generic_search_term: str | None = None
    room_types: Annotated[tuple[str | None, ...], msgspec.Meta(max_length=100)] | None = None


class RoomsBody(msgspec.Struct, frozen=True):
    limit: Annotated[int, msgspec.Meta(ge=0)] | None = None
    since: str | None = None
    filter: FilterBody | None = None
    include_all_networks: bool = False
    third_party_instance_id: str | None = None


class ListPublicRooms:
    """What is published, and whether a room is."""

    def __init__(self, public_rooms: PublicRooms) -> None:
        self._public_rooms = public_rooms

    @endpoint("GET", _VISIBILITY, operation="getRoomVisibilityOnDirectory", auth=Auth.NONE)
    async def get_room_visibility_on_directory(self, request: Request) -> VisibilityBody:
        is_published = await self._public_rooms.is_published(request.room_id)
        return VisibilityBody("public" if is_published else "private")

    @endpoint("PUT", _VISIBILITY, operation="setRoomVisibilityOnDirectory", rate=Rate.WRITE)
    async def set_room_visibility_on_directory(self, request: Request) -> dict[str, object]:
        body = request.body(VisibilityBody, empty_is_object=True)
        room_id = request.room_id
        await self._public_rooms.publish(request.requester, room_id, is_published=body.visibility == "public")
        return {}

    @endpoint("GET", "/_matrix/client/v3/publicRooms", operation="getPublicRooms", auth=Auth.NONE)
    async def get_public_rooms(self, request: Request) -> RoomsPage:
        query = request.query()
        wish = RoomsWish(limit=query.integer("limit", MAX_PAGE, most=MAX_PAGE), since=query.text("since"))
        return await self._public_rooms.list_rooms(wish, _server(request))

    @endpoint("POST", "/_matrix/client/v3/publicRooms", operation="queryPublicRooms", rate=Rate.READ)
    async def query_public_rooms(self, request: Request) -> RoomsPage:
        body = request.body(RoomsBody, empty_is_object=True)
        wanted = body.filter or FilterBody()
        wish = RoomsWish(
            limit=MAX_PAGE if body.limit is None else body.limit,
            since=body.since,
            text=wanted.generic_search_term,
            room_types=wanted.room_types,
            networks=None if body.include_all_networks else (body.third_party_instance_id or "",),
        )
        return await self._public_rooms.list_rooms(wish, _server(request))


def _server(request: Request) -> ServerName | None:
    server = request.query().text("server")
    return None if server is None else parse_server_name(server)
