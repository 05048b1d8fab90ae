"""Creating rooms. Spec: client-server API, "Creation"."""

import msgspec

from ranvier.core.identifiers import RoomID
from ranvier.http.endpoint import Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.rooms.creating import Creating
from ranvier.services.rooms.new_room import NewRoom


class RoomIdAnswer(msgspec.Struct, frozen=True):
    room_id: RoomID


class CreateRoom:
    """POST /createRoom."""

    def __init__(self, creating: Creating) -> None:
        self._creating = creating

    @endpoint("POST", "/_matrix/client/v3/createRoom", operation="createRoom", rate=Rate.WRITE)
    async def create_room(self, request: Request) -> RoomIdAnswer:
        return RoomIdAnswer(await self._creating.create(request.requester, request.body(NewRoom)))
