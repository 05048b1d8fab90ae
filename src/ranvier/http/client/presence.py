"""Presence. Spec: client-server API, "Presence"."""

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.identifiers import parse_user_id
from ranvier.http.endpoint import Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.ephemeral.presence import PresenceShown, PresenceTracker, parse_state


class PresenceBody(msgspec.Struct, frozen=True):
    presence: str
    status_msg: str | None = None


class PresenceEndpoints:
    """Who is online."""

    def __init__(self, tracker: PresenceTracker) -> None:
        self._tracker = tracker

    @endpoint(
        "PUT",
        "/_matrix/client/v3/presence/{userId}/status",
        operation="setPresence",
        rate=Rate.WRITE,
    )
    async def set_presence(self, request: Request) -> JsonObject:
        body = request.body(PresenceBody)
        await self._tracker.set_presence(
            request.requester, request.path["userId"], parse_state(body.presence), body.status_msg
        )
        return {}

    @endpoint("GET", "/_matrix/client/v3/presence/{userId}/status", operation="getPresence")
    async def get_presence(self, request: Request) -> PresenceShown:
        return await self._tracker.find_presence(request.requester, parse_user_id(request.path["userId"]))
