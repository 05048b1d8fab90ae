"""Rejecting an invite to a room that this server is not in, or taking back a knock at it.

A user can always do that: if no server of the room takes the event, it counts here alone.
Spec: server-server API, "Leaving Rooms (Rejecting Invites)".
"""

import logging
from typing import Final

from ranvier.core.canonical_json import JsonObject, parse_object
from ranvier.core.errors import Forbidden
from ranvier.core.events.build import EventTemplate, Placement, build_event
from ranvier.core.events.pdu import Pdu
from ranvier.core.hashes import reference_hash
from ranvier.core.identifiers import EventID, RoomID, UserID
from ranvier.io.ports import RemoteFault
from ranvier.services.flows.handshake import Handshake
from ranvier.services.remote.requests import Ask
from ranvier.services.rooms.elsewhere import Elsewhere, Standing, list_servers_of
from ranvier.services.rooms.timeline import Author

log = logging.getLogger(__name__)

_BOUNDS: Final = Ask(method="PUT", path="", timeout_s=30.0, despite_standing=True)


class RemoteLeaving:
    """Leaves from outside."""

    def __init__(self, handshake: Handshake, elsewhere: Elsewhere, author: Author) -> None:
        self._handshake = handshake
        self._elsewhere = elsewhere
        self._author = author

    async def leave(self, user_id: UserID, room_id: RoomID, content: JsonObject) -> bool:
        """Leave; whoever has left already has nothing to do. False: the room is none of another server where
        the user is anything.

        Raises: Forbidden (the user is banned).
        """
        standing = await self._elsewhere.find(user_id, room_id)
        if standing is None:
            return False
        membership = standing.member.content.get("membership")
        if membership == "leave":
            return True
        if membership == "ban":
            raise Forbidden("You are banned from this room.")
        leave = await self._hand_in(standing, user_id, room_id, content)
        if leave is None:
            leave = self._build_own(standing, user_id, room_id, content)
        await self._elsewhere.record(leave, standing.version)
        return True

    async def _hand_in(
        self, standing: Standing, user_id: UserID, room_id: RoomID, content: JsonObject
    ) -> Pdu | None:
        """The event, if a server took it."""
        for server in self._handshake.candidates(list_servers_of(standing)):
            try:
                made = await self._handshake.make(server, room_id, user_id, content)
                if made.version != standing.version:
                    continue
                await self._handshake.hand_in(server, "v2/send_leave", made.pdu, _BOUNDS)
                return made.pdu
            except RemoteFault as fault:
                log.info("cannot leave %s through %s: %s", room_id, server, fault)
        return None

    def _build_own(self, standing: Standing, user_id: UserID, room_id: RoomID, content: JsonObject) -> Pdu:
        """An event that no other server will see."""
        author, version, member = self._author, standing.version, standing.member
        hashes = {}
        event_id = None
        if not version.hash_event_ids:
            hashes = {member.event_id: reference_hash(parse_object(member.json), version)}
            event_id = EventID(f"${author.randomness.text(18)}:{author.server}")
        template = EventTemplate(
            room_id=room_id, type="m.room.member", state_key=user_id, sender=user_id, content=content
        )
        placement = Placement(
            prev_events=[member.event_id],
            auth_events=[member.event_id],
            depth=member.depth + 1,
            origin_server_ts=author.clock.now_ms(),
            event_id=event_id,
            reference_hashes=hashes,
        )
        return build_event(template, placement, version, author.server, author.key)
