"""Spec: server-server API, "Published Room Directory"."""

from ranvier.core.room_versions import KNOWN_ROOM_VERSIONS
from ranvier.http.client.list_public_rooms import FilterBody, RoomsBody
from ranvier.http.federation.origin import server_endpoint
from ranvier.http.request import Request
from ranvier.services.rooms.public_rooms import MAX_PAGE, PublicRooms, RoomsPage, RoomsWish

_PATH = "/_matrix/federation/v1/publicRooms"
_FEDERATED = tuple(version.name for version in KNOWN_ROOM_VERSIONS.values() if version.is_federated)


class PublicRoomsOfThisServer:
    """The directory as other servers page through it."""

    def __init__(self, public_rooms: PublicRooms) -> None:
        self._public_rooms = public_rooms

    @server_endpoint("GET", _PATH, operation="getPublicRooms")
    async def get_public_rooms(self, request: Request) -> RoomsPage:
        query = request.query()
        wish = RoomsWish(
            limit=query.integer("limit", 0, most=MAX_PAGE) or MAX_PAGE,
            since=query.text("since"),
            versions=_FEDERATED,
            networks=_networks(query.boolean("include_all_networks"), query.text("third_party_instance_id")),
        )
        return await self._public_rooms.list_rooms(wish)

    @server_endpoint("POST", _PATH, operation="queryPublicRooms")
    async def query_public_rooms(self, request: Request) -> RoomsPage:
        body = request.body(RoomsBody, empty_is_object=True)
        wanted = body.filter or FilterBody()
        wish = RoomsWish(
            limit=body.limit or MAX_PAGE,
            since=body.since,
            text=wanted.generic_search_term,
            room_types=wanted.room_types,
            versions=_FEDERATED,
            networks=_networks(body.include_all_networks, body.third_party_instance_id),
        )
        return await self._public_rooms.list_rooms(wish)


def _networks(include_all: bool, instance_id: str | None) -> tuple[str, ...] | None:
    return None if include_all else (instance_id or "",)
