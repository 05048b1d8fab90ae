"""Reading a stretch of a room's timeline for one viewer: filtered, without what may not be seen, bounded."""

from collections.abc import Callable, Collection, Sequence
from typing import Final

import msgspec

from ranvier.core import state_map
from ranvier.core.canonical_json import JsonObject, parse_object
from ranvier.core.errors import BadJsonValue
from ranvier.core.filters import EventFilter, FilterableEvent, compile_event_filter
from ranvier.core.identifiers import UserID
from ranvier.services.rooms.aggregations import Aggregations
from ranvier.services.rooms.lazy_members import list_senders_members, without_other_members
from ranvier.services.rooms.showing import Frame, Showing, VisibleEvent
from ranvier.services.rooms.sight import Viewer
from ranvier.store.database import ReadTxn
from ranvier.store.tables import events
from ranvier.store.tables.events import EventRecord
from ranvier.store.tables.interned import Interner, find_user_nids, list_state_keys, list_user_ids
from ranvier.store.tables.state_nodes import NodeCache, SnapshotNodes
from ranvier.store.tables.timeline import TimelineFilter, find_edge, list_page

MAX_FILTERED: Final = 5_000
"""Events that one query with a filter may look at."""

MAX_ROUNDS: Final = 10
"""Queries for one stretch, while what they find is invisible or filtered away."""

ROUND: Final = 500
"""Events that a later round reads at once."""

MAX_WILDCARDS: Final = 50
"""Types with `*` in a filter: each is a condition of the query."""

NO_FILTER: Final = EventFilter()


