"""Which redaction names which event, and which originals are still kept.

Tables: redactions, redacted_originals; events.redacted_by and, later, events.json. Growth: one row a
redaction.
Index -> query: (target, redaction) -> the redactions that wait for an event; primary key -> originals to
drop.
"""

from collections.abc import Collection
from typing import Final

from ranvier.core.identifiers import EventID
from ranvier.store.database import ReadTxn, WriteTxn
from ranvier.store.tables.batches import in_batches
from ranvier.store.tables.notifications import retract_notification
from ranvier.store.tables.relations import delete_relation

_INSERT: Final = """
    INSERT INTO redactions (target_event_id, redaction_nid) VALUES (:target_event_id, :redaction_nid)
    ON CONFLICT (target_event_id, redaction_nid) DO NOTHING
"""
_TARGET: Final = """
    SELECT event_nid FROM events WHERE event_id = :event_id AND room_nid = :room_nid AND redacted_by IS NULL
"""
_REDACT: Final = "UPDATE events SET redacted_by = :redaction_nid WHERE event_nid = :event_nid"
_KEEP_ORIGINAL: Final = """
    INSERT INTO redacted_originals (event_nid, redacted_ms) VALUES (:event_nid, :redacted_ms)
    ON CONFLICT (event_nid) DO NOTHING
"""
_FIND: Final = """
    SELECT target_event_id, redaction_nid FROM redactions WHERE target_event_id IN (:event_ids[])
    ORDER BY redaction_nid
"""
_ORIGINALS: Final = """
    SELECT event_nid FROM redacted_originals WHERE redacted_ms < :before_ms ORDER BY event_nid LIMIT :limit
"""
_REPLACE_JSON: Final = (
    "UPDATE events SET json = :json WHERE event_nid = :event_nid AND redacted_by IS NOT NULL"
)
_LIFT_KEPT: Final = """
    DELETE FROM redacted_originals WHERE event_nid IN (
        SELECT e.event_nid FROM redactions r JOIN events e ON e.event_id = r.target_event_id
        WHERE r.redaction_nid = :redaction_nid AND e.redacted_by = :redaction_nid
    )
"""
_LIFT: Final = """
    UPDATE events SET redacted_by = NULL WHERE redacted_by = :redaction_nid AND event_id IN (
        SELECT target_event_id FROM redactions WHERE redaction_nid = :redaction_nid
    )
"""
_DELETE: Final = "DELETE FROM redactions WHERE redaction_nid = :redaction_nid"
_FORGET_ORIGINALS: Final = "DELETE FROM redacted_originals WHERE event_nid IN (:event_nids[])"


def insert_redaction(txn: WriteTxn, target_event_id: EventID, redaction_nid: int) -> None:
    """Note that a redaction of the timeline names an event, here or not. Called by `append` alone."""
    txn.execute(_INSERT, target_event_id=target_event_id, redaction_nid=redaction_nid)


def redact_event(
    txn: WriteTxn, room_nid: int, target_event_id: EventID, redaction_nid: int, now_ms: int
) -> None:
    """Let a redaction take effect on an event of its room, if it is here and not redacted yet.

    Effects: events.redacted_by, redacted_originals, relations and threads, unread counts.
    """
    event_nid = txn.value(_TARGET, event_id=target_event_id, room_nid=room_nid)
    if event_nid is None:
        return
    txn.execute(_REDACT, event_nid=event_nid, redaction_nid=redaction_nid)
    keep_original(txn, event_nid, now_ms)
    delete_relation(txn, event_nid)
    retract_notification(txn, room_nid, event_nid)


def keep_original(txn: WriteTxn, event_nid: int, now_ms: int) -> None:
    """Note that a redacted event's JSON is still the original."""
    txn.execute(_KEEP_ORIGINAL, event_nid=event_nid, redacted_ms=now_ms)


def lift_redaction(txn: WriteTxn, redaction_nid: int) -> None:
    """What a redaction took away was not its to take. What the event related to stays away."""
    txn.execute(_LIFT_KEPT, redaction_nid=redaction_nid)
    txn.execute(_LIFT, redaction_nid=redaction_nid)


def delete_redaction(txn: WriteTxn, redaction_nid: int) -> None:
    """The redaction is none of the room's events after all."""
    lift_redaction(txn, redaction_nid)
    txn.execute(_DELETE, redaction_nid=redaction_nid)


def list_redactions(txn: ReadTxn, event_ids: Collection[EventID]) -> dict[EventID, list[int]]:
    """The redactions that name these events, oldest first, by event_nid: whether one may take effect is for
    the room version's rules to say."""
    found: dict[EventID, list[int]] = {}
    for batch in in_batches(list(event_ids)):
        for event_id, nid in txn.all(_FIND, event_ids=batch):
            found.setdefault(event_id, []).append(nid)
    return found


def list_originals(txn: ReadTxn, before_ms: int, limit: int) -> list[int]:
    """Events redacted before a time whose original JSON is still stored."""
    return [row[0] for row in txn.all(_ORIGINALS, before_ms=before_ms, limit=limit)]


def replace_original(txn: WriteTxn, event_nid: int, redacted_json: bytes) -> None:
    """Replace a redacted event's JSON by its redacted form, for good."""
    txn.execute(_REPLACE_JSON, event_nid=event_nid, json=redacted_json)


def forget_originals(txn: WriteTxn, event_nids: Collection[int]) -> None:
    """No longer note that the originals of these events are stored."""
    for batch in in_batches(list(event_nids)):
        txn.execute(_FORGET_ORIGINALS, event_nids=batch)
