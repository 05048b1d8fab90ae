"""Spec: server-server API, "Leaving Rooms (Rejecting Invites)"."""

from ranvier.core.identifiers import parse_user_id
from ranvier.http.federation.origin import origin_of, server_endpoint
from ranvier.http.request import Request
from ranvier.services.federation.admissions import Admissions
from ranvier.services.federation.offers import Offers


class Leaves:
    """Other servers' users who leave rooms of ours from outside: who reject an invite, or take back a knock."""

    def __init__(self, offers: Offers, admissions: Admissions) -> None:
        self._offers = offers
        self._admissions = admissions

    @server_endpoint("GET", "/_matrix/federation/v1/make_leave/{roomId}/{userId}", operation="makeLeave")
    async def make_leave(self, request: Request) -> bytes:
        return await self._offers.leave(
            origin_of(request), request.room_id, parse_user_id(request.path["userId"])
        )

    @server_endpoint("PUT", "/_matrix/federation/v2/send_leave/{roomId}/{eventId}", operation="sendLeaveV2")
    async def send_leave(self, request: Request) -> dict[str, object]:
        await self._admissions.leave(
            origin_of(request),
            request.room_id,
            request.event_id,
            request.json(),
        )
        return {}

    # COMPAT: gone from the specification, but asked for by servers of before 2020.
    @server_endpoint("PUT", "/_matrix/federation/v1/send_leave/{roomId}/{eventId}", operation="sendLeaveV1")
    async def send_leave_v1(self, request: Request) -> list[object]:
        return [200, await self.send_leave(request)]
