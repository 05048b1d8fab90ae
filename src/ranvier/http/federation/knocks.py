"""Spec: server-server API, "Knocking upon a room"."""

from ranvier.core.errors import MissingParam
from ranvier.core.identifiers import parse_user_id
from ranvier.http.federation.origin import origin_of, server_endpoint
from ranvier.http.request import Request
from ranvier.services.federation.admissions import Admissions
from ranvier.services.federation.offers import Offers


class Knocks:
    """Other servers' users who knock at rooms of ours."""

    def __init__(self, offers: Offers, admissions: Admissions) -> None:
        self._offers = offers
        self._admissions = admissions

    @server_endpoint("GET", "/_matrix/federation/v1/make_knock/{roomId}/{userId}", operation="makeKnock")
    async def make_knock(self, request: Request) -> bytes:
        versions = request.query().all("ver")
        if not versions:
            raise MissingParam("The query parameter ver is missing.")
        return await self._offers.knock(
            origin_of(request),
            request.room_id,
            parse_user_id(request.path["userId"]),
            versions,
        )

    @server_endpoint("PUT", "/_matrix/federation/v1/send_knock/{roomId}/{eventId}", operation="sendKnock")
    async def send_knock(self, request: Request) -> bytes:
        return await self._admissions.knock(
            origin_of(request),
            request.room_id,
            request.event_id,
            request.json(),
        )
