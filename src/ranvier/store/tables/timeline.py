"""Reading timelines: pages in either direction, what is new in many rooms, and what is near a time.

Table: events, by its index (room_nid, room_order), which holds the events of timelines and no others.

An order is a place in a room's timeline; every function takes ranges that exclude `above` and `below`. A
live event's order is its position times 2^20. Backfilled events stand below the live event that cites them,
on numbers that are no multiple of 2^20.
"""

from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from ranvier.store.database import ReadTxn
from ranvier.store.tables.batches import in_batches
from ranvier.store.tables.events import COLUMNS, EventRecord, record_of
from ranvier.store.tables.patterns import like

ORDER_BITS: Final = 20
END_OF_TIMELINE: Final = 2**63 - 1
START_OF_TIMELINE: Final = -(2**63)

_LIVE_MASK: Final = (1 << ORDER_BITS) - 1


class Place(msgspec.Struct, frozen=True, order=True):
    """An event of a timeline and where it stands."""

    room_order: int
    event_nid: int


class TimelineFilter(msgspec.Struct, frozen=True, kw_only=True):
    """What of a filter the database decides. Types may use `*` as wildcard. None: no restriction.

    Spec: client-server API, "Filtering", RoomEventFilter.
    """

    types: tuple[str, ...] | None = None
    not_types: tuple[str, ...] = ()
    sender_nids: tuple[int, ...] | None = None
    not_sender_nids: tuple[int, ...] = ()
    contains_url: bool | None = None
    rel_types: tuple[str, ...] | None = None  # events that something relates to in this way …
    rel_sender_nids: tuple[int, ...] | None = None  # … and by one of these

    @property
    def is_empty(self) -> bool:
        return self == _NO_FILTER


_NO_FILTER: Final = TimelineFilter()

_LOWEST_NEIGHBOR: Final = """
    SELECT MAX(room_order) FROM events WHERE room_nid = :room_nid AND room_order < :below
"""
_END_OF_RUN: Final = """
    SELECT MAX(room_order) FROM events
    WHERE room_nid = :room_nid AND room_order < :below AND room_order % 1048576 = 0
"""
_LOWEST_IN_RUN: Final = """
    SELECT MIN(room_order) FROM events
    WHERE room_nid = :room_nid AND room_order > :above AND room_order <= :below
"""
_RANGE: Final = """
    FROM events e WHERE e.room_nid = :room_nid AND e.room_order > :above AND e.room_order < :below
"""
_BACKWARDS: Final = "ORDER BY e.room_order DESC LIMIT :limit"
_FORWARDS: Final = "ORDER BY e.room_order LIMIT :limit"
# Comparing pairs, and not just their second halves, leaves PostgreSQL no way but to look into the index once
# for each room: with an equality it may choose to hash all events that there are.
_NTH: Final = "OFFSET :offset"
_RECENT: Final = """
    WITH bounds AS MATERIALIZED (
        SELECT r.room_nid, COALESCE((
            SELECT e.room_order FROM events e
            WHERE e.room_nid = r.room_nid AND e.room_order > :above AND e.room_order < :below
            ORDER BY e.room_order DESC LIMIT 1 OFFSET :limit
        ), :above) AS above
        FROM rooms r WHERE r.room_nid IN (:room_nids[])
    )
    SELECT b.room_nid, e.room_order, e.event_nid
    FROM bounds b JOIN events e ON (e.room_nid, e.room_order) > (b.room_nid, b.above)
        AND (e.room_nid, e.room_order) < (b.room_nid, :below) AND e.room_order IS NOT NULL
    ORDER BY b.room_nid, e.room_order
"""
_NEWEST: Final = """
    SELECT r.room_nid, (
        SELECT e.event_nid FROM events e WHERE e.room_nid = r.room_nid AND e.room_order < :below
        ORDER BY e.room_order DESC LIMIT 1
    ) FROM rooms r WHERE r.room_nid IN (:room_nids[])
"""
_AT_OR_AFTER: Final = f"""
    SELECT {COLUMNS} FROM events e
    WHERE e.room_nid = :room_nid AND e.room_order IS NOT NULL AND e.origin_server_ts >= :ts
    ORDER BY e.origin_server_ts, e.room_order LIMIT :limit OFFSET :offset
"""  # noqa: S608
_AT_OR_BEFORE: Final = f"""
    SELECT {COLUMNS} FROM events e
    WHERE e.room_nid = :room_nid AND e.room_order IS NOT NULL AND e.origin_server_ts <= :ts
    ORDER BY e.origin_server_ts DESC, e.room_order DESC LIMIT :limit OFFSET :offset
"""  # noqa: S608


class OrdersExhausted(Exception):
    """No numbers are left between two live events of a room: more than a million events in one gap."""


def live_order(position: int) -> int:
    """The order of a live event stored at `position`; also the point that a sync token `position` means."""
    return position << ORDER_BITS


def free_orders(txn: ReadTxn, room_nid: int, below: int, count: int) -> list[int]:
    """`count` unused orders right below an event of the timeline, the lowest first.

    If something stands there already (another branch of the same gap was filled), they follow below that.

    Cost: 1 query if there is room right below, else 3.
    Raises: OrdersExhausted.
    """
    neighbor = txn.value(_LOWEST_NEIGHBOR, room_nid=room_nid, below=below)
    floor = START_OF_TIMELINE if neighbor is None else int(neighbor)
    orders = _count_down(below, floor, count)
    if len(orders) < count:
        boundary = txn.value(_END_OF_RUN, room_nid=room_nid, below=below)
        floor = START_OF_TIMELINE if boundary is None else int(boundary)
        lowest = txn.value(_LOWEST_IN_RUN, room_nid=room_nid, above=floor, below=below)
        orders = _count_down(below if lowest is None else int(lowest), floor, count)
    if len(orders) < count:
        raise OrdersExhausted(f"{count} events do not fit below {below} in room {room_nid}")
    return orders[::-1]


