"""What relates to what: annotations, edits, references, threads.

Tables: relations, threads. Written by `append`, and when an event is redacted.
Growth: one row for each event of a timeline that relates to another; one a thread.
Index -> query: (target, rel_type, event) -> what relates to an event; event -> what an event relates to;
(room, newest_order) -> a room's threads, the most recently active first.
"""

from collections.abc import Collection, Sequence
from typing import Final, TypeGuard

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID
from ranvier.core.limits import MAX_IDENTIFIER_BYTES
from ranvier.store.database import ReadTxn, WriteTxn
from ranvier.store.tables.batches import in_batches

THREAD: Final = "m.thread"
ANNOTATION: Final = "m.annotation"
REPLACE: Final = "m.replace"

MAX_THREAD_HOPS: Final = 3
"""How far relations are followed to find an event's thread: what the specification recommends."""

_MAX_KEY_BYTES: Final = 1024
"""Of an annotation's key: an emoji or a short text. A longer one does not aggregate."""


class Relation(msgspec.Struct, frozen=True):
    """`m.relates_to` of an event, as far as it can aggregate."""

    target_event_id: EventID
    rel_type: str
    aggregation_key: str | None


class RelatedEvent(msgspec.Struct, frozen=True):
    """An event that relates to `target_event_id`."""

    target_event_id: EventID
    rel_type: str
    event_nid: int
    type: str
    sender_nid: int
    aggregation_key: str | None


class Thread(msgspec.Struct, frozen=True):
    root_event_id: EventID
    reply_count: int
    newest_nid: int  # the newest reply
    newest_order: int  # and its room_order


