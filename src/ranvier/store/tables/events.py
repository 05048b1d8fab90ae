"""Events, read by their number or id.

Table: events (written by `append` alone), late_events. Growth: one row an event.
Index -> query: primary key -> by number, and what came after a position; event_id -> by id.
"""

from collections.abc import Collection, Sequence
from enum import IntEnum
from typing import Final

import msgspec

from ranvier.core.identifiers import EventID
from ranvier.store.database import ReadTxn, Row
from ranvier.store.tables.batches import in_batches


class Status(IntEnum):
    """What the room makes of an event. The numbers are stored."""

    ACCEPTED = 0
    SOFT_FAILED = 1  # allowed by the state before it, not by the current state: never shown
    REJECTED = 2  # not allowed by the state before it
    OUTLIER = 3  # its place in the room's history is not known
    REJECTED_OUTLIER = 4  # not allowed by its own auth events

    @property
    def is_outlier(self) -> bool:
        return self >= Status.OUTLIER


class EventRecord(msgspec.Struct, frozen=True, gc=False):
    """An event as it is stored. Only `room_order`, `status`, `state_root`, `redacted_by` and, once the
    original of a redacted event is dropped, `json` ever change."""

    event_nid: int
    event_id: EventID
    room_nid: int
    room_order: int | None  # None: not in the timeline
    status: Status
    type: str
    sender_nid: int
    state_key_nid: int | None  # None: not a state event
    state_root: int | None  # the room's state before the event; None for an outlier
    auth_depth: int | None  # state events only
    depth: int
    origin_server_ts: int
    is_local: bool
    redacted_by: int | None
    json: bytes


class KnownEvent(msgspec.Struct, frozen=True):
    """The little that deciding about another event takes."""

    event_nid: int
    room_nid: int
    status: Status
    room_order: int | None
    state_root: int | None
    auth_depth: int | None


COLUMNS: Final = """
    e.event_nid, e.event_id, e.room_nid, e.room_order, e.status, e.type, e.sender_nid, e.state_key_nid,
    e.state_root,
    e.auth_depth, e.depth, e.origin_server_ts, e.is_local, e.redacted_by, e.json
"""
"""Of `events e`, in the order of EventRecord's fields, for `record_of`."""

_BY_NIDS: Final = f"SELECT {COLUMNS} FROM events e WHERE e.event_nid IN (:nids[])"  # noqa: S608
_BY_IDS: Final = f"SELECT {COLUMNS} FROM events e WHERE e.event_id IN (:event_ids[])"  # noqa: S608
_KNOWN: Final = """
    SELECT event_id, event_nid, room_nid, status, room_order, state_root, auth_depth
    FROM events WHERE event_id IN (:event_ids[])
"""
_IDS: Final = "SELECT event_nid, event_id FROM events WHERE event_nid IN (:nids[])"
_LATE_AT: Final = f"""
    SELECT {COLUMNS} FROM late_events l JOIN events e ON e.event_nid = l.event_nid
    WHERE l.position IN (:positions[])
"""  # noqa: S608
_STORED_AFTER: Final = f"""
    SELECT {COLUMNS} FROM events e
    WHERE e.event_nid > :after AND e.event_nid <= :upto AND e.room_order = e.event_nid * 1048576
    ORDER BY e.event_nid LIMIT :limit
"""  # noqa: S608
_LATE_AFTER: Final = f"""
    SELECT l.position, {COLUMNS} FROM late_events l JOIN events e ON e.event_nid = l.event_nid
    WHERE l.position > :after AND l.position <= :upto ORDER BY l.position LIMIT :limit
"""  # noqa: S608

_OTHER_TYPES: Final = "SELECT event_nid FROM events WHERE event_nid IN (:nids[]) AND type <> :type"


_STATUSES: Final = tuple(Status)
"""By their numbers: looked up, not made, as rows come by the thousand."""