def _count_down(below: int, floor: int, count: int) -> list[int]:
    orders: list[int] = []
    order = below - 1
    while len(orders) < count and order > floor:
        if order & _LIVE_MASK:
            orders.append(order)
        order -= 1
    return orders


def list_page(
    txn: ReadTxn,
    room_nid: int,
    *,
    above: int = START_OF_TIMELINE,
    below: int = END_OF_TIMELINE,
    backwards: bool,
    limit: int,
    only: TimelineFilter = _NO_FILTER,
) -> list[EventRecord]:
    """Events of a room's timeline between two orders, in the order of reading.

    Cost: 1 query; without filter it reads `limit` events.
    """
    restriction, params = _restriction(only)
    sql = f"SELECT {COLUMNS} {_RANGE} {restriction} {_BACKWARDS if backwards else _FORWARDS}"
    return [
        record_of(row)
        for row in txn.all(sql, room_nid=room_nid, above=above, below=below, limit=limit, **params)
    ]


def find_edge(
    txn: ReadTxn, room_nid: int, *, above: int, below: int, backwards: bool, count: int
) -> int | None:
    """The order of the `count`-th event between two orders, in the direction of reading; None if there are
    fewer. Bounds what a query with a filter may read.

    Cost: walks `count` entries of the index.
    """
    sql = f"SELECT e.room_order {_RANGE} {_BACKWARDS if backwards else _FORWARDS} {_NTH}"
    value: int | None = txn.value(sql, room_nid=room_nid, above=above, below=below, limit=1, offset=count - 1)
    return value


def list_recent(
    txn: ReadTxn, room_nids: Collection[int], *, above: int, below: int, limit: int
) -> dict[int, list[Place]]:
    """The newest `limit` events between two orders in each of many rooms, oldest first, without their
    contents.

    To learn whether there were more, ask for one more. Rooms without any are left out.
    Cost: 1 query per 4,096 rooms, from the index alone.
    """
    found: dict[int, list[Place]] = {}
    for batch in in_batches(list(room_nids)):
        for room_nid, order, nid in txn.all(_RECENT, room_nids=batch, above=above, below=below, limit=limit):
            found.setdefault(room_nid, []).append(Place(order, nid))
    return found


def list_newest(txn: ReadTxn, room_nids: Collection[int], below: int = END_OF_TIMELINE) -> dict[int, int]:
    """The newest event of each room's timeline: room_nid -> event_nid."""
    return {
        room_nid: nid
        for batch in in_batches(list(room_nids))
        for room_nid, nid in txn.all(_NEWEST, room_nids=batch, below=below)
        if nid is not None
    }


def list_events_near(
    txn: ReadTxn, room_nid: int, ts: int, *, forwards: bool, limit: int, offset: int = 0
) -> list[EventRecord]:
    """Events of a room's timeline at or after a time, or at or before it, the nearest in time first.

    The times are what senders claim, so their order is not that of the timeline.
    Cost: 1 query that reads `offset` entries of the index (room, time) and `limit` events.
    """
    sql = _AT_OR_AFTER if forwards else _AT_OR_BEFORE
    return [record_of(row) for row in txn.all(sql, room_nid=room_nid, ts=ts, limit=limit, offset=offset)]


def _restriction(only: TimelineFilter) -> tuple[str, dict[str, object]]:
    """The conditions of a filter. Their text depends on which fields are used, not on what they hold (but for
    the number of wildcards), so that few texts have to be compiled."""
    parts: list[str] = []
    params: dict[str, object] = {}
    if only.types is not None:
        parts.append(_type_condition(only.types, "types", params))
    if only.not_types:
        parts.append(f"NOT {_type_condition(only.not_types, 'not_types', params)}")
    if only.sender_nids is not None:
        parts.append("e.sender_nid IN (:sender_nids[])")
        params["sender_nids"] = only.sender_nids
    if only.not_sender_nids:
        parts.append("e.sender_nid NOT IN (:not_sender_nids[])")
        params["not_sender_nids"] = only.not_sender_nids
    if only.contains_url is not None:
        parts.append("e.contains_url = :contains_url")
        params["contains_url"] = int(only.contains_url)
    if only.rel_types is not None or only.rel_sender_nids is not None:
        parts.append(_relation_condition(only, params))
    return "".join(f" AND {part}" for part in parts), params


def _type_condition(types: Sequence[str], name: str, params: dict[str, object]) -> str:
    params[name] = [type_ for type_ in types if "*" not in type_]
    alternatives = [f"e.type IN (:{name}[])"]
    patterns = [type_ for type_ in types if "*" in type_]
    for number, pattern in enumerate(patterns):
        params[f"{name}_{number}"] = like(pattern).replace("*", "%")
        alternatives.append(f"e.type LIKE :{name}_{number} ESCAPE '!'")
    return f"({' OR '.join(alternatives)})"


def _relation_condition(only: TimelineFilter, params: dict[str, object]) -> str:
    conditions = ["rel.target_event_id = e.event_id"]
    if only.rel_types is not None:
        conditions.append("rel.rel_type IN (:rel_types[])")
        params["rel_types"] = only.rel_types
    if only.rel_sender_nids is not None:
        conditions.append("rel.sender_nid IN (:rel_sender_nids[])")
        params["rel_sender_nids"] = only.rel_sender_nids
    return f"EXISTS (SELECT 1 FROM relations rel WHERE {' AND '.join(conditions)})"  # noqa: S608
