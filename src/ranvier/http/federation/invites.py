"""Spec: server-server API, "Inviting to a room"."""

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import IncompatibleRoomVersion
from ranvier.http.federation.origin import origin_of, server_endpoint
from ranvier.http.request import Request
from ranvier.services.federation.invitations import Invitations


class InviteBody(msgspec.Struct, frozen=True):
    room_version: str
    event: JsonObject
    invite_room_state: list[object] = []


class Invites:
    """Invites of users of this server."""

    def __init__(self, invitations: Invitations) -> None:
        self._invitations = invitations

    @server_endpoint("PUT", "/_matrix/federation/v2/invite/{roomId}/{eventId}", operation="sendInviteV2")
    async def send_invite_v2(self, request: Request) -> bytes:
        body = request.body(InviteBody)
        signed = await self._invitations.invite(
            origin_of(request),
            request.room_id,
            request.event_id,
            body.room_version,
            body.event,
            body.invite_room_state,
        )
        return b'{"event":%b}' % signed

    @server_endpoint("PUT", "/_matrix/federation/v1/invite/{roomId}/{eventId}", operation="sendInviteV1")
    async def send_invite_v1(self, request: Request) -> bytes:
        event = request.json()
        # Servers that use this one know rooms of versions 1 and 2 only, whose events have the same form.
        if "event_id" not in event:
            raise IncompatibleRoomVersion("Invites to rooms of version 3 and up go to v2 of this endpoint.")
        unsigned = event.get("unsigned")
        shown = unsigned.get("invite_room_state") if isinstance(unsigned, dict) else None
        signed = await self._invitations.invite(
            origin_of(request),
            request.room_id,
            request.event_id,
            "1",
            event,
            shown if isinstance(shown, list) else [],
        )
        return b'[200,{"event":%b}]' % signed
