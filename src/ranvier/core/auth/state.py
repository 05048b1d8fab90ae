"""A room's state as the authorization rules read it."""

from collections.abc import Callable

import msgspec

from ranvier.core.auth.power import PowerLevels
from ranvier.core.events.pdu import Pdu
from ranvier.core.room_versions import RoomVersion

StateLookup = Callable[[str, str], Pdu | None]
"""(type, state_key) to the event that fills this slot, or None."""


class AuthState(msgspec.Struct, frozen=True, eq=False):
    """What the rules beyond the federation rule may ask about the room."""

    lookup: StateLookup
    create: Pdu
    power: PowerLevels
    version: RoomVersion

    def membership(self, user_id: str) -> object:
        """content.membership of the user's member event (any JSON value), None without such an event."""
        event = self.lookup("m.room.member", user_id)
        return None if event is None else event.content.get("membership")

    def join_rule(self) -> object:
        """content.join_rule (any JSON value); "invite" where the room has no join rules."""
        event = self.lookup("m.room.join_rules", "")
        return "invite" if event is None else event.content.get("join_rule", "invite")
