"""Invites that are taken back and knocks that are refused, in rooms that this server is not in.

The room cannot be asked, so the event is believed if it says which invite or knock it ends; an invite may be
ended by whoever made it.
"""

from collections.abc import Sequence
from typing import Final

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import BadIdentifier
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import RoomID, ServerName, UserID, parse_user_id, server_of
from ranvier.services.rooms.admission import Reasons
from ranvier.services.rooms.checking import Checking, RoomRef
from ranvier.services.rooms.elsewhere import Elsewhere, Standing

_ENDS: Final = ("leave", "ban")


class Withdrawals:
    """Takes them."""

    def __init__(self, own_server: ServerName, elsewhere: Elsewhere, checking: Checking) -> None:
        self._own_server = own_server
        self._elsewhere = elsewhere
        self._checking = checking

    async def take(self, room_id: RoomID, events: Sequence[JsonObject]) -> Reasons:
        """Take those of the events that end an invite or a knock of a user of this server; the others are not
        in the answer.

        Raises: StoreFault.
        """
        taken: Reasons = {}
        for event in events:
            user_id = self._find_user(event)
            standing = None if user_id is None else await self._elsewhere.find(user_id, room_id)
            if standing is None:
                continue
            room = RoomRef(0, room_id, standing.version)
            (pdu,) = await self._checking.check(room, (event,))
            if isinstance(pdu, Pdu) and _ends(pdu, standing):
                await self._elsewhere.record(pdu, standing.version)
                taken[pdu.event_id] = None
        return taken

    def _find_user(self, event: JsonObject) -> UserID | None:
        """Whom of here the event sends away."""
        content = event.get("content")
        membership = content.get("membership") if isinstance(content, dict) else None
        if event.get("type") != "m.room.member" or membership not in _ENDS:
            return None
        try:
            user_id = parse_user_id(event.get("state_key"))
        except BadIdentifier:
            return None
        return user_id if server_of(user_id) == self._own_server else None


def _ends(pdu: Pdu, standing: Standing) -> bool:
    member = standing.member
    if member.event_id not in pdu.auth_events:
        return False
    match member.content.get("membership"):
        case "invite":
            # COMPAT(complement): another moderator's word counts nowhere, even one of the same server.
            return pdu.sender == member.sender
        case "knock":
            return True
        case _:
            return False