class Range(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for of a timeline, strictly between two orders."""

    above: int
    below: int
    backwards: bool
    limit: int
    filter: EventFilter = NO_FILTER

    def after(self, order: int) -> "Range":
        """What of it lies behind an order, in the direction of reading."""
        if self.backwards:
            return msgspec.structs.replace(self, below=order)
        return msgspec.structs.replace(self, above=order)

    def up_to(self, order: int) -> "Range":
        """What of it lies before an order and at it, in the direction of reading."""
        if self.backwards:
            return msgspec.structs.replace(self, above=order - 1)
        return msgspec.structs.replace(self, below=order + 1)


class Stretch(msgspec.Struct, frozen=True):
    """What was found."""

    events: Sequence[VisibleEvent]
    last_order: int | None  # of the last event that was looked at, if there are more behind it; else None


class Pages:
    """Its functions run in read transactions, on any thread."""

    def __init__(
        self, interner: Interner, nodes: NodeCache, showing: Showing, aggregations: Aggregations
    ) -> None:
        self._interner = interner
        self._nodes = nodes
        self._showing = showing
        self._aggregations = aggregations

    def read(self, txn: ReadTxn, viewer: Viewer, asked: Range) -> Stretch:
        """The first events of a range that pass its filter and that the viewer may see, at most `limit`.

        Fewer may be found although there are more, when very many had to be passed over.
        Cost: 3 queries for a page without filter in which anything is visible.
        Raises: BadJsonValue for a filter with too many wildcards.
        """
        if not _lets_room_pass(asked.filter, viewer):
            return Stretch((), None)
        only = self._restriction(txn, asked.filter)
        passes = _relation_check(asked.filter)
        found: list[VisibleEvent] = []
        rest, size = asked, asked.limit
        for _ in range(MAX_ROUNDS):
            records, last_order = _read_round(txn, viewer.room_nid, rest, only, size)
            visible = self._showing.visible(txn, viewer, records)
            for record, membership in visible.values():
                if passes is not None and not passes(record):
                    continue
                if len(found) == asked.limit:
                    return Stretch(found, found[-1][0].room_order)
                found.append((record, membership))
            if last_order is None or found or not asked.limit:
                return Stretch(found, last_order)
            rest, size = rest.after(last_order), max(asked.limit, ROUND)
        return Stretch(found, last_order)

    def encode(
        self, txn: ReadTxn, viewer: Viewer, visible: Sequence[VisibleEvent], frame: Frame
    ) -> list[bytes]:
        """Those events as client events, with bundled aggregations."""
        bundles = self._aggregations.bundle(txn, viewer, [record for record, _ in visible], frame)
        return self._showing.client_events(txn, viewer, visible, frame, bundles)

    def encode_members(
        self, txn: ReadTxn, viewer: Viewer, visible: Collection[VisibleEvent], frame: Frame
    ) -> list[bytes]:
        """The member events of the senders of these events, for clients that load members lazily.

        Those that are among the events, too, are not left out: clients (and Complement) expect them here.
        """
        records = [record for record, _ in visible]
        members = list_senders_members(txn, self._interner, self._nodes, records)
        return self._showing.state_events(txn, members, frame)

    def list_members(self, txn: ReadTxn, visible: Collection[VisibleEvent]) -> dict[str, JsonObject]:
        """What the member events of the senders of these events said then: user id -> content."""
        records = [record for record, _ in visible]
        members = list_senders_members(txn, self._interner, self._nodes, records)
        slots = list_state_keys(
            txn, self._interner, {one.state_key_nid for one in members if one.state_key_nid is not None}
        )
        return {
            slots[one.state_key_nid][1]: parse_object(one.json)["content"]
            for one in members
            if one.state_key_nid is not None and one.redacted_by is None
        }

    def encode_root(self, txn: ReadTxn, root: int, frame: Frame) -> list[bytes]:
        """A whole state of the room."""
        state = state_map.to_dict(SnapshotNodes(txn, self._nodes), root)
        return self._showing.state_events(txn, list(events.list_events(txn, state.values()).values()), frame)

    def encode_state(
        self,
        txn: ReadTxn,
        viewer: Viewer,
        visible: Sequence[VisibleEvent],
        asked: EventFilter,
        frame: Frame,
    ) -> list[bytes]:
        """The room's state behind the last of these events; of its members the senders only, if the filter says
        so.
        """
        last = visible[-1][0]
        state = state_map.to_dict(SnapshotNodes(txn, self._nodes), last.state_root or state_map.EMPTY)
        if last.state_key_nid is not None:
            state[last.state_key_nid] = last.event_nid
        if asked.lazy_load_members:
            senders = {record.sender_nid for record, _ in visible}
            state = without_other_members(txn, self._interner, state, senders)
        records = list(events.list_events(txn, state.values()).values())
        if asked is not NO_FILTER:
            records = self._select(txn, records, asked, viewer)
        return self._showing.state_events(txn, records, frame)

    def _select(
        self, txn: ReadTxn, records: Sequence[EventRecord], asked: EventFilter, viewer: Viewer
    ) -> list[EventRecord]:
        """Those events that pass a filter, decided without the database."""
        selector = compile_event_filter(asked)
        if not selector.checks:
            return list(records)
        senders = list_user_ids(txn, self._interner, {record.sender_nid for record in records})
        return [
            record
            for record in records
            if selector.matches(
                FilterableEvent(
                    record.type,
                    senders.get(record.sender_nid),
                    viewer.room_id,
                    parse_object(record.json)["content"],
                )
            )
        ]

    def _restriction(self, txn: ReadTxn, asked: EventFilter) -> TimelineFilter:
        """What of a filter the database decides: all but `rooms` and `rel_types`."""
        if asked is NO_FILTER:
            return TimelineFilter()
        types, not_types = _distinct(asked.types), _distinct(asked.not_types)
        if sum("*" in type_ for type_ in (*(types or ()), *(not_types or ()))) > MAX_WILDCARDS:
            raise BadJsonValue(f"A filter may have at most {MAX_WILDCARDS} types with wildcards.")
        return TimelineFilter(
            types=types,
            not_types=not_types or (),
            sender_nids=self._user_nids(txn, asked.senders),
            not_sender_nids=self._user_nids(txn, asked.not_senders) or (),
            contains_url=asked.contains_url,
            rel_types=_distinct(asked.related_by_rel_types),
            rel_sender_nids=self._user_nids(txn, asked.related_by_senders),
        )

    def _user_nids(self, txn: ReadTxn, user_ids: list[str] | None) -> tuple[int, ...] | None:
        """The numbers of those that are known here: an unknown user has sent nothing."""
        if user_ids is None:
            return None
        return tuple(find_user_nids(txn, self._interner, {UserID(user_id) for user_id in user_ids}).values())


def _read_round(
    txn: ReadTxn, room_nid: int, asked: Range, only: TimelineFilter, size: int
) -> tuple[list[EventRecord], int | None]:
    """Up to `size` events, and the order up to which the range was read unless that is its end."""
    edge = None
    if not only.is_empty:
        edge = find_edge(
            txn,
            room_nid,
            above=asked.above,
            below=asked.below,
            backwards=asked.backwards,
            count=MAX_FILTERED,
        )
        if edge is not None:
            asked = asked.up_to(edge)
    records = list_page(
        txn,
        room_nid,
        above=asked.above,
        below=asked.below,
        backwards=asked.backwards,
        limit=size + 1,
        only=only,
    )
    if len(records) <= size:
        return records, edge
    del records[-1]
    if records:
        return records, records[-1].room_order
    # Nothing was asked for: reading goes on where it began.
    return records, asked.below if asked.backwards else asked.above


def _lets_room_pass(asked: EventFilter, viewer: Viewer) -> bool:
    room_id = viewer.room_id
    return (asked.rooms is None or room_id in asked.rooms) and room_id not in (asked.not_rooms or ())


def _relation_check(asked: EventFilter) -> Callable[[EventRecord], bool] | None:
    """Whether an event relates to another as the filter wants it: the one thing that its content tells."""
    if asked.rel_types is None and asked.not_rel_types is None:
        return None
    selector = compile_event_filter(EventFilter(rel_types=asked.rel_types, not_rel_types=asked.not_rel_types))

    def passes(record: EventRecord) -> bool:
        # A redacted event relates to nothing, even while its original is kept.
        content = {} if record.redacted_by is not None else parse_object(record.json)["content"]
        return selector.matches(FilterableEvent(record.type, content=content))

    return passes


def _distinct(values: list[str] | None) -> tuple[str, ...] | None:
    """Each value once. Nothing that is stored has a U+0000, and not every database can be asked for it."""
    return None if values is None else tuple({value for value in values if "\0" not in value})
