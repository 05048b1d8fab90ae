"""Retrieving events and states. Spec: server-server API, "Retrieving events", "Retrieving authorization chain"."""

from ranvier.core.identifiers import parse_event_id
from ranvier.http.federation.origin import origin_of, server_endpoint
from ranvier.http.request import Request
from ranvier.services.federation.serving import FoundEvent, Serving


class Events:
    """What is known of events and around them."""

    def __init__(self, serving: Serving) -> None:
        self._serving = serving

    @server_endpoint("GET", "/_matrix/federation/v1/event/{eventId}", operation="getEvent")
    async def get_event(self, request: Request) -> bytes:
        return await self._serving.event(origin_of(request), request.event_id)

    @server_endpoint("GET", "/_matrix/federation/v1/state/{roomId}", operation="getRoomState")
    async def get_room_state(self, request: Request) -> bytes:
        event_id = parse_event_id(request.query().required("event_id"))
        return await self._serving.state(origin_of(request), request.room_id, event_id)

    @server_endpoint("GET", "/_matrix/federation/v1/state_ids/{roomId}", operation="getRoomStateIds")
    async def get_room_state_ids(self, request: Request) -> bytes:
        event_id = parse_event_id(request.query().required("event_id"))
        return await self._serving.state_ids(origin_of(request), request.room_id, event_id)

    @server_endpoint("GET", "/_matrix/federation/v1/event_auth/{roomId}/{eventId}", operation="getEventAuth")
    async def get_event_auth(self, request: Request) -> bytes:
        return await self._serving.event_auth(
            origin_of(request),
            request.room_id,
            request.event_id,
        )

    @server_endpoint(
        "GET", "/_matrix/federation/v1/timestamp_to_event/{roomId}", operation="getEventByTimestamp"
    )
    async def get_event_by_timestamp(self, request: Request) -> FoundEvent:
        query = request.query()
        query.required("ts")
        return await self._serving.event_near(
            origin_of(request),
            request.room_id,
            query.integer("ts", 0),
            forwards=query.choice("dir", ("f", "b")) == "f",
        )
