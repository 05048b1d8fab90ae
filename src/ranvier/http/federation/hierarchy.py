"""Spec: server-server API, "Spaces"."""

from ranvier.http.federation.origin import origin_of, server_endpoint
from ranvier.http.request import Request
from ranvier.services.federation.spaces import Spaces, SpaceShown


class SpacesOfThisServer:
    """GET /hierarchy/{roomId}."""

    def __init__(self, spaces: Spaces) -> None:
        self._spaces = spaces

    @server_endpoint("GET", "/_matrix/federation/v1/hierarchy/{roomId}", operation="getSpaceHierarchy")
    async def get_space_hierarchy(self, request: Request) -> SpaceShown:
        return await self._spaces.show(
            origin_of(request),
            request.room_id,
            suggested_only=request.query().boolean("suggested_only"),
        )
