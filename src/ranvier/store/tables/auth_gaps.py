"""State events that came before what authorizes them: the auth graph grows downwards where that comes later.

An invite to a room that this server is not in is one, and so is any other membership there: nothing of the room is
here when it is stored. When the room is entered, all that it cites comes. From then on it is a node of the graph like
any other: without its edges a resolution would not let it in which others agree on, and the room would split.

Tables: auth_gaps, auth_edges, events.auth_depth. Written by `append` alone.
Growth: one row for each cited event that is missing, until it comes.
Index -> query: missing event -> it has come; citing event -> it goes.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from ranvier.core.identifiers import EventID
from ranvier.store.database import WriteTxn
from ranvier.store.tables.batches import in_batches
from ranvier.store.tables.edges import insert_auth_edges, list_citing_nids

MAX_STEPS: Final = 100
"""Up from an event whose auth depth grew. What is there when a room is entered is a few steps high; ids of rooms v1
and v2 can be made to cite each other in a circle, which has no end."""

_INSERT: Final = """
    INSERT INTO auth_gaps (missing_event_id, event_nid) VALUES (:missing_event_id, :event_nid)
    ON CONFLICT (missing_event_id, event_nid) DO NOTHING
"""
_ABOVE: Final = """
    SELECT g.missing_event_id, g.event_nid FROM auth_gaps g JOIN events e ON e.event_nid = g.event_nid
    WHERE g.missing_event_id IN (:event_ids[]) AND e.room_nid = :room_nid
"""
_CLOSE: Final = "DELETE FROM auth_gaps WHERE missing_event_id = :missing_event_id AND event_nid = :event_nid"
_DEPTHS: Final = """
    SELECT a.event_nid, 1 + MAX(e.auth_depth) FROM auth_edges a JOIN events e ON e.event_nid = a.auth_nid
    WHERE a.event_nid IN (:nids[]) AND e.auth_depth IS NOT NULL GROUP BY a.event_nid
"""
_RAISE: Final = """
    UPDATE events SET auth_depth = :auth_depth WHERE event_nid = :event_nid AND auth_depth < :auth_depth
"""


def insert_auth_gaps(txn: WriteTxn, gaps: Iterable[tuple[EventID, int]]) -> None:
    """(an event that is not here, the number of a state event that cites it in auth_events)."""
    rows = [{"missing_event_id": event_id, "event_nid": nid} for event_id, nid in gaps]
    if rows:
        txn.execute_many(_INSERT, rows)


def close_auth_gaps(txn: WriteTxn, room_nid: int, arrived: Mapping[EventID, int]) -> None:
    """These state events of a room have come, and have numbers: link up what cites them and was here before.

    Cost: 1 query per 4,096 events; a few more where something waited for them.
    """
    found = [
        (EventID(missing), nid)
        for batch in in_batches(list(arrived))
        for missing, nid in txn.all(_ABOVE, event_ids=batch, room_nid=room_nid)
    ]
    if not found:
        return
    txn.execute_many(_CLOSE, [{"missing_event_id": missing, "event_nid": nid} for missing, nid in found])
    insert_auth_edges(txn, [(nid, arrived[missing]) for missing, nid in found])
    _raise_depths(txn, {nid for _, nid in found})


def _raise_depths(txn: WriteTxn, nids: Collection[int]) -> None:
    waiting = set(nids)
    for _ in range(MAX_STEPS):
        if not waiting:
            return
        depths = [row for batch in in_batches(list(waiting)) for row in txn.all(_DEPTHS, nids=batch)]
        raised = [nid for nid, depth in depths if txn.execute(_RAISE, event_nid=nid, auth_depth=depth)]
        waiting = {nid for above in list_citing_nids(txn, raised).values() for nid in above}