_INSERT: Final = """
    INSERT INTO relations (room_nid, target_event_id, rel_type, event_nid, type, sender_nid, aggregation_key)
    VALUES (:room_nid, :target_event_id, :rel_type, :event_nid, :type, :sender_nid, :aggregation_key)
"""
_GROW_THREAD: Final = """
    INSERT INTO threads (room_nid, root_event_id, reply_count, newest_nid, newest_order)
    VALUES (:room_nid, :root_event_id, 1, :event_nid, :room_order)
    ON CONFLICT (room_nid, root_event_id) DO UPDATE SET reply_count = threads.reply_count + 1,
        newest_nid = CASE WHEN excluded.newest_order > threads.newest_order
            THEN excluded.newest_nid ELSE threads.newest_nid END,
        newest_order = CASE WHEN excluded.newest_order > threads.newest_order
            THEN excluded.newest_order ELSE threads.newest_order END
"""
_OF_EVENT: Final = "SELECT room_nid, target_event_id, rel_type FROM relations WHERE event_nid = :event_nid"
_DELETE: Final = "DELETE FROM relations WHERE event_nid = :event_nid"
_RECOUNT: Final = """
    SELECT COUNT(*) FROM relations
    WHERE target_event_id = :root_event_id AND rel_type = 'm.thread' AND room_nid = :room_nid
"""
_NEWEST_REPLY: Final = """
    SELECT e.event_nid, e.room_order FROM relations r JOIN events e ON e.event_nid = r.event_nid
    WHERE r.target_event_id = :root_event_id AND r.rel_type = 'm.thread' AND r.room_nid = :room_nid
    ORDER BY e.room_order DESC LIMIT 1
"""
_SET_THREAD: Final = """
    UPDATE threads SET reply_count = :reply_count, newest_nid = :newest_nid, newest_order = :newest_order
    WHERE room_nid = :room_nid AND root_event_id = :root_event_id
"""
_DELETE_THREAD: Final = "DELETE FROM threads WHERE room_nid = :room_nid AND root_event_id = :root_event_id"
_COLUMNS: Final = "r.target_event_id, r.rel_type, r.event_nid, r.type, r.sender_nid, r.aggregation_key"
_ROOMS_RELATED: Final = "SELECT DISTINCT room_nid FROM relations WHERE target_event_id IN (:event_ids[])"
_IS_ANNOTATED: Final = """
    SELECT 1 FROM relations r
    WHERE r.target_event_id = :target_event_id AND r.rel_type = 'm.annotation' AND r.room_nid = :room_nid
        AND r.sender_nid = :sender_nid AND r.type = :type AND r.aggregation_key = :key LIMIT 1
"""
_TARGETS_OF: Final = f"SELECT {_COLUMNS} FROM relations r WHERE r.event_nid IN (:nids[])"  # noqa: S608
_PAGE: Final = """
    SELECT e.event_nid, e.room_order, r.rel_type, r.type
    FROM relations r JOIN events e ON e.event_nid = r.event_nid
    WHERE r.target_event_id IN (:event_ids[]) AND r.room_nid = :room_nid
        AND e.room_order > :above AND e.room_order < :below
        AND (CAST(:rel_type AS TEXT) IS NULL OR r.rel_type = :rel_type)
        AND (CAST(:type AS TEXT) IS NULL OR r.type = :type)
"""
_PAGE_BACKWARDS: Final = _PAGE + "ORDER BY e.room_order DESC LIMIT :limit"
_PAGE_FORWARDS: Final = _PAGE + "ORDER BY e.room_order LIMIT :limit"
_PARENTS_BELOW: Final = """
    SELECT e.event_id FROM relations r JOIN events e ON e.event_nid = r.event_nid
    WHERE r.target_event_id IN (:event_ids[]) AND r.room_nid = :room_nid
        AND (CAST(:rel_type AS TEXT) IS NULL OR r.rel_type = :rel_type)
        AND (CAST(:type AS TEXT) IS NULL OR r.type = :type)
        AND EXISTS (SELECT 1 FROM relations x WHERE x.target_event_id = e.event_id)
    ORDER BY r.event_nid DESC LIMIT :limit
"""
_THREADS: Final = """
    SELECT t.root_event_id, t.reply_count, t.newest_nid, t.newest_order FROM threads t
    WHERE t.room_nid = :room_nid AND t.newest_order < :below ORDER BY t.newest_order DESC LIMIT :limit
"""
_THREADS_OF_USER: Final = """
    SELECT t.root_event_id, t.reply_count, t.newest_nid, t.newest_order FROM threads t
    WHERE t.room_nid = :room_nid AND t.newest_order < :below AND (
        EXISTS (SELECT 1 FROM events e WHERE e.event_id = t.root_event_id AND e.sender_nid = :sender_nid)
        OR EXISTS (SELECT 1 FROM relations r WHERE r.target_event_id = t.root_event_id
            AND r.rel_type = 'm.thread' AND r.sender_nid = :sender_nid)
    ) ORDER BY t.newest_order DESC LIMIT :limit
"""
_THREADS_BY_ROOT: Final = """
    SELECT root_event_id, reply_count, newest_nid, newest_order FROM threads
    WHERE room_nid = :room_nid AND root_event_id IN (:event_ids[])
"""
_TO_BUNDLE: Final = """
    SELECT b.target_event_id, b.rel_type, b.event_nid FROM (
        SELECT r.target_event_id, r.rel_type, r.event_nid, ROW_NUMBER() OVER (
            PARTITION BY r.target_event_id, r.rel_type ORDER BY e.origin_server_ts DESC, e.event_id DESC
        ) AS place
        FROM relations r JOIN events e ON e.event_nid = r.event_nid
            JOIN events o ON o.event_id = r.target_event_id
        WHERE r.target_event_id IN (:event_ids[]) AND r.rel_type IN ('m.reference', 'm.replace')
            AND r.room_nid = :room_nid AND (r.rel_type = 'm.reference' OR (
                r.sender_nid = o.sender_nid AND r.type = o.type
                AND e.state_key_nid IS NULL AND o.state_key_nid IS NULL AND o.redacted_by IS NULL
                AND NOT EXISTS (SELECT 1 FROM relations x
                    WHERE x.event_nid = o.event_nid AND x.rel_type = 'm.replace')
            ))
    ) b WHERE b.place <= CASE b.rel_type WHEN 'm.replace' THEN :edits ELSE :references END
    ORDER BY b.target_event_id, b.rel_type, b.place
"""
_THREADS_SEEN: Final = """
    SELECT t.root_event_id, t.reply_count, e.event_nid, e.room_order
    FROM (
        SELECT r.target_event_id AS root_event_id, COUNT(*) AS reply_count, MAX(e.room_order) AS newest_order
        FROM relations r JOIN events e ON e.event_nid = r.event_nid
        WHERE r.target_event_id IN (:event_ids[]) AND r.rel_type = 'm.thread' AND r.room_nid = :room_nid
            AND e.room_order < :below AND r.sender_nid NOT IN (:ignored[])
        GROUP BY r.target_event_id
    ) t JOIN events e ON e.room_nid = :room_nid AND e.room_order = t.newest_order
"""
_PARTICIPATED: Final = """
    SELECT DISTINCT target_event_id FROM relations
    WHERE target_event_id IN (:event_ids[]) AND rel_type = 'm.thread' AND sender_nid = :sender_nid
"""
_RELATION_OF_ID: Final = """
    SELECT r.target_event_id, r.rel_type FROM events e JOIN relations r ON r.event_nid = e.event_nid
    WHERE e.event_id = :event_id AND r.room_nid = :room_nid
"""


