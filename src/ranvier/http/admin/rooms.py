"""Rooms: looking them up, blocking, entering and mending them."""

from typing import Any

import msgspec

from ranvier.core.errors import InvalidParam
from ranvier.core.identifiers import RoomID, parse_server_name, parse_user_id
from ranvier.http.admin.declaring import V1, administers, flag, is_backwards, page_of
from ranvier.http.request import Request
from ranvier.http.responses import json_array
from ranvier.services.administration.entering import Entering
from ranvier.services.administration.rooms import ORDERS, RoomFilter, Rooms
from ranvier.services.rooms.aliases import Aliases
from ranvier.services.rooms.hierarchy import MAX_DEPTH, MAX_PAGE, Hierarchies, TreePage, TreeWish

_OLD_ORDERS = {"alphabetical": "name", "size": "joined_members"}
MAX_SERVERS = 20
DEFAULT_TREE_PAGE = 50


class Block(msgspec.Struct, frozen=True):
    block: bool


class Joiner(msgspec.Struct, frozen=True):
    user_id: str


class NewRoomAdmin(msgspec.Struct, frozen=True):
    user_id: str | None = None


class RoomEndpoints:
    """What rooms there are, and what they are like."""

    def __init__(self, rooms: Rooms, hierarchies: Hierarchies) -> None:
        """`hierarchies` show everything."""
        self._rooms = rooms
        self._hierarchies = hierarchies

    @administers("GET", f"{V1}/rooms", operation="listRooms")
    async def list_rooms(self, request: Request) -> dict[str, Any]:
        query = request.query()
        order = query.text("order_by", "name")
        order = _OLD_ORDERS.get(order, order)
        if order not in ORDERS:
            raise InvalidParam(f"The query parameter order_by must be one of: {', '.join(ORDERS)}.")
        wanted = RoomFilter(
            search_term=query.text("search_term") or None,
            is_public=flag(query, "public_rooms"),
            is_empty=flag(query, "empty_rooms"),
        )
        part = page_of(query)
        page = await self._rooms.list_page(wanted, order, backwards=is_backwards(query), **part)
        offset, end = part["offset"], part["offset"] + len(page.rooms)
        answer: dict[str, Any] = {
            "rooms": [msgspec.to_builtins(room) for room in page.rooms],
            "offset": offset,
            "total_rooms": page.total,
        }
        if page.rooms and end < page.total:
            answer["next_batch"] = end
        if offset > 0:
            answer["prev_batch"] = max(0, offset - part["limit"])
        return answer

    @administers("GET", f"{V1}/rooms/{{roomId}}", operation="getRoom")
    async def get_room(self, request: Request) -> dict[str, Any]:
        info, details = await self._rooms.get(request.room_id)
        return {**msgspec.to_builtins(info), **msgspec.to_builtins(details)}

    @administers("GET", f"{V1}/rooms/{{roomId}}/members", operation="listMembersOfRoom")
    async def list_members(self, request: Request) -> dict[str, Any]:
        members = await self._rooms.list_members(request.room_id)
        return {"members": members, "total": len(members)}

    @administers("GET", f"{V1}/rooms/{{roomId}}/state", operation="listStateOfRoom", looks_at_content=True)
    async def list_state(self, request: Request) -> dict[str, Any]:
        state = await self._rooms.list_state(request.room_id, request.query().text("type"))
        return {"state": json_array(state)}

    @administers("GET", f"{V1}/rooms/{{roomId}}/hierarchy", operation="getHierarchyOfRoom")
    async def get_hierarchy(self, request: Request) -> TreePage:
        query = request.query()
        wish = TreeWish(
            max_depth=query.integer("max_depth", MAX_DEPTH, most=MAX_DEPTH),
            limit=query.integer("limit", DEFAULT_TREE_PAGE, least=1, most=MAX_PAGE),
            since=query.text("from"),
        )
        room_id = request.room_id
        await self._rooms.get(room_id)
        return await self._hierarchies.get_page(request.requester, room_id, wish)

    @administers("GET", f"{V1}/rooms/{{roomId}}/block", operation="isRoomBlocked")
    async def is_blocked(self, request: Request) -> dict[str, Any]:
        blocker = await self._rooms.find_blocker(request.room_id)
        return {"block": False} if blocker is None else {"block": True, "user_id": blocker}

    @administers("PUT", f"{V1}/rooms/{{roomId}}/block", operation="blockRoom")
    async def block(self, request: Request) -> Block:
        body = request.body(Block)
        await self._rooms.block(request.requester, request.room_id, is_blocked=body.block)
        return body

    @administers("GET", f"{V1}/statistics/database/rooms", operation="listLargestRooms")
    async def list_largest(self, request: Request) -> dict[str, Any]:
        return {"rooms": await self._rooms.list_largest()}


class RoomEntryEndpoints:
    """Bringing users into rooms and giving them power there; `roomIdOrAlias` names the room."""

    def __init__(self, entering: Entering, rooms: Rooms, aliases: Aliases) -> None:
        self._entering = entering
        self._rooms = rooms
        self._aliases = aliases

    @administers("POST", f"{V1}/join/{{roomIdOrAlias}}", operation="joinRoomAs")
    async def join_room_as(self, request: Request) -> dict[str, str]:
        body = request.body(Joiner)
        query = request.query()
        named = [*query.all("server_name"), *query.all("via")][:MAX_SERVERS]
        way = await self._aliases.find_way(request.path["roomIdOrAlias"])
        servers = [*(parse_server_name(name) for name in named), *way.servers]
        user_id = parse_user_id(body.user_id)
        await self._entering.join(request.requester, user_id, way.room_id, servers)
        return {"room_id": way.room_id}

    @administers("POST", f"{V1}/rooms/{{roomIdOrAlias}}/make_room_admin", operation="makeRoomAdmin")
    async def make_room_admin(self, request: Request) -> dict[str, str]:
        body = request.body(NewRoomAdmin, empty_is_object=True)
        user_id = request.requester.user_id if body.user_id is None else parse_user_id(body.user_id)
        await self._entering.make_room_admin(await self._named(request), user_id)
        return {}

    @administers("GET", f"{V1}/rooms/{{roomIdOrAlias}}/forward_extremities", operation="listExtremities")
    async def list_extremities(self, request: Request) -> dict[str, Any]:
        heads = await self._rooms.list_heads(await self._named(request))
        return {"count": len(heads), "results": [msgspec.to_builtins(one) for one in heads]}

    @administers("DELETE", f"{V1}/rooms/{{roomIdOrAlias}}/forward_extremities", operation="mergeExtremities")
    async def merge_extremities(self, request: Request) -> dict[str, int]:
        return {"deleted": await self._entering.merge_heads(await self._named(request))}

    async def _named(self, request: Request) -> RoomID:
        return await self._aliases.find_room(request.path["roomIdOrAlias"])
