"""A room in one answer. Spec: client-server API, `GET /rooms/{roomId}/initialSync` (deprecated)."""

from typing import Any

from ranvier.core.tokens import encode_room_token
from ranvier.http.endpoint import endpoint
from ranvier.http.request import Request
from ranvier.http.responses import json_array, json_value
from ranvier.services.rooms.snapshots import Snapshots


class RoomInitialSync:
    """For clients of old."""

    def __init__(self, snapshots: Snapshots) -> None:
        self._snapshots = snapshots

    @endpoint(
        "GET",
        "/_matrix/client/v3/rooms/{roomId}/initialSync",
        operation="roomInitialSync",
        guests=True,
    )
    async def room_initial_sync(self, request: Request) -> dict[str, Any]:
        room_id = request.room_id
        room = await self._snapshots.get_room(request.requester, room_id)
        return {
            "room_id": room_id,
            "membership": room.membership,
            "messages": {
                "start": encode_room_token(room.start),
                "end": encode_room_token(room.end),
                "chunk": json_array(room.messages),
            },
            "state": json_array(room.state),
            "visibility": "public" if room.is_published else "private",
            "account_data": [
                {"type": type_, "content": json_value(content)} for type_, content in room.account_data
            ],
        }
