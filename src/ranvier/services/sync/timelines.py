"""The stretches of rooms' timelines that a response shows.

Many rooms are read together: two queries, and a third for events that are not in memory, whatever their
number; with a filter that names types or senders, some queries a room.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import msgspec
import orjson

from ranvier.core.filters import EventSelector, FilterableEvent
from ranvier.core.identifiers import RoomID, UserID
from ranvier.services.sync.request import Profile
from ranvier.store.database import ReadTxn
from ranvier.store.tables import edges, timeline
from ranvier.store.tables.events import EventRecord, list_events
from ranvier.store.tables.interned import Interner, find_user_nids, list_user_ids
from ranvier.store.tables.timeline import END_OF_TIMELINE, START_OF_TIMELINE, TimelineFilter, live_order

CHUNK: Final = 100
"""Events that are looked at in one go when a filter decides in memory."""

MAX_CHUNKS: Final = 20
"""After so many the timeline ends, as if its limit were reached: a client pages back from there."""


class Window(msgspec.Struct, frozen=True):
    """What is asked of one room."""

    room_nid: int
    since: int | None  # the client knows the room up to this position; None: it knows nothing of it
    until: int
    full_state: bool  # all state and not just what changed
    is_cut_off: bool = False  # what the client may have from an earlier stay does not join on to this


class Stretch(msgspec.Struct, frozen=True):
    """The newest events of a window, oldest first."""

    records: tuple[EventRecord, ...]
    limited: bool  # the window has more, or the timeline has a gap there
    prev_order: int  # from here one goes on backwards

    @property
    def begins_at(self) -> int:
        """The order of the first event."""
        return self.records[0].room_order or 0 if self.records else END_OF_TIMELINE


def read_stretches(
    txn: ReadTxn,
    interner: Interner,
    windows: Collection[Window],
    room_ids: Mapping[int, RoomID],
    profile: Profile,
) -> dict[Window, Stretch]:
    """Where each window's timeline ends up."""
    selector = profile.timeline
    if selector.is_nothing:
        return {window: Stretch((), False, live_order(window.until)) for window in windows}
    if not selector.is_everything:
        only = _push_down(txn, interner, selector)
        return {
            window: _read_filtered(txn, interner, window, room_ids[window.room_nid], profile, only)
            for window in windows
        }
    stretches: dict[Window, Stretch] = {}
    for group in _alike(windows):
        stretches.update(_read_plain(txn, group, profile.limit))
    return stretches


def bounds_of(window: Window) -> tuple[int, int]:
    """The orders (above, up to) of a window."""
    above = START_OF_TIMELINE if window.since is None else live_order(window.since)
    return above, live_order(window.until)


def _alike(windows: Iterable[Window]) -> Iterable[Sequence[Window]]:
    """Windows with the same bounds: those can share queries."""
    groups: dict[tuple[int | None, int], list[Window]] = {}
    for window in windows:
        groups.setdefault((window.since, window.until), []).append(window)
    return groups.values()


def _read_plain(txn: ReadTxn, windows: Sequence[Window], limit: int) -> dict[Window, Stretch]:
    above, upto = bounds_of(windows[0])
    room_nids = [window.room_nid for window in windows]
    places = timeline.list_recent(txn, room_nids, above=above, below=upto + 1, limit=limit + 1)
    gaps = edges.list_newest_gaps(txn, room_nids, above, upto)
    records = list_events(
        txn, [place.event_nid for found in places.values() for place in found[-limit:] if limit]
    )
    stretches = {}
    for window in windows:
        found = places.get(window.room_nid, [])
        kept = [records[place.event_nid] for place in found[-limit:]] if limit else []
        stretches[window] = _stretch(window, kept, len(found) > limit, gaps.get(window.room_nid))
    return stretches


def _stretch(window: Window, kept: list[EventRecord], limited: bool, gap: int | None) -> Stretch:
    if gap is not None:
        kept = [record for record in kept if _order(record) >= gap]
    prev_order = _order(kept[0]) - 1 if kept else bounds_of(window)[1]
    return Stretch(tuple(kept), limited or gap is not None or window.is_cut_off, prev_order)


def _order(record: EventRecord) -> int:
    assert record.room_order is not None, "it was found in a timeline"
    return record.room_order


def _push_down(txn: ReadTxn, interner: Interner, selector: EventSelector) -> TimelineFilter:
    """What of a filter the database decides."""
    senders, related = selector.senders, selector.related_by_senders
    names = {UserID(name) for name in (*(senders.only or ()), *senders.never, *(related or ()))}
    nids = find_user_nids(txn, interner, names)

    def known(user_ids: Iterable[str]) -> tuple[int, ...]:
        return tuple(sorted(nids[UserID(name)] for name in user_ids if name in nids))

    exact = selector.types_are_exact and selector.types.only is not None
    return TimelineFilter(
        types=tuple(sorted(selector.types.only or ())) if exact else None,
        not_types=tuple(sorted(selector.types.never)),
        sender_nids=None if senders.only is None else known(senders.only),
        not_sender_nids=known(senders.never),
        rel_types=(
            None if selector.related_by_rel_types is None else tuple(sorted(selector.related_by_rel_types))
        ),
        rel_sender_nids=None if related is None else known(related),
    )


def _read_filtered(
    txn: ReadTxn, interner: Interner, window: Window, room_id: RoomID, profile: Profile, only: TimelineFilter
) -> Stretch:
    above, upto = bounds_of(window)
    limit = profile.limit
    gaps = edges.list_newest_gaps(txn, (window.room_nid,), above, upto)
    kept: list[EventRecord] = []
    below = upto + 1
    is_exhausted = False
    for _ in range(MAX_CHUNKS):
        page = timeline.list_page(
            txn, window.room_nid, above=above, below=below, backwards=True, limit=CHUNK, only=only
        )
        kept += select(txn, interner, page, room_id, profile.timeline)
        is_exhausted = len(page) < CHUNK
        if is_exhausted or len(kept) > limit:
            break
        below = _order(page[-1])
    limited = len(kept) > limit or not is_exhausted
    stretch = _stretch(window, kept[:limit][::-1], limited, gaps.get(window.room_nid))
    if limited and len(kept) <= limit and not stretch.records:
        return msgspec.structs.replace(stretch, prev_order=below - 1)
    return stretch


def select(
    txn: ReadTxn, interner: Interner, records: Sequence[EventRecord], room_id: RoomID, selector: EventSelector
) -> list[EventRecord]:
    """Those of one room's events that a filter lets pass, as far as it does not ask for relations."""
    if not selector.checks:
        return list(records)
    senders = list_user_ids(txn, interner, {record.sender_nid for record in records})
    return [
        record
        for record in records
        if selector.matches(
            FilterableEvent(
                record.type, senders.get(record.sender_nid), room_id, orjson.loads(record.json)["content"]
            )
        )
    ]
