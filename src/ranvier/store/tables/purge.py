"""Taking away all that belongs to a room, or what a room's past holds, bit by bit.

Tables written: every one with a room_nid or an event_nid; a test walks the schema and finds whatever is forgotten.
Each function changes a bounded number of rows, so that other writes come in between, and may be repeated: after a
crash one begins at the beginning, and finds little left.

The row of `rooms` itself stays, empty: it is the number of a name, and numbers that memory may still hold must never
mean another room. For the same reason the newest node of a state stays.

Those who follow what happens must never find an event without its state: what is read through is taken away first
(who is in the room, the places in its timeline), then what it led to.

Nodes of state belong to one room alone, because the events that they name do. So what a room's roots lead to can go
with the room, without a look at any other one.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from ranvier.core.state_map import EMPTY, Branch, decode
from ranvier.store.database import Kind, ReadTxn, WriteTxn
from ranvier.store.tables.batches import in_batches
from ranvier.store.tables.relations import delete_relation

# Of these all rows go that have the room's number: a table, and a column that tells its rows in one room apart.
_BY_ROOM: Final = (
    ("published_rooms", "network"),
    ("aliases", "alias"),
    ("notice_rooms", "user_nid"),
    ("room_summaries", "room_nid"),
    ("memberships", "user_nid"),
    ("room_servers", "server_nid"),
    ("current_state", "state_key_nid"),
    ("threads", "root_event_id"),
    ("receipts", "user_nid"),
    ("typing", "user_nid"),
    ("typing_versions", "room_nid"),
    ("notifying_events", "event_nid"),
    ("user_notifications", "event_nid"),
    ("message_words", "word"),
    ("partial_rooms", "room_nid"),
    ("partial_events", "event_nid"),
    ("sticky_events", "event_nid"),
    ("thread_subscriptions", "root_nid"),
    ("partial_events", "event_nid"),
    ("partial_rooms", "room_nid"),
    ("unchecked_states", "room_nid"),
    ("unchecked_history", "event_id"),
    ("thread_subscriptions", "user_nid"),
    ("sticky_events", "event_nid"),
)
# Of these there are rows for users, who are gone through page by page: nothing else finds those of a room.
_BY_USER: Final = ("account_data", "counted_rooms", "read_marks")
# Rows that follow from single events, and the columns that name those.
_OF_EVENTS: Final = (
    ("late_events", "event_nid"),
    ("redactions", "redaction_nid"),
    ("redacted_originals", "event_nid"),
    ("auth_edges", "event_nid"),
    ("auth_edges", "auth_nid"),
    ("auth_gaps", "event_nid"),
    ("stripped_states", "event_nid"),
    ("relations", "event_nid"),
    ("client_transactions", "event_nid"),
)
# The same, where the room has to be named to find them.
_OF_PAST: Final = (
    ("message_words", "event_nid"),
    ("user_notifications", "event_nid"),
    ("gaps", "event_nid"),
    ("partial_events", "event_nid"),
    ("sticky_events", "event_nid"),
    ("thread_subscriptions", "root_nid"),
)

_EMPTY_HEAD: Final = """
    UPDATE rooms SET revision = revision + 1, extremities = '[]', state_root = 0, is_partial = 0, newest_position = 0,
        newest_local_position = 0, bump_position = 0, joined_count = 0, invited_count = 0
    WHERE room_nid = :room_nid AND (state_root <> 0 OR extremities <> '[]' OR joined_count > 0 OR invited_count > 0)
"""
_LOCAL_USERS: Final = """
    SELECT user_nid, event_nid, membership FROM memberships
    WHERE room_nid = :room_nid AND is_local = 1 AND membership IN ('join', 'invite', 'knock')
"""
_DEPART: Final = """
    INSERT INTO membership_changes (user_nid, position, room_nid, event_nid, membership, previous)
    VALUES (:user_nid, :position, :room_nid, :event_nid, 'leave', :previous)
