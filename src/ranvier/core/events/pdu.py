"""An event as servers exchange it, in a parsed view that keeps its wire form.

What the room thinks of an event (rejected, soft-failed, redacted) is not part of it: the store knows that.
"""

from collections.abc import Mapping

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.identifiers import EventID, RoomID, StateKey, UserID


class Pdu(msgspec.Struct, frozen=True, eq=False, kw_only=True, gc=False):
    """One event of a room. Made by `events.parse` from bytes or by `events.build` from a template.

    Two Pdus are the same event if and only if their ids are equal.
    """

    event_id: EventID
    room_id: RoomID  # also in version 12, where the create event itself does not carry it
    sender: UserID
    type: str
    state_key: str | None = None  # None: not a state event
    content: JsonObject
    origin_server_ts: int  # ms since the epoch, as the sender's server claims
    depth: int
    prev_events: tuple[EventID, ...]
    auth_events: tuple[EventID, ...]
    redacts: EventID | None = None  # wherever the room version keeps it
    signatures: Mapping[str, Mapping[str, str]]  # server -> key id -> unpadded base64
    json: bytes  # canonical JSON of the whole event, signatures included, `unsigned` left out

    @property
    def slot(self) -> StateKey:
        """(type, state_key). Only for state events: raises TypeError otherwise."""
        if self.state_key is None:
            raise TypeError(f"{self.event_id} is not a state event")
        return self.type, self.state_key

    @property
    def is_state(self) -> bool:
        return self.state_key is not None

    def __hash__(self) -> int:
        return hash(self.event_id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pdu) and self.event_id == other.event_id
