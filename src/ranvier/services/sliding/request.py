"""What a request to sliding sync asks for, whichever form it came in.

Spec: MSC4186, "Request Body".
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from ranvier.core.identifiers import RoomID
from ranvier.services.sliding.required_state import RequiredState

MAX_LISTS: Final = 100
MAX_SUBSCRIPTIONS: Final = 100
MAX_TIMELINE_LIMIT: Final = 200
"""Events of a room in one answer; whoever wants more pages back."""

MAX_TIMEOUT_MS: Final = 10 * 60 * 1000

Range = tuple[int, int]
"""First and last place in a list, both included."""


class Filters(msgspec.Struct, frozen=True, kw_only=True):
    """Which rooms belong to a list. None: no restriction."""

    is_dm: bool | None = None
    spaces: frozenset[RoomID] | None = None
    is_encrypted: bool | None = None
    is_invited: bool | None = None
    room_types: frozenset[str | None] | None = None
    not_room_types: frozenset[str | None] = frozenset()
    tags: frozenset[str] | None = None
    not_tags: frozenset[str] = frozenset()


NO_FILTERS: Final = Filters()


class RoomConfig(msgspec.Struct, frozen=True):
    """What is wanted of a room."""

    timeline_limit: int
    required_state: RequiredState

    def __or__(self, other: "RoomConfig") -> "RoomConfig":
        """What either wants. Spec: MSC4186, "Combining room configs"."""
        if other is self:
            return self
        return RoomConfig(
            max(self.timeline_limit, other.timeline_limit), self.required_state | other.required_state
        )


class ListRequest(msgspec.Struct, frozen=True):
    """A list, and the windows over it."""

    config: RoomConfig
    filters: Filters
    ranges: tuple[Range, ...] | None  # None: all of it; empty: its size alone


class Scope(msgspec.Struct, frozen=True):
    """For which rooms an extension is wanted. None: all."""

    lists: frozenset[str] | None = None
    rooms: frozenset[str] | None = None


class Paged(msgspec.Struct, frozen=True):
    """An extension that tells what comes one after the other."""

    limit: int
    since: int | None = None


class Extensions(msgspec.Struct, frozen=True, kw_only=True):
    """The extensions that are enabled."""

    to_device: Paged | None = None
    encryption: bool = False
    account_data: Scope | None = None
    receipts: Scope | None = None
    typing: Scope | None = None
    thread_subscriptions: int | None = None  # at most so many in one answer
    sticky: Paged | None = None


NO_EXTENSIONS: Final = Extensions()


class SlidingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A whole request."""

    conn_id: str = ""
    pos: str | None = None
    timeout_ms: int = 0
    lists: Mapping[str, ListRequest] = {}
    subscriptions: Mapping[RoomID, RoomConfig] = {}
    extensions: Extensions = NO_EXTENSIONS
    tells_counts: bool = False  # whether unread counts are news

    @property
    def limits(self) -> Sequence[int]:
        """The timeline limits that occur."""
        return [one.timeline_limit for one in self.subscriptions.values()] + [
            one.config.timeline_limit for one in self.lists.values()
        ]