"""
_FORGET_STAYS: Final = """
    DELETE FROM membership_changes
    WHERE room_nid = :room_nid AND user_nid IN (:nids[]) AND position < (
        SELECT MAX(c.position) FROM membership_changes c
        WHERE c.user_nid = membership_changes.user_nid AND c.room_nid = :room_nid
    )
"""
_FORGET_DEPARTURES: Final = """
    DELETE FROM membership_changes WHERE room_nid = :room_nid AND user_nid IN (:nids[]) AND position <= :upto
"""
_ACCOUNTS: Final = "SELECT user_nid FROM accounts WHERE user_nid > :after ORDER BY user_nid LIMIT :limit"
_LIVES: Final = "SELECT life FROM sliding_connections WHERE life > :after ORDER BY life LIMIT :limit"
_DELETE_SLIDING: Final = "DELETE FROM sliding_rooms WHERE room_nid = :room_nid AND life IN (:lives[])"
_LEAVE_CONTEXT: Final = "UPDATE historical_contexts SET room_nid = NULL WHERE room_nid = :room_nid"
_HIDE: Final = """
    UPDATE events SET room_order = NULL, status = 3 WHERE event_nid IN (
        SELECT event_nid FROM events WHERE room_nid = :room_nid AND room_order IS NOT NULL LIMIT :limit
    )
"""
_EVENTS: Final = "SELECT event_nid, state_root FROM events WHERE room_nid = :room_nid LIMIT :limit"
_DELETE_EVENTS: Final = "DELETE FROM events WHERE event_nid IN (:nids[])"
_STATES: Final = "SELECT position, state_root FROM room_states WHERE room_nid = :room_nid LIMIT :limit"
_GAPS: Final = "SELECT event_nid FROM gaps WHERE room_nid = :room_nid LIMIT :limit"
_CLAIMED: Final = """
    SELECT claimed_root FROM gaps
    WHERE room_nid = :room_nid AND event_nid IN (:nids[]) AND claimed_root IS NOT NULL
"""
_DELETE_GAPS: Final = "DELETE FROM gaps WHERE room_nid = :room_nid AND event_nid IN (:nids[])"
_DELETE_STATES: Final = "DELETE FROM room_states WHERE room_nid = :room_nid AND position IN (:positions[])"
_NODES: Final = "SELECT node_nid, data FROM state_nodes WHERE node_nid IN (:nids[])"
_NEWEST_NODE: Final = "SELECT MAX(node_nid) FROM state_nodes"
_DELETE_NODES: Final = "DELETE FROM state_nodes WHERE node_nid IN (:nids[]) AND node_nid <> :newest"
_UNTOLD: Final = """
    SELECT 1 FROM room_servers s LEFT JOIN destinations d ON d.server_nid = s.server_nid
    WHERE s.room_nid = :room_nid AND s.server_nid <> CAST(:own_nid AS BIGINT) AND d.failing_since_ms IS NULL
        AND COALESCE(d.sent_position, 0) < (SELECT r.newest_local_position FROM rooms r WHERE r.room_nid = :room_nid)
    LIMIT 1
"""

_PAST: Final = """
    SELECT e.event_nid, e.event_id, e.room_order FROM events e
    WHERE e.room_nid = :room_nid AND e.room_order > :above AND e.room_order < :below AND e.state_key_nid IS NULL
        AND (e.is_local = 0 OR :with_local = 1) AND e.event_nid NOT IN (:kept[])
        AND NOT EXISTS (
            SELECT 1 FROM redactions d JOIN events t ON t.event_id = d.target_event_id
            WHERE d.redaction_nid = e.event_nid AND t.redacted_by = e.event_nid
        )
    ORDER BY e.room_order LIMIT :limit
"""
_NEWEST_BEFORE: Final = """
    SELECT room_order FROM events
    WHERE room_nid = :room_nid AND room_order IS NOT NULL AND origin_server_ts < :before_ms
    ORDER BY origin_server_ts DESC, room_order DESC LIMIT 1