def record_of(row: Row) -> EventRecord:
    """The record of a row of COLUMNS."""
    (
        event_nid,
        event_id,
        room_nid,
        room_order,
        status,
        type_,
        sender_nid,
        state_key_nid,
        state_root,
        auth_depth,
        depth,
        origin_server_ts,
        is_local,
        redacted_by,
        json,
    ) = row
    return EventRecord(
        event_nid,
        event_id,
        room_nid,
        room_order,
        _STATUSES[status],
        type_,
        sender_nid,
        state_key_nid,
        state_root,
        auth_depth,
        depth,
        origin_server_ts,
        is_local == 1,
        redacted_by,
        json,
    )


def list_events(txn: ReadTxn, event_nids: Collection[int]) -> dict[int, EventRecord]:
    """Events by number; those that are not there are left out. Cost: 1 query per 4,096."""
    nids = list(event_nids)
    return {row[0]: record_of(row) for batch in in_batches(nids) for row in txn.all(_BY_NIDS, nids=batch)}


def list_events_by_id(txn: ReadTxn, event_ids: Collection[EventID]) -> dict[EventID, EventRecord]:
    """Events by id, of any status; those that are not here are left out. Cost: 1 query per 4,096."""
    ids = list(event_ids)
    return {row[1]: record_of(row) for batch in in_batches(ids) for row in txn.all(_BY_IDS, event_ids=batch)}


def list_events_at(txn: ReadTxn, positions: Collection[int]) -> list[EventRecord]:
    """The events that entered a timeline live at these positions, in no order. Cost: 2 queries per 4,096."""
    found: list[EventRecord] = []
    for batch in in_batches(list(positions)):
        stored = [record_of(row) for row in txn.all(_BY_NIDS, nids=batch)]
        # A row that is not live at its own number came as an outlier: its position is another one.
        found += [record for record in stored if record.room_order == record.event_nid << 20]
        found += [record_of(row) for row in txn.all(_LATE_AT, positions=batch)]
    return found


def find_event(txn: ReadTxn, event_id: EventID) -> EventRecord | None:
    """The event, whatever its room and status."""
    return list_events_by_id(txn, (event_id,)).get(event_id)


def list_known(txn: ReadTxn, event_ids: Collection[EventID]) -> dict[EventID, KnownEvent]:
    """Which of these events are here, and as what; without their JSON. Cost: 1 query per 4,096."""
    ids = list(event_ids)
    known: dict[EventID, KnownEvent] = {}
    for batch in in_batches(ids):
        for event_id, nid, room_nid, status, room_order, state_root, auth_depth in txn.all(
            _KNOWN, event_ids=batch
        ):
            known[event_id] = KnownEvent(nid, room_nid, Status(status), room_order, state_root, auth_depth)
    return known


def list_event_ids(txn: ReadTxn, event_nids: Collection[int]) -> dict[int, EventID]:
    """The ids of events by number."""
    nids = list(event_nids)
    return {nid: event_id for batch in in_batches(nids) for nid, event_id in txn.all(_IDS, nids=batch)}


def list_of_other_types(txn: ReadTxn, event_nids: Collection[int], event_type: str) -> list[int]:
    """Those of the events that are not of a type. Cost: 1 query per 4,096 events."""
    return [
        row[0]
        for batch in in_batches(list(event_nids))
        for row in txn.all(_OTHER_TYPES, nids=batch, type=event_type)
    ]


def list_live_events(txn: ReadTxn, after: int, upto: int, limit: int) -> Sequence[tuple[int, EventRecord]]:
    """Events that entered a timeline live after one position and up to another, in any room, with their
    positions, oldest first: what the pullers (federation, push, application services, search) read.

    No more than `limit`; if there are that many, the caller goes on from the last position.
    """
    events = [(row[0], record_of(row)) for row in txn.all(_STORED_AFTER, after=after, upto=upto, limit=limit)]
    late = [(row[0], record_of(row[1:])) for row in txn.all(_LATE_AFTER, after=after, upto=upto, limit=limit)]
    if late:
        events = sorted(events + late, key=lambda pair: pair[0])[:limit]
    return events