def relation_of(pdu: Pdu) -> Relation | None:
    """What `pdu` relates to: see `relation_in`."""
    return relation_in(pdu.content)


def relation_in(content: JsonObject) -> Relation | None:
    """What an event with this content relates to, or None: also when `m.relates_to` is malformed or too long to
    be of use.

    Spec: client-server API, "Forming relationships between events".
    """
    relates_to = content.get("m.relates_to")
    if not isinstance(relates_to, dict):
        return None
    target, rel_type = relates_to.get("event_id"), relates_to.get("rel_type")
    key = relates_to.get("key")
    if not (_is_short_text(target, MAX_IDENTIFIER_BYTES) and _is_short_text(rel_type, MAX_IDENTIFIER_BYTES)):
        return None
    return Relation(EventID(target), rel_type, key if _is_short_text(key, _MAX_KEY_BYTES) else None)


def insert_relation(
    txn: WriteTxn,
    relation: Relation,
    pdu: Pdu,
    event_nid: int,
    room_order: int,
    room_nid: int,
    sender_nid: int,
) -> None:
    """Note what an event of the timeline relates to. Called by `append` alone."""
    txn.execute(
        _INSERT,
        room_nid=room_nid,
        target_event_id=relation.target_event_id,
        rel_type=relation.rel_type,
        event_nid=event_nid,
        type=pdu.type,
        sender_nid=sender_nid,
        aggregation_key=relation.aggregation_key,
    )
    if relation.rel_type == THREAD:
        txn.execute(
            _GROW_THREAD,
            room_nid=room_nid,
            root_event_id=relation.target_event_id,
            event_nid=event_nid,
            room_order=room_order,
        )


def delete_relation(txn: WriteTxn, event_nid: int) -> None:
    """The event was redacted: it relates to nothing any more. Called when a redaction takes effect."""
    row = txn.first(_OF_EVENT, event_nid=event_nid)
    if row is None:
        return
    room_nid, root_event_id, rel_type = row
    txn.execute(_DELETE, event_nid=event_nid)
    if rel_type != THREAD:
        return
    newest = txn.first(_NEWEST_REPLY, room_nid=room_nid, root_event_id=root_event_id)
    if newest is None:
        txn.execute(_DELETE_THREAD, room_nid=room_nid, root_event_id=root_event_id)
        return
    txn.execute(
        _SET_THREAD,
        room_nid=room_nid,
        root_event_id=root_event_id,
        reply_count=txn.value(_RECOUNT, room_nid=room_nid, root_event_id=root_event_id),
        newest_nid=newest[0],
        newest_order=newest[1],
    )


def list_relations_of(txn: ReadTxn, event_nids: Collection[int]) -> dict[int, RelatedEvent]:
    """What these events relate to, by event_nid; those that relate to nothing are left out."""
    nids = list(event_nids)
    return {
        row[2]: RelatedEvent(*row) for batch in in_batches(nids) for row in txn.all(_TARGETS_OF, nids=batch)
    }


