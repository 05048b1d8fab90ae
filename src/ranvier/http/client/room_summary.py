"""A room at a glance. Spec: client-server API, GET /room_summary/{roomIdOrAlias} (v1.15)."""

from ranvier.core.identifiers import ServerName, parse_server_name
from ranvier.http.endpoint import Auth, endpoint
from ranvier.http.request import Request
from ranvier.services.rooms.aliases import Aliases
from ranvier.services.rooms.room_summary import Previews, Summary

MAX_VIA = 10
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
        way = await self._aliases.find_way(request.path["roomIdOrAlias"])
        servers = (*_servers(request), *way.servers)
        return await self._previews.get_summary(request.requester_or_none, way.room_id, servers)


def _servers(request: Request) -> list[ServerName]:
    return [parse_server_name(name) for name in request.query().all("via")[:MAX_VIA]]
