"""What stands around a result of a search."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from ranvier.services.rooms.pages import Pages, Range
from ranvier.services.rooms.showing import Frame, VisibleEvent
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


def read_surroundings(
    txn: ReadTxn, pages: Pages, viewer: Viewer, event: VisibleEvent, size: ContextSize, frame: Frame
) -> Surroundings:
    """What the viewer may see around an event. Cost: about 10 queries."""
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
    every = [*reversed(before), event, *after]
    shown = pages.encode(txn, viewer, every, frame)
    split = len(before)
    profiles = None
    if size.with_profiles:
        profiles = {
            user_id: {
                field: content[field] for field in _PROFILE_FIELDS if isinstance(content.get(field), str)
            }
            for user_id, content in pages.list_members(txn, every).items()
        }
    return Surroundings(
        start=(every[0][0].room_order or 0) - 1,
        end=every[-1][0].room_order or 0,
        before=shown[:split][::-1],
        after=shown[split + 1 :],
        profiles=profiles,
    )


def _read(txn: ReadTxn, pages: Pages, viewer: Viewer, part: Range) -> Sequence[VisibleEvent]:
    return pages.read(txn, viewer, part).events if part.limit else ()
