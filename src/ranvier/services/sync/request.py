"""What a request to /sync asks for."""

from enum import Enum
from typing import Final

import msgspec

from ranvier.core.filters import EventSelector, SyncFilter

DEFAULT_TIMELINE_LIMIT: Final = 10
MAX_TIMELINE_LIMIT: Final = 200
MAX_TIMEOUT_MS: Final = 10 * 60 * 1000


class StateSection(Enum):
    """Which state of a room is told, by the name that it is told under."""

    BEFORE = b"state"
    AFTER = b"state_after"
    AFTER_UNSTABLE = b"org.matrix.msc4222.state_after"  # COMPAT: what matrix-js-sdk asks for


class Profile(msgspec.Struct, frozen=True, eq=False):
    """What shapes the part of a response that is the same for every user of a room. Compared by identity:
    equal filters are compiled once (see `filters.SyncFilters`)."""

    filter: SyncFilter
    limit: int  # events of a timeline
    state: StateSection

    @property
    def state_after(self) -> bool:
        """Whether state is wanted up to the end of the timeline, not to its start."""
        return self.state is not StateSection.BEFORE

    @property
    def timeline(self) -> EventSelector:
        return self.filter.timeline

    @property
    def lazy(self) -> bool:
        """Whether only those members are wanted that a client needs to show the timeline."""
        # Spec: for this endpoint, `lazy_load_members` counts on the `state` part alone.
        return self.filter.state.lazy_load_members

    @property
    def reshapes(self) -> bool:
        """Whether events are wanted in another form than the usual one."""
        return self.filter.federation_format or self.filter.fields is not None


class SyncRequest(msgspec.Struct, frozen=True, kw_only=True):
    profile: Profile
    since: int | None  # a position; None: from the beginning
    full_state: bool = False
    timeout_ms: int = 0