"""


class PurgedEvent(msgspec.Struct, frozen=True):
    event_nid: int
    event_id: str
    room_order: int


def begin_purge(txn: WriteTxn, room_nid: int) -> bool:
    """Empty the room's head: from now on nothing can be built on it, in whichever process. Whoever of this server is
    still in the room has left it. False, and nothing done, if that has happened.

    Effects: a hint for the room, and for each user of this server who was still in it.
    """
    if not txn.execute(_EMPTY_HEAD, room_nid=room_nid):
        return False
    for user_nid, event_nid, membership in txn.all(_LOCAL_USERS, room_nid=room_nid):
        txn.execute(
            _DEPART,
            user_nid=user_nid,
            position=txn.next_position(),
            room_nid=room_nid,
            event_nid=event_nid,
            previous=membership,
        )
        txn.hint(Kind.USER, user_nid)
    txn.hint(Kind.ROOM, room_nid)
    return True


def purge_rows(txn: WriteTxn, room_nid: int, limit: int) -> bool:
    """Delete up to about `limit` rows of the tables that are kept by room. False: there are none left."""
    for table, column in _BY_ROOM:
        sql = (
            f"DELETE FROM {table} WHERE room_nid = :room_nid AND {column} IN "  # noqa: S608
            f"(SELECT {column} FROM {table} WHERE room_nid = :room_nid LIMIT :limit)"
        )
        if txn.execute(sql, room_nid=room_nid, limit=limit):
            return True
    txn.execute(_LEAVE_CONTEXT, room_nid=room_nid)
    return False


def purge_of_users(txn: WriteTxn, room_nid: int, after: int, limit: int) -> int | None:
    """Delete what the next `limit` accounts behind `after` have of the room, but for the note that they have left:
    see `forget_departures`. Which was the last; None: no more."""
    nids = [row[0] for row in txn.all(_ACCOUNTS, after=after, limit=limit)]
    if not nids:
        return None
    txn.execute(_FORGET_STAYS, room_nid=room_nid, nids=nids)
    for table in _BY_USER:
        sql = f"DELETE FROM {table} WHERE room_nid = :room_nid AND user_nid IN (:nids[])"  # noqa: S608
        txn.execute(sql, room_nid=room_nid, nids=nids)
    return int(nids[-1])


def forget_departures(txn: WriteTxn, room_nid: int, upto: int, after: int, limit: int) -> int | None:
    """Delete the last that stays of a purged room: that users left it, before a position. As `purge_of_users`.

    Clients that are offline have to hear it, and whoever has in memory where users are; so this is done days later.
    """
    nids = [row[0] for row in txn.all(_ACCOUNTS, after=after, limit=limit)]
    if not nids:
        return None
    txn.execute(_FORGET_DEPARTURES, room_nid=room_nid, nids=nids, upto=upto)
    return int(nids[-1])


def purge_of_connections(txn: WriteTxn, room_nid: int, after: int, limit: int) -> int | None:
    """Delete what sliding sync connections know of the room. As `purge_of_users`."""
    lives = [row[0] for row in txn.all(_LIVES, after=after, limit=limit)]
    if not lives:
        return None
    txn.execute(_DELETE_SLIDING, room_nid=room_nid, lives=lives)
    return int(lives[-1])


def hide_events(txn: WriteTxn, room_nid: int, limit: int) -> bool:
    """Take up to `limit` events out of the timeline. False: none is in it any more."""
    return txn.execute(_HIDE, room_nid=room_nid, limit=limit) > 0


def purge_events(txn: WriteTxn, room_nid: int, limit: int) -> int:
    """Delete up to `limit` events, what follows from them and the states before them; how many there were."""
    rows = txn.all(_EVENTS, room_nid=room_nid, limit=limit)
    nids = [nid for nid, _ in rows]
    if not nids:
        return 0
    for table, column in _OF_EVENTS:
        txn.execute(f"DELETE FROM {table} WHERE {column} IN (:nids[])", nids=nids)  # noqa: S608
    _delete_nodes(txn, {root for _, root in rows if root is not None})
    txn.execute(_DELETE_EVENTS, nids=nids)
    return len(nids)


def purge_states(txn: WriteTxn, room_nid: int, limit: int) -> bool:
    """Delete up to `limit` of the states that the room had, and then of those that were claimed behind its gaps. False:
    there are none left."""
    rows = txn.all(_STATES, room_nid=room_nid, limit=limit)
    if not rows:
        return _purge_gaps(txn, room_nid, limit)
    _delete_nodes(txn, {root for _, root in rows})
    txn.execute(_DELETE_STATES, room_nid=room_nid, positions=[position for position, _ in rows])
    return True


def _purge_gaps(txn: WriteTxn, room_nid: int, limit: int) -> bool:
    nids = [row[0] for row in txn.all(_GAPS, room_nid=room_nid, limit=limit)]
    if not nids:
        return False
    _delete_nodes(txn, {row[0] for row in txn.all(_CLAIMED, room_nid=room_nid, nids=nids)})
    txn.execute(_DELETE_GAPS, room_nid=room_nid, nids=nids)
    return True


def is_told(txn: ReadTxn, room_nid: int, own_nid: int) -> bool:
    """Whether every other server in the room that can be reached has got our newest event there."""
    return txn.value(_UNTOLD, room_nid=room_nid, own_nid=own_nid) is None


def find_order_before(txn: ReadTxn, room_nid: int, before_ms: int) -> int | None:
    """Where the newest event before a time stands in the timeline, by the times that senders claim."""
    value: int | None = txn.value(_NEWEST_BEFORE, room_nid=room_nid, before_ms=before_ms)
    return value


def list_past(
    txn: ReadTxn,
    room_nid: int,
    *,
    above: int,
    below: int,
    kept: Sequence[int],
    with_local: bool,
    limit: int,
) -> list[PurgedEvent]:
    """Events of a stretch of the timeline that are no state, the oldest first, but for those in `kept` and for
    redactions of what is still here."""
    rows = txn.all(
        _PAST,
        room_nid=room_nid,
        above=above,
        below=below,
        kept=list(kept),
        with_local=int(with_local),
        limit=limit,
    )
    return [PurgedEvent(*row) for row in rows]


def purge_past(txn: WriteTxn, room_nid: int, events: Sequence[PurgedEvent]) -> int:
    """Delete such events and what follows from them; how many were there still. Unread counts do not change: they are
    differences, and what is behind the reader weighs nothing."""
    nids = [event.event_nid for event in events]
    for nid in nids:
        delete_relation(txn, nid)
    for table, column in _OF_EVENTS:
        txn.execute(f"DELETE FROM {table} WHERE {column} IN (:nids[])", nids=nids)  # noqa: S608
    for table, column in _OF_PAST:
        sql = f"DELETE FROM {table} WHERE room_nid = :room_nid AND {column} IN (:nids[])"  # noqa: S608
        txn.execute(sql, room_nid=room_nid, nids=nids)
    return txn.execute(_DELETE_EVENTS, nids=nids)


def _delete_nodes(txn: WriteTxn, roots: set[int]) -> None:
    """Delete what these roots of one room lead to. What is not there any more was deleted with another root."""
    wanted = roots - {EMPTY}
    newest = txn.value(_NEWEST_NODE)
    while wanted:
        nodes = []
        for batch in in_batches(sorted(wanted)):
            found = txn.all(_NODES, nids=batch)
            txn.execute(_DELETE_NODES, nids=[nid for nid, _ in found], newest=newest)
            nodes += [decode(data) for _, data in found]
        wanted = {child for node in nodes if isinstance(node, Branch) for child in node.children} - {EMPTY}
