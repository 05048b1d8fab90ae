"""The graphs among events, as far as they are not read from the events themselves.

Tables: auth_edges (state events only: only they are walked), gaps. Written by `append` alone.
Growth: about four rows a state event; one row for each cited event that is missing.
Index -> query: (event, auth) -> auth events; auth -> who cites it; gaps by missing event -> it has come;
gaps by (room, order) -> where backfill is needed.

prev_events need no table: forward extremities are part of the room's head, and whoever walks back reads the
JSON.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Final

import msgspec

from ranvier.core.identifiers import EventID
from ranvier.store.database import ReadTxn, WriteTxn
from ranvier.store.tables.batches import in_batches


class Gap(msgspec.Struct, frozen=True):
    """Events are missing right below an event of the timeline."""

    missing_event_id: EventID
    event_nid: int  # who cites it
    room_order: int  # of the citing event
    claimed_root: int | None = None  # of the state after the missing event, as another server claimed it


_INSERT_AUTH: Final = """
    INSERT INTO auth_edges (event_nid, auth_nid) VALUES (:event_nid, :auth_nid)
    ON CONFLICT (event_nid, auth_nid) DO NOTHING
"""
_AUTH_OF: Final = "SELECT event_nid, auth_nid FROM auth_edges WHERE event_nid IN (:nids[])"
_CITING: Final = "SELECT auth_nid, event_nid FROM auth_edges WHERE auth_nid IN (:nids[])"
_CHAIN: Final = """
    WITH RECURSIVE chain(nid) AS (
        SELECT auth_nid FROM auth_edges WHERE event_nid IN (:nids[])
        UNION SELECT a.auth_nid FROM chain c JOIN auth_edges a ON a.event_nid = c.nid
    )
    SELECT nid FROM chain
"""
_INSERT_GAP: Final = """
    INSERT INTO gaps (missing_event_id, event_nid, room_nid, room_order, claimed_root)
    VALUES (:missing_event_id, :event_nid, :room_nid, :room_order, :claimed_root)
    ON CONFLICT (missing_event_id, event_nid) DO NOTHING
"""
_CLAIM: Final = """
    UPDATE gaps SET claimed_root = :claimed_root
    WHERE missing_event_id = :missing_event_id AND event_nid = :event_nid
"""
_ABOVE: Final = """
    SELECT missing_event_id, event_nid, room_order, claimed_root FROM gaps
    WHERE missing_event_id IN (:event_ids[])
"""
_AUTHORIZED_STATE: Final = """
    SELECT 1 FROM auth_edges a JOIN events e ON e.event_nid = a.event_nid
    JOIN current_state c ON c.room_nid = e.room_nid AND c.state_key_nid = e.state_key_nid
        AND c.event_nid = e.event_nid
    WHERE a.auth_nid = :event_nid LIMIT 1
"""
_CLOSE: Final = "DELETE FROM gaps WHERE missing_event_id IN (:event_ids[])"
_GAPS_BELOW: Final = """
    SELECT missing_event_id, event_nid, room_order FROM gaps
    WHERE room_nid = :room_nid AND room_order <= :upto ORDER BY room_order DESC LIMIT :limit
"""
_GAPS_BETWEEN: Final = """
    SELECT missing_event_id, event_nid, room_order FROM gaps
    WHERE room_nid = :room_nid AND room_order > :after AND room_order <= :upto
    ORDER BY room_order DESC LIMIT :limit
"""
_NEWEST_GAPS: Final = """
    SELECT room_nid, MAX(room_order) FROM gaps
    WHERE room_nid IN (:room_nids[]) AND room_order > :after AND room_order <= :upto GROUP BY room_nid
