"""Spec: server-server API, "Joining Rooms"."""

from ranvier.core.identifiers import parse_user_id
from ranvier.http.federation.origin import origin_of, server_endpoint
from ranvier.http.request import Request
from ranvier.services.federation.admissions import Admissions
from ranvier.services.federation.offers import Offers

_OLDEST = "1"
"""The only version that a server knows which names none."""


class Joins:
    """Other servers' users who join rooms of ours."""

    def __init__(self, offers: Offers, admissions: Admissions) -> None:
        self._offers = offers
        self._admissions = admissions

    @server_endpoint("GET", "/_matrix/federation/v1/make_join/{roomId}/{userId}", operation="makeJoin")
    async def make_join(self, request: Request) -> bytes:
        return await self._offers.join(
            origin_of(request),
            request.room_id,
            parse_user_id(request.path["userId"]),
            request.query().all("ver") or [_OLDEST],
        )

    @server_endpoint("PUT", "/_matrix/federation/v2/send_join/{roomId}/{eventId}", operation="sendJoinV2")
    async def send_join(self, request: Request) -> bytes:
        return await self._admissions.join(
            origin_of(request),
            request.room_id,
            request.event_id,
            request.json(),
            omit_members=request.query().boolean("omit_members"),
        )

    # COMPAT: gone from the specification, but asked for by servers of before 2020.
    @server_endpoint("PUT", "/_matrix/federation/v1/send_join/{roomId}/{eventId}", operation="sendJoinV1")
    async def send_join_v1(self, request: Request) -> bytes:
        return b"[200,%b]" % await self.send_join(request)
