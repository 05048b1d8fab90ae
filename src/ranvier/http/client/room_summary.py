"""A room at a glance. Spec: client-server API, GET /room_summary/{roomIdOrAlias} (v1.15)."""

from ranvier.http.endpoint import Auth, endpoint
from ranvier.http.request import Request
from ranvier.services.rooms.aliases import Aliases
from ranvier.services.rooms.room_summary import Previews, Summary

_UNSTABLE = "/_matrix/client/unstable/im.nheko.summary"


class RoomSummaries:
    """Who may not see a room learns nothing of it, without an account, too."""

    def __init__(self, previews: Previews, aliases: Aliases) -> None:
        self._previews = previews
        self._aliases = aliases

    @endpoint(
        "GET",
        "/_matrix/client/v1/room_summary/{roomIdOrAlias}",
        f"{_UNSTABLE}/summary/{{roomIdOrAlias}}",  # MSC3266, as clients of today ask
        f"{_UNSTABLE}/rooms/{{roomIdOrAlias}}/summary",
        operation="getRoomSummary",
        auth=Auth.OPTIONAL,
        guests=True,
    )
    async def get_room_summary(self, request: Request) -> Summary:
        room_id = await self._aliases.find_room(request.path["roomIdOrAlias"])
        return await self._previews.get_summary(request.requester_or_none, room_id)
