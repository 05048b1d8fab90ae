"""An event as push rules look at it: prepared once, and asked many times.

Texts are put into lower case once, however many rules look at them.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from ranvier.core.globs import split_words
from ranvier.core.property_paths import ABSENT, PropertyPath, find_property

Test = Callable[["PushEvent"], bool]
"""A condition that is the same for every user. Never raises."""

BODY: Final[PropertyPath] = ("content", "body")

DEFAULT_NOTIFICATION_LEVEL: Final = 50


class RoomContext(msgspec.Struct, frozen=True, kw_only=True):
    """What the conditions ask about the room, as it is when the event arrives."""

    member_count: int
    """Joined members."""
    sender_power: float
    """The sender's power level; infinite for a creator in room version 12."""
    notification_levels: Mapping[str, int] = msgspec.field(default_factory=dict)
    """From the power levels event, see parse_notification_levels."""


class ThreadContext(msgspec.Struct, frozen=True):
    """The thread that the event is in, for those who follow threads. Spec: MSC4306."""

    subscribers: frozenset[str]
    others: frozenset[str]
    """Who has not subscribed to this one."""


class PushEvent:
    """One event in client form, and its room. Made for one evaluation, not to be kept."""

    __slots__ = ("_event", "_texts", "_words", "room", "room_id", "sender", "thread")

    def __init__(
        self, event: Mapping[str, Any], room: RoomContext, thread: ThreadContext | None = None
    ) -> None:
        self._event = event
        self._texts: dict[PropertyPath, str | None] = {}
        self._words: frozenset[str] | None = None
        self.room = room
        self.room_id: object = event.get("room_id")
        self.sender: object = event.get("sender")
        self.thread = thread

    def with_thread(self, thread: ThreadContext) -> "PushEvent":
        """The same event for others who follow threads."""
        return PushEvent(self._event, self.room, thread)

    def find(self, path: PropertyPath) -> Any:
        """The value of a property, or ABSENT."""
        return find_property(self._event, path)

    def find_text(self, path: PropertyPath) -> str | None:
        """The value of a property in lower case; None unless it is a string."""
        text = self._texts.get(path, ABSENT)
        if text is ABSENT:
            value = self.find(path)
            text = self._texts[path] = value.lower() if isinstance(value, str) else None
        return text  # type: ignore[return-value]  # ABSENT was replaced just above

    def find_words(self) -> frozenset[str]:
        """The words of content.body in lower case; none unless it is a string."""
        if self._words is None:
            self._words = split_words(self.find_text(BODY) or "")
        return self._words


def parse_notification_levels(power_levels: Mapping[str, Any] | None) -> Mapping[str, int]:
    """The `notifications` of a room's power levels event: key -> level. What is no integer counts as not
    there.

    Rooms up to version 9 may hold an integer as a string.
    """
    levels = power_levels.get("notifications") if power_levels else None
    if not isinstance(levels, Mapping):
        return {}
    parsed = {key: _parse_level(value) for key, value in levels.items()}
    return {key: level for key, level in parsed.items() if level is not None}


def _parse_level(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str) and len(value) <= 20:
        try:
            return int(value)
        except ValueError:
            return None
    return None
