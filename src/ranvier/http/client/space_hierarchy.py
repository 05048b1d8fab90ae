"""The tree of a space. Spec: client-server API, GET /rooms/{roomId}/hierarchy."""

from ranvier.http.endpoint import endpoint
from ranvier.http.request import Request
from ranvier.services.rooms.hierarchy import MAX_DEPTH, MAX_PAGE, Hierarchies, TreePage, TreeWish


class SpaceHierarchy:
    """GET /rooms/{roomId}/hierarchy."""

    def __init__(self, hierarchies: Hierarchies) -> None:
        self._hierarchies = hierarchies

    @endpoint(
        "GET",
        "/_matrix/client/v1/rooms/{roomId}/hierarchy",
        "/_matrix/client/unstable/org.matrix.msc2946/rooms/{roomId}/hierarchy",
        operation="getSpaceHierarchy",
    )
    async def get_space_hierarchy(self, request: Request) -> TreePage:
        query = request.query()
        wish = TreeWish(
            suggested_only=query.boolean("suggested_only"),
            max_depth=query.integer("max_depth", MAX_DEPTH, most=MAX_DEPTH),
            limit=query.integer("limit", MAX_PAGE, least=1, most=MAX_PAGE),
            since=query.text("from"),
        )
        room_id = request.room_id
        return await self._hierarchies.get_page(request.requester, room_id, wish)