"""


def insert_auth_edges(txn: WriteTxn, edges: Iterable[tuple[int, int]]) -> None:
    """(state event, one of its auth events), by number. Called by `append` alone."""
    rows = [{"event_nid": event_nid, "auth_nid": auth_nid} for event_nid, auth_nid in edges]
    if rows:
        txn.execute_many(_INSERT_AUTH, rows)


def list_auth_nids(txn: ReadTxn, event_nids: Collection[int]) -> dict[int, list[int]]:
    """The auth events of state events, by number; an event without any is left out."""
    return _group(txn, _AUTH_OF, list(event_nids))


def list_citing_nids(txn: ReadTxn, auth_nids: Collection[int]) -> dict[int, list[int]]:
    """The state events that cite these as auth events, by number; one that none cites is left out."""
    return _group(txn, _CITING, list(auth_nids))


def list_auth_chain(txn: ReadTxn, event_nids: Collection[int]) -> set[int]:
    """The auth events of state events, theirs, and so on, by number. Cost: 1 query per 4,096 events."""
    chain: set[int] = set()
    for batch in in_batches(list(event_nids)):
        chain.update(row[0] for row in txn.all(_CHAIN, nids=batch))
    return chain


def insert_gaps(txn: WriteTxn, room_nid: int, gaps: Iterable[Gap]) -> None:
    """Note cited events that are not here. Called by `append` alone."""
    rows = [
        {
            "missing_event_id": gap.missing_event_id,
            "event_nid": gap.event_nid,
            "room_nid": room_nid,
            "room_order": gap.room_order,
            "claimed_root": gap.claimed_root,
        }
        for gap in gaps
    ]
    if rows:
        txn.execute_many(_INSERT_GAP, rows)


def claim_gaps(txn: WriteTxn, claims: Iterable[tuple[EventID, int, int]]) -> None:
    """Note (missing event, number of the event that cites it, root of the state after the missing one) of gaps that
    are there, as the states are claimed now."""
    txn.execute_many(
        _CLAIM,
        [
            {"missing_event_id": missing, "event_nid": nid, "claimed_root": root}
            for missing, nid, root in claims
        ],
    )


def close_gaps(txn: WriteTxn, event_ids: Sequence[EventID]) -> None:
    """These events have come. Called by `append` alone."""
    for batch in in_batches(event_ids):
        txn.execute(_CLOSE, event_ids=batch)


def list_gaps_above(txn: ReadTxn, event_ids: Collection[EventID]) -> list[Gap]:
    """Where events of the timeline cite these, which were missing."""
    return [Gap(*row) for batch in in_batches(list(event_ids)) for row in txn.all(_ABOVE, event_ids=batch)]


def does_authorize_state(txn: ReadTxn, event_nid: int) -> bool:
    """Whether an event of the current state of its room cites this one in auth_events."""
    return txn.first(_AUTHORIZED_STATE, event_nid=event_nid) is not None


def list_gaps_below(txn: ReadTxn, room_nid: int, upto: int, limit: int) -> list[Gap]:
    """The gaps next below a point of the timeline, the newest first: what to backfill when paging
    backwards."""
    return [Gap(*row) for row in txn.all(_GAPS_BELOW, room_nid=room_nid, upto=upto, limit=limit)]


def list_gaps_between(txn: ReadTxn, room_nid: int, after: int, upto: int, limit: int) -> list[Gap]:
    """The gaps under events in a stretch of the timeline, the newest first."""
    return [
        Gap(*row) for row in txn.all(_GAPS_BETWEEN, room_nid=room_nid, after=after, upto=upto, limit=limit)
    ]


def list_newest_gaps(txn: ReadTxn, room_nids: Collection[int], after: int, upto: int) -> dict[int, int]:
    """room_nid -> order of the newest event in a stretch of its timeline under which events are missing."""
    return {
        room_nid: order
        for batch in in_batches(list(room_nids))
        for room_nid, order in txn.all(_NEWEST_GAPS, room_nids=batch, after=after, upto=upto)
    }


def _group(txn: ReadTxn, sql: str, nids: list[int]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for batch in in_batches(nids):
        for nid, other in txn.all(sql, nids=batch):
            found.setdefault(nid, []).append(other)
    return found
