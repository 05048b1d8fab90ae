"""What a client looks at: windows over lists of rooms. Values."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from ranvier.core.identifiers import RoomID
from ranvier.services.sliding.request import ListRequest, Range, RoomConfig, SlidingRequest
from ranvier.services.sliding.roster import Content


class Window(msgspec.Struct, frozen=True):
    """A range of a list, and the rooms in it."""

    range: Range
    room_nids: Sequence[int]


class WindowedList(msgspec.Struct, frozen=True):
    """A list: how long it is, and what its windows show."""

    count: int
    windows: Sequence[Window]

    def shows(self) -> Iterable[int]:
        """The rooms in all windows."""
        return (nid for window in self.windows for nid in window.room_nids)


class Shown(msgspec.Struct, frozen=True):
    """What was asked for, and what the windows showed then."""

    lists: Mapping[str, ListRequest]
    subscriptions: Mapping[RoomID, RoomConfig]
    content: Content
    windows: Mapping[str, WindowedList]
    wanted: Mapping[int, RoomConfig]  # by room_nid
    subscribed: Mapping[RoomID, int]  # those of the subscriptions that count
    room_ids: Mapping[int, RoomID]  # of wanted rooms

    def asks_same(self, request: SlidingRequest) -> bool:
        """Whether a request asks for the same rooms."""
        return self.lists == request.lists and self.subscriptions == request.subscriptions