def is_annotated(txn: ReadTxn, room_nid: int, relation: Relation, type_: str, sender_nid: int) -> bool:
    """Whether the sender annotated the relation's target in this way before, with an event of this type."""
    found = txn.value(
        _IS_ANNOTATED,
        target_event_id=relation.target_event_id,
        room_nid=room_nid,
        sender_nid=sender_nid,
        type=type_,
        key=relation.aggregation_key,
    )
    return found is not None


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Which part of a timeline to read: strictly between two orders."""

    above: int
    below: int
    backwards: bool
    limit: int


def list_relations_page(
    txn: ReadTxn,
    room_nid: int,
    event_ids: Sequence[EventID],
    page: Page,
    rel_type: str | None = None,
    event_type: str | None = None,
) -> list[tuple[int, int]]:
    """(event_nid, room_order) of a page of what relates to any of `event_ids`.

    Spec: client-server API, `GET /rooms/{roomId}/relations/{eventId}`; `recurse` is one
    call a level.
    """
    rows = txn.all(
        _PAGE_BACKWARDS if page.backwards else _PAGE_FORWARDS,
        room_nid=room_nid,
        event_ids=list(event_ids),
        above=page.above,
        below=page.below,
        rel_type=rel_type,
        type=event_type,
        limit=page.limit,
    )
    return [(row[0], row[1]) for row in rows]


def list_parents_below(
    txn: ReadTxn,
    room_nid: int,
    event_ids: Sequence[EventID],
    rel_type: str | None,
    event_type: str | None,
    limit: int,
) -> list[EventID]:
    """Of what relates to any of `event_ids`, that to which something relates in turn; the newest `limit`."""
    rows = txn.all(
        _PARENTS_BELOW,
        room_nid=room_nid,
        event_ids=list(event_ids),
        rel_type=rel_type,
        type=event_type,
        limit=limit,
    )
    return [row[0] for row in rows]


def list_rooms_related(txn: ReadTxn, event_ids: Collection[EventID]) -> set[int]:
    """The rooms in which something relates to one of these events. Cost: 1 query per 4,096 events."""
    return {
        room_nid
        for batch in in_batches(list(event_ids))
        for (room_nid,) in txn.all(_ROOMS_RELATED, event_ids=batch)
    }


def list_threads(
    txn: ReadTxn, room_nid: int, below: int, limit: int, participant_nid: int | None = None
) -> list[Thread]:
    """A room's threads whose newest reply is below an order, most recently active first; with
    `participant_nid` only those that this user began or replied to."""
    if participant_nid is None:
        rows = txn.all(_THREADS, room_nid=room_nid, below=below, limit=limit)
    else:
        rows = txn.all(
            _THREADS_OF_USER, room_nid=room_nid, below=below, limit=limit, sender_nid=participant_nid
        )
    return [Thread(*row) for row in rows]


def list_threads_by_root(
    txn: ReadTxn, room_nid: int, root_event_ids: Collection[EventID]
) -> dict[EventID, Thread]:
    """The threads below these events; an event without replies is left out."""
    ids = list(root_event_ids)
    return {
        row[0]: Thread(*row)
        for batch in in_batches(ids)
        for row in txn.all(_THREADS_BY_ROOT, room_nid=room_nid, event_ids=batch)
    }


def list_threads_seen(
    txn: ReadTxn, room_nid: int, root_event_ids: Collection[EventID], *, below: int, ignored: Collection[int]
) -> dict[EventID, Thread]:
    """As `list_threads_by_root`, counting only replies below an order and not of these senders.

    Cost: 1 query that reads all replies.
    """
    return {
        row[0]: Thread(*row)
        for batch in in_batches(list(root_event_ids))
        for row in txn.all(
            _THREADS_SEEN, room_nid=room_nid, event_ids=batch, below=below, ignored=list(ignored)
        )
    }


def list_to_bundle(
    txn: ReadTxn, room_nid: int, event_ids: Collection[EventID], *, edits: int, references: int
) -> list[tuple[EventID, str, int]]:
    """(target, rel_type, event_nid) of what references these events, and of the edits of them that may be
    valid, as far as columns tell; of each target the newest so many, by the senders' clocks, newest first.

    Cost: 1 query that reads all edits and references of these events.
    Spec: client-server API, "Validity of replacement events", "Server-side aggregation of m.replace".
    """
    return [
        (target, rel_type, nid)
        for batch in in_batches(list(event_ids))
        for target, rel_type, nid in txn.all(
            _TO_BUNDLE, room_nid=room_nid, event_ids=batch, edits=edits, references=references
        )
    ]


def list_participated(txn: ReadTxn, root_event_ids: Collection[EventID], sender_nid: int) -> set[EventID]:
    """Those threads in which the user replied (whether the user wrote the root, its event tells)."""
    ids = list(root_event_ids)
    return {
        row[0]
        for batch in in_batches(ids)
        for row in txn.all(_PARTICIPATED, event_ids=batch, sender_nid=sender_nid)
    }


def find_thread_root(txn: ReadTxn, room_nid: int, event_id: EventID) -> EventID | None:
    """The root of the thread that an event is in, itself or by what it relates to; None: the main timeline.

    Cost: 1 query for an event that relates to nothing, else at most MAX_THREAD_HOPS.
    Spec: client-server API, "Threaded read receipts".
    """
    for _ in range(MAX_THREAD_HOPS):
        row = txn.first(_RELATION_OF_ID, room_nid=room_nid, event_id=event_id)
        if row is None:
            return None
        event_id, rel_type = row
        if rel_type == THREAD:
            return event_id
    return None


def is_related(txn: ReadTxn, room_nid: int, event_id: EventID, target_event_id: EventID) -> bool:
    """Whether an event is `target_event_id` or relates to it, over at most MAX_THREAD_HOPS others."""
    for _ in range(MAX_THREAD_HOPS):
        if event_id == target_event_id:
            return True
        row = txn.first(_RELATION_OF_ID, room_nid=room_nid, event_id=event_id)
        if row is None:
            return False
        event_id = row[0]
    return event_id == target_event_id


def _is_short_text(value: object, max_bytes: int) -> TypeGuard[str]:
    # U+0000 is valid in JSON, but PostgreSQL's text cannot hold it.
    return isinstance(value, str) and "\0" not in value and 0 < len(value.encode()) <= max_bytes
