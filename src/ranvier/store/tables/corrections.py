"""Events that were decided again: what they are instead of what they were taken for.

Tables: events, late_events, and what follows from events being shown or not (redactions, relations, unread counts,
gaps). The room's head and state are changed by `append`, in the same transaction.
"""

from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from ranvier.core.events.pdu import Pdu
from ranvier.store.database import ReadTxn, WriteTxn
from ranvier.store.tables import edges, redactions, relations
from ranvier.store.tables.batches import in_batches
from ranvier.store.tables.events import EventRecord, Status, list_known
from ranvier.store.tables.notifications import retract_notification
from ranvier.store.tables.timeline import live_order


class Correction(msgspec.Struct, frozen=True):
    """One of them."""

    record: EventRecord  # as it is stored
    pdu: Pdu
    status: Status
    state_root: int | None  # of the state before it
    redacts_target: bool  # a redaction that may take effect
    redacted_by: int | None  # a redaction that may take effect on it, and that came before it


_CORRECT: Final = """
    UPDATE events SET status = :status, state_root = :state_root, room_order = :room_order
    WHERE event_nid = :event_nid
"""
_SET_ROOT: Final = "UPDATE events SET state_root = :state_root WHERE event_nid = :event_nid"
_REJECT: Final = "UPDATE events SET status = :rejected WHERE event_nid IN (:nids[]) AND status = :outlier"
_OUTLIERS: Final = "SELECT event_nid FROM events WHERE event_nid IN (:nids[]) AND status = :outlier"
_INSERT_LATE: Final = "INSERT INTO late_events (position, event_nid) VALUES (:position, :event_nid)"
_DELETE_LATE: Final = "DELETE FROM late_events WHERE event_nid = :event_nid"
_DELETE_GAPS: Final = "DELETE FROM gaps WHERE room_nid = :room_nid AND event_nid = :event_nid"
_NEWEST: Final = """
    UPDATE rooms SET newest_position = {greatest}(newest_position, :position) WHERE room_nid = :room_nid
"""


def correct_events(txn: WriteTxn, room_nid: int, corrections: Sequence[Correction], now_ms: int) -> None:
    """Write what the events are. What is accepted now and was not comes to the end of the timeline.

    Cost: 1 statement for all whose status stays; some ten for each other one.
    """
    rows: list[dict[str, object]] = []
    for one in corrections:
        record = one.record
        was_shown, is_shown = record.status is Status.ACCEPTED, one.status is Status.ACCEPTED
        order = record.room_order if is_shown else None
        if is_shown and not was_shown:
            order = _show(txn, room_nid, one, now_ms)
        elif was_shown and not is_shown:
            _hide(txn, room_nid, one)
        elif is_shown and one.pdu.redacts is not None:
            _redact(txn, room_nid, one, now_ms)
        rows.append(
            {
                "event_nid": record.event_nid,
                "status": int(one.status),
                "state_root": one.state_root,
                "room_order": order,
            }
        )
    txn.execute_many(_CORRECT, rows)


def correct_roots(txn: WriteTxn, roots: Collection[tuple[int, int]]) -> None:
    """Write (event_nid, root of the state before it) of events that are what they were. Cost: 1 statement."""
    txn.execute_many(_SET_ROOT, [{"event_nid": nid, "state_root": root} for nid, root in roots])


def list_citing_outliers(txn: ReadTxn, event_nids: Collection[int]) -> set[int]:
    """What cites these events among what authorizes it, and is known for what it authorizes alone; what cites that in
    turn, too. Cost: 2 queries for each step."""
    found: set[int] = set()
    waiting = list(event_nids)
    while waiting:
        citing = {nid for several in edges.list_citing_nids(txn, waiting).values() for nid in several}
        waiting = [
            row[0]
            for nids in in_batches(list(citing - found))
            for row in txn.all(_OUTLIERS, nids=nids, outlier=int(Status.OUTLIER))
        ]
        found.update(waiting)
    return found


def reject_outliers(txn: WriteTxn, event_nids: Collection[int]) -> None:
    """These cite what is rejected: they are so, too."""
    for nids in in_batches(list(event_nids)):
        txn.execute(_REJECT, nids=nids, outlier=int(Status.OUTLIER), rejected=int(Status.REJECTED_OUTLIER))


def _show(txn: WriteTxn, room_nid: int, one: Correction, now_ms: int) -> int:
    """Returns its place in the timeline."""
    pdu, nid = one.pdu, one.record.event_nid
    position = txn.next_position()
    order = live_order(position)
    txn.execute(_INSERT_LATE, position=position, event_nid=nid)
    txn.execute(_NEWEST, position=position, room_nid=room_nid)
    relation = relations.relation_of(pdu)
    if relation is not None and one.redacted_by is None:
        relations.insert_relation(txn, relation, pdu, nid, order, room_nid, one.record.sender_nid)
    if pdu.redacts is not None:
        redactions.insert_redaction(txn, pdu.redacts, nid)
        _redact(txn, room_nid, one, now_ms)
    if one.redacted_by is not None:
        redactions.redact_event(txn, room_nid, pdu.event_id, one.redacted_by, now_ms)
    known = list_known(txn, pdu.prev_events)
    edges.insert_gaps(
        txn,
        room_nid,
        [
            edges.Gap(event_id, nid, order)
            for event_id in pdu.prev_events
            if event_id not in known or known[event_id].status.is_outlier
        ],
    )
    return order


def _hide(txn: WriteTxn, room_nid: int, one: Correction) -> None:
    nid = one.record.event_nid
    txn.execute(_DELETE_LATE, event_nid=nid)
    txn.execute(_DELETE_GAPS, room_nid=room_nid, event_nid=nid)
    relations.delete_relation(txn, nid)
    retract_notification(txn, room_nid, nid)
    if one.pdu.redacts is not None:
        redactions.delete_redaction(txn, nid)


def _redact(txn: WriteTxn, room_nid: int, one: Correction, now_ms: int) -> None:
    """Let a redaction take effect, or take none, on the event that it names."""
    target = one.pdu.redacts
    assert target is not None, "only redactions come here"
    if one.redacts_target:
        redactions.redact_event(txn, room_nid, target, one.record.event_nid, now_ms)
    else:
        redactions.lift_redaction(txn, one.record.event_nid)
