"""Rooms shared with another user. Spec: client-server API, GET /mutual_rooms (v1.19)."""

from ranvier.core.identifiers import parse_user_id
from ranvier.http.endpoint import endpoint
from ranvier.http.request import Request
from ranvier.services.rooms.mutual_rooms import MutualRooms, SharedRooms


class MutualRoomsEndpoint:
    """GET /mutual_rooms."""

    def __init__(self, mutual_rooms: MutualRooms) -> None:
        self._mutual_rooms = mutual_rooms

    @endpoint(
        "GET",
        "/_matrix/client/v1/mutual_rooms",
        "/_matrix/client/unstable/uk.half-shot.msc2666/user/mutual_rooms",  # as clients of today ask
        operation="getMutualRooms",
    )
    async def get_mutual_rooms(self, request: Request) -> SharedRooms:
        query = request.query()
        user_id = parse_user_id(query.required("user_id"))
        return await self._mutual_rooms.list_shared(request.requester, user_id, query.text("from"))
