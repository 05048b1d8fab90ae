"""What stands around a result of a search."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from ranvier.services.rooms.pages import Pages, Range
from ranvier.services.rooms.showing import VisibleEvent
from ranvier.services.rooms.sight import Viewer
from ranvier.store.database import ReadTxn
from ranvier.store.tables.timeline import END_OF_TIMELINE, START_OF_TIMELINE

MAX_AROUND: Final = 20
"""Events before, and as many after, each result."""

_PROFILE_FIELDS: Final = ("displayname", "avatar_url")


class ContextSize(msgspec.Struct, frozen=True, kw_only=True):
    """How much of what is around a result is asked for."""

    before: int
    after: int
    with_profiles: bool


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """Client events as JSON. Places are room_orders: points just behind an event."""

    start: int
    end: int
    before: Sequence[bytes]  # the nearest first
    after: Sequence[bytes]
    profiles: Mapping[str, Any] | None  # of the senders, as they were then; None: not asked for


class Around(msgspec.Struct, frozen=True):
    """An event with what stands around it, before that is encoded."""

    event: VisibleEvent
    before: Sequence[VisibleEvent] = ()  # the nearest first
    after: Sequence[VisibleEvent] = ()
    profiles: Mapping[str, Any] | None = None

    @property
    def events(self) -> list[VisibleEvent]:
        """In the order of the timeline."""
        return [*reversed(self.before), self.event, *self.after]

    def encoded(self, shown: Mapping[int, bytes]) -> Surroundings:
        """`shown`: client events by event_nid."""
        every = self.events
        return Surroundings(
            start=(every[0][0].room_order or 0) - 1,
            end=every[-1][0].room_order or 0,
            before=[shown[record.event_nid] for record, _ in self.before],
            after=[shown[record.event_nid] for record, _ in self.after],
            profiles=self.profiles,
        )


def read_around(txn: ReadTxn, pages: Pages, viewer: Viewer, event: VisibleEvent, size: ContextSize) -> Around:
    """What the viewer may see around an event. Cost: some 2 queries, and 1 for profiles."""
    order = event[0].room_order
    assert order is not None, "what is visible stands in the timeline"
    below = min(viewer.sees_until, END_OF_TIMELINE - 1) + 1
    before = _read(
        txn,
        pages,
        viewer,
        Range(above=START_OF_TIMELINE, below=order, backwards=True, limit=min(size.before, MAX_AROUND)),
    )
    after = _read(
        txn,
        pages,
        viewer,
        Range(above=order, below=below, backwards=False, limit=min(size.after, MAX_AROUND)),
    )
    around = Around(event, before, after)
    if not size.with_profiles:
        return around
    profiles = {
        user_id: {field: content[field] for field in _PROFILE_FIELDS if isinstance(content.get(field), str)}
        for user_id, content in pages.list_members(txn, around.events).items()
    }
    return msgspec.structs.replace(around, profiles=profiles)


def _read(txn: ReadTxn, pages: Pages, viewer: Viewer, part: Range) -> Sequence[VisibleEvent]:
    return pages.read(txn, viewer, part).events if part.limit else ()
