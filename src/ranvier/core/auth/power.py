"""Power levels: who may do what in a room.

`PowerLevels` is a view on the content of m.room.power_levels: it is made in constant time and reads a level
only when it is asked for, since that content may name thousands of users of whom a check needs one or two.
Reading never fails: what is no level under the room version's rules counts as absent. Whether such content
may enter a room is decided by `power_change`.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.events.pdu import Pdu
from ranvier.core.limits import MAX_SAFE_INTEGER, MIN_SAFE_INTEGER
from ranvier.core.room_versions import RoomVersion

CREATOR_LEVEL: Final = MAX_SAFE_INTEGER + 1
"""The level of a privileged creator (v12): above every level that canonical JSON can express."""

DEFAULT_LEVELS: Final[Mapping[str, int]] = {
    "users_default": 0,
    "events_default": 0,
    "state_default": 50,
    "ban": 50,
    "redact": 50,
    "kick": 50,
    "invite": 0,
}
"""What holds for each single level that m.room.power_levels leaves out, or when there is no such event."""

_UNPRIVILEGED_CREATOR_LEVEL: Final = 100

# Up to v9 levels are not bound to canonical JSON's integers but to what a double can hold.
_MAX_DOUBLE: Final = (2**53 - 1) * 2**971
_MAX_DOUBLE_DIGITS: Final = 309

_EMPTY: Final[JsonObject] = {}


class PowerLevels(msgspec.Struct, frozen=True, eq=False):
    """The levels of one room at one point. Make it with `from_events`; holds until either event changes."""

    content: JsonObject
    users: JsonObject
    events: JsonObject
    creators: frozenset[str]
    version: RoomVersion
    has_event: bool

    @classmethod
    def from_events(cls, create: Pdu | None, power_levels: Pdu | None, version: RoomVersion) -> "PowerLevels":
        """The levels that the room's m.room.create and m.room.power_levels define together.

        Without a power levels event, defaults hold and creators have 100; without a create event, as happens
        when a walk over auth events does not reach it, nobody is a creator. Never raises. Cost: O(1).
        """
        creators = creators_of(create, version) if create is not None else frozenset[str]()
        if power_levels is None:
            return cls(_EMPTY, _EMPTY, _EMPTY, creators, version, False)
        content = power_levels.content
        users = content.get("users")
        events = content.get("events")
        return cls(
            content,
            users if type(users) is dict else _EMPTY,
            events if type(events) is dict else _EMPTY,
            creators,
            version,
            True,
        )

    def user_level(self, user_id: str) -> int:
        """The level of a user, whether or not in the room."""
        if user_id in self.creators:
            if self.version.auth.privileged_creators:
                return CREATOR_LEVEL
            if not self.has_event:
                return _UNPRIVILEGED_CREATOR_LEVEL
        value = self.users.get(user_id)
        if value is not None:
            level = parse_level(value, self.version)
            if level is not None:
                return level
        return self.single_level("users_default")

    def event_level(self, event_type: str, *, is_state: bool) -> int:
        """The level required to send an event of this type: the rules' *required power level*."""
        value = self.events.get(event_type)
        if value is not None:
            level = parse_level(value, self.version)
            if level is not None:
                return level
        return self.single_level("state_default" if is_state else "events_default")

    def single_level(self, name: str) -> int:
        """One of the levels of `DEFAULT_LEVELS`, by its name."""
        value = self.content.get(name)
        if value is not None:
            level = parse_level(value, self.version)
            if level is not None:
                return level
        return DEFAULT_LEVELS[name]

    @property
    def ban(self) -> int:
        return self.single_level("ban")

    @property
    def kick(self) -> int:
        return self.single_level("kick")

    @property
    def invite(self) -> int:
        return self.single_level("invite")

    @property
    def redact(self) -> int:
        return self.single_level("redact")


def creators_of(create: Pdu, version: RoomVersion) -> frozenset[str]:
    """The room's creators: content's `creator` (to v10), the sender (v11), and `additional_creators` (v12).

    Empty when an old create event has no usable `creator`. Never raises.
    """
    rules = version.auth
    if rules.creator_in_content:
        creator = create.content.get("creator")
        return frozenset((creator,)) if isinstance(creator, str) else frozenset()
    if not rules.privileged_creators:
        return frozenset((create.sender,))
    additional = create.content.get("additional_creators")
    if not isinstance(additional, list):
        return frozenset((create.sender,))
    return frozenset((create.sender, *(user for user in additional if isinstance(user, str))))


def may_redact(redaction: Pdu, target: Pdu, power: PowerLevels) -> bool:
    """Whether an accepted redaction takes effect on its target.

    `power` is the room's state before the redaction. That both events are valid, known and of one room is for
    the caller to check. Never raises.
    Spec: rooms/v3.md, "Handling redactions"; rooms/v1.md, rule 11.
    """
    if power.user_level(redaction.sender) >= power.redact:
        return True
    if power.version.auth.redaction_needs_level:
        return same_server(redaction.event_id, target.event_id)
    return same_server(redaction.sender, target.sender)


def same_server(one: str, other: str) -> bool:
    """Whether both identifiers name a server, and the same one."""
    server = one.partition(":")[2]
    return server != "" and server == other.partition(":")[2]


def parse_level(value: object, version: RoomVersion) -> int | None:
    """The level that a JSON value stands for, or None if it stands for none. Never raises.

    From v10 only an integer does; up to v9 also a string of digits, up to v5 also a float, cut at the point.
    A boolean is no integer.
    Spec: rooms/v1.md, "m.room.power_levels events accept values as strings" and "… as floats".
    """
    if type(value) is int:
        if MIN_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER:
            return value
        return value if not version.strict_canonical_json and abs(value) <= _MAX_DOUBLE else None
    if version.auth.integer_power_levels:
        return None
    if type(value) is str:
        return _parse_digits(value)
    if type(value) is float and not version.strict_canonical_json:
        return int(value) if abs(value) <= _MAX_DOUBLE else None  # false for NaN and the infinities
    return None


def _parse_digits(text: str) -> int | None:
    # int() itself would also take underscores and the digits of every script, and refuse very long zeros.
    text = text.strip()
    sign = -1 if text.startswith("-") else 1
    digits = text[1:] if text.startswith(("+", "-")) else text
    if not (digits.isascii() and digits.isdigit()):
        return None
    digits = digits.lstrip("0")
    if len(digits) > _MAX_DOUBLE_DIGITS:
        return None
    level = int(digits or "0")
    return sign * level if level <= _MAX_DOUBLE else None
