"""What the engine asks of a server. Two things can answer: this homeserver, and what a proxy has stored.

All functions run in a transaction, on any thread. Positions are those of the transaction's database.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from ranvier.core.identifiers import RoomID, UserID
from ranvier.historical.sync_v3.requests import Stream
from ranvier.store.database import Kind, ReadTxn, WriteTxn

Waker = tuple[Kind, int]
"""Kind and key of hints."""


class Viewer(msgspec.Struct, frozen=True):
    """Who asks."""

    user_id: UserID
    nid: int  # the source's own number of whose view it is: a user, or a proxy's device
    device: str  # whose sessions these are
    device_nid: int | None  # who gets messages to devices; None: nobody


class Span(msgspec.Struct, frozen=True):
    """What lies after one position, up to another. `since` None: everything."""

    since: int | None
    up_to: int


class PageOf(msgspec.Struct, frozen=True):
    """Some entries of a sorted snapshot."""

    position: int
    start: int
    count: int
    sort: tuple[str, ...]


class Entries(msgspec.Struct, frozen=True):
    """The entries of a page (JSON), and how many there are on all of them."""

    entries: Sequence[bytes]
    total: int


class Changes(msgspec.Struct, frozen=True):
    """Events (JSON) in the order of their arrival, complete up to a position."""

    events: Sequence[bytes]
    up_to: int


class RoomChanges(msgspec.Struct, frozen=True):
    """Rooms of the list that changed, those that changed last first, and those that are gone from it."""

    changed: Sequence[bytes]
    gone: Sequence[RoomID]


class Source(Protocol):
    """What a server knows, as one viewer may see it."""

    def wakers(self, txn: ReadTxn, viewer: Viewer, streams: Sequence[Stream]) -> frozenset[Waker]:
        """Which hints may bring news of the streams."""

    def joined_since(self, txn: ReadTxn, viewer: Viewer, room_id: RoomID) -> int | None:
        """Since when the viewer is joined to the room; None: is not."""

    def typing(self, txn: ReadTxn, viewer: Viewer, room_id: RoomID, span: Span) -> Sequence[UserID] | None:
        """Who types in a room to which the viewer is joined, if that changed within the span, else None."""

    def to_device(
        self, txn: ReadTxn, viewer: Viewer, since: int, up_to: int, limit: int
    ) -> Sequence[tuple[int, bytes]]:
        """Messages with their positions, oldest first."""

    def delete_to_device(self, txn: WriteTxn, viewer: Viewer, up_to: int) -> None:
        """All sessions have got them."""

    def members(self, txn: ReadTxn, viewer: Viewer, room_id: RoomID, page: PageOf) -> Entries:
        """Member events of a room to which the viewer is joined, whatever their membership."""

    def member_changes(
        self, txn: ReadTxn, viewer: Viewer, room_id: RoomID, span: Span, limit: int
    ) -> Changes:
        """Member events that came into the room's state within the span; at most `limit` or a few more."""

    def rooms(self, txn: ReadTxn, viewer: Viewer, page: PageOf) -> Entries:
        """The rooms to which the viewer is joined."""

    def room_changes(self, txn: ReadTxn, viewer: Viewer, span: Span) -> RoomChanges:
        """What became of the rooms within the span."""

    def account_data(
        self, txn: ReadTxn, viewer: Viewer, room_id: RoomID | None, span: Span
    ) -> Sequence[bytes]:
        """Account data, of one room or of all and none, that changed within the span: JSON of
        {type, content, room_id?}."""
