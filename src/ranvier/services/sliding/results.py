"""What an answer consists of, before a codec makes it JSON. Values; what is JSON already is bytes."""

from collections.abc import Mapping, Sequence

import msgspec

from ranvier.core.identifiers import RoomID, StateKey, UserID
from ranvier.services.sliding.windows import WindowedList
from ranvier.services.thread_subscriptions.listing import SubscriptionsPage


class Hero(msgspec.Struct, frozen=True):
    """Somebody after whom a room may be named."""

    user_id: UserID
    displayname: str | None
    avatar_url: str | None


class Text(msgspec.Struct, frozen=True):
    """A name or an address as it is now. None: there is none any more."""

    value: str | None


class RoomResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a client is told of a room. Where None stands for "unchanged", it says so.

    Spec: MSC4186, `RoomResult`.
    """

    room_id: RoomID
    membership: str
    lists: Sequence[str] = ()
    is_initial: bool = False
    bump_stamp: int | None = None  # None: unchanged
    stripped: Sequence[bytes] | None = None  # None: not an invite or knock
    name: Text | None = None  # None: unchanged
    avatar: Text | None = None  # None: unchanged
    heroes: Sequence[Hero] = ()
    is_direct: bool | None = None  # None: unchanged
    required_state: Sequence[bytes] = ()
    removed: Sequence[StateKey] = ()
    timeline: Sequence[bytes] = ()
    is_limited: bool = False
    is_expanded: bool = False
    live_count: int = 0
    prev_batch: str | None = None
    joined_count: int | None = None  # None: unchanged
    invited_count: int | None = None  # None: unchanged
    counts: tuple[int, int] | None = None  # unread: (notifications, highlights); None: not asked for


class ToDevice(msgspec.Struct, frozen=True):
    next_batch: int
    events: Sequence[bytes]


class Encryption(msgspec.Struct, frozen=True):
    keys: bytes  # members of an object
    device_lists: bytes | None  # an object; None: nothing changed


class AccountDataAnswer(msgspec.Struct, frozen=True):
    of_user: Sequence[bytes]  # events
    of_rooms: Mapping[RoomID, Sequence[bytes]]


class StickyAnswer(msgspec.Struct, frozen=True):
    next_batch: int
    of_rooms: Mapping[RoomID, Sequence[bytes]]


class ExtensionsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What extensions tell. None: not enabled."""

    to_device: ToDevice | None = None
    encryption: Encryption | None = None
    account_data: AccountDataAnswer | None = None
    receipts: Mapping[RoomID, bytes] | None = None  # m.receipt events
    typing: Mapping[RoomID, bytes] | None = None  # m.typing events
    thread_subscriptions: SubscriptionsPage | None = None
    sticky: StickyAnswer | None = None

    @property
    def is_news(self) -> bool:
        """Whether a client that waits is to be told."""
        return bool(
            (self.to_device is not None and self.to_device.events)
            or (self.encryption is not None and self.encryption.device_lists is not None)
            or (self.account_data is not None and (self.account_data.of_user or self.account_data.of_rooms))
            or self.receipts
            or self.typing
            or (self.thread_subscriptions is not None and self.thread_subscriptions.changes)
            or (self.sticky is not None and self.sticky.of_rooms)
        )


class Answer(msgspec.Struct, frozen=True):
    """A whole response."""

    pos: str
    lists: Mapping[str, WindowedList]
    room_ids: Mapping[int, RoomID]  # of the rooms in the windows
    rooms: Sequence[RoomResult]
    extensions: ExtensionsAnswer
