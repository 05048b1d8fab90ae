"""What one client was told: of each room, and all together at one `pos`. Values."""

from collections.abc import Mapping
from typing import Final

import msgspec

from ranvier.services.sliding.request import NO_EXTENSIONS, Extensions
from ranvier.services.sliding.required_state import NO_STATE, RequiredState
from ranvier.services.sliding.windows import Shown

ALL_EVENTS: Final = 2**31 - 1
"""As `depth`: the timeline goes back to the room's beginning."""
MAX_MEMBERS: Final = 500
"""Members of a room that are remembered as told; beyond that, remembering starts anew."""


# Extensions that tell something of each room, as bits: plain numbers, for there are as many looks at them as rooms.
# They are stored.
ACCOUNT_DATA: Final = 1
RECEIPTS: Final = 2
ROOM_EXTENSIONS: Final = (ACCOUNT_DATA, RECEIPTS)
TYPING: Final = 4
"""Where it is stored only: the room is among `Knowledge.in_scope`."""
NO_EXTENSION: Final = 0


class Told(msgspec.Struct, frozen=True):
    """What the client knows of a room."""

    upto: int | None  # everything up to here; None: live, up to where the connection stands
    depth: int  # how many of the newest events it has without a gap
    required_state: RequiredState  # that was asked for then
    extensions: int  # bits: whose data of the room it has, as far as `upto`
    membership: str  # the user's
    is_direct: bool
    counts: tuple[int, int] | None = None  # unread: (notifications, highlights); None: not known
    members: frozenset[int] = frozenset()  # member events that came lazily

    def behind(self, position: int) -> "Told":
        """The same, when something happened after `position` and the client is not told of it."""
        return self if self.upto is not None else msgspec.structs.replace(self, upto=position)


UNSURE: Final = ""
"""As `membership`: the client may have been told of the room, and nobody knows what."""
PERHAPS_TOLD: Final = Told(None, 0, NO_STATE, NO_EXTENSION, UNSURE, False)


class Knowledge(msgspec.Struct, frozen=True):
    """What the client knows that has an answer."""

    answer: int  # random: its name
    position: int
    rooms: Mapping[int, Told]  # by room_nid
    account_data_upto: int | None = None  # global; None: never told
    device_lists_upto: int | None = None
    to_device_upto: int | None = None  # there were no messages beyond; None: not known
    in_scope: frozenset[int] | None = None  # rooms whose typing the client follows; None: not known
    shown: Shown | None = None  # windows of which all was told; None: not known
    extensions: Extensions = NO_EXTENSIONS  # that were enabled, if `shown` is known
    subscriptions_upto: int | None = None  # to threads; None: never told, or not known
    is_stale: bool = False  # the client may know more: what changed since is to be told from scratch


NOTHING_KNOWN: Final = Knowledge(0, 0, {})
