"""Events that users want sent later, and what became of them.

Table: delayed_events. Owner: services.delayed_events. Growth: bounded for each user, both what waits and what is
finalised. Index -> query: delay_id -> find; UNIQUE (…, txn_id) -> the same request again;
delayed_events_by_time -> what is due; delayed_events_by_user -> list, count, forget.

Whoever sends one claims it for a while first: then nobody else sends, restarts or cancels it. When the process
dies, the claim ends and another one sends it.
"""

from typing import Final

import msgspec

from ranvier.core.identifiers import EventID, RoomID
from ranvier.store.database import Kind, ReadTxn, Row, WriteTxn


class NewDelayedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """What a user wants sent later."""

    delay_id: str
    user_nid: int
    device_id: str  # "" if the token belongs to no device
    txn_id: str | None
    room_id: RoomID
    type: str
    state_key: str | None
    content: bytes  # JSON
    origin_server_ts: int | None
    sticky_ms: int | None
    delay_ms: int


class DelayedEvent(msgspec.Struct, frozen=True):
    delay_nid: int
    delay_id: str
    user_nid: int
    room_id: RoomID
    type: str
    state_key: str | None
    content: bytes  # JSON
    origin_server_ts: int | None
    sticky_ms: int | None
    delay_ms: int
    scheduled_ms: int
    run_ms: int | None  # None: finalised
    is_claimed: bool
    finalised_ms: int | None
    event_id: EventID | None
    error: bytes | None  # JSON


_SELECT: Final = """
    SELECT delay_nid, delay_id, user_nid, room_id, type, state_key, content, origin_server_ts, sticky_ms,
        delay_ms, scheduled_ms, run_ms, is_claimed, finalised_ms, event_id, error
    FROM delayed_events
"""
_INSERT: Final = """
    INSERT INTO delayed_events (delay_nid, delay_id, user_nid, device_id, txn_id, room_id, type, state_key,
        content, origin_server_ts, sticky_ms, delay_ms, scheduled_ms, run_ms)
    VALUES (:delay_nid, :delay_id, :user_nid, :device_id, :txn_id, :room_id, :type, :state_key, :content,
        :origin_server_ts, :sticky_ms, :delay_ms, :now_ms, :run_ms)
"""
_FIND: Final = f"{_SELECT} WHERE delay_id = :delay_id"
_FIND_REQUEST: Final = """
    SELECT delay_id FROM delayed_events
    WHERE user_nid = :user_nid AND device_id = :device_id AND room_id = :room_id AND type = :type
        AND txn_id = :txn_id
"""
_LIST: Final = f"""
    {_SELECT} WHERE user_nid = :user_nid AND finalised_ms IS NULL
    ORDER BY scheduled_ms + delay_ms, delay_nid
"""
_COUNT: Final = """
    SELECT COUNT(*), MIN(scheduled_ms + delay_ms) FROM delayed_events
    WHERE user_nid = :user_nid AND finalised_ms IS NULL
"""
_DUE: Final = f"""
    {_SELECT} WHERE run_ms <= :now_ms
    ORDER BY run_ms, delay_nid LIMIT :limit {{skip_locked}}
"""
_CLAIM: Final = """
    UPDATE delayed_events SET is_claimed = 1, run_ms = :until_ms WHERE delay_nid = :delay_nid
"""
_RESCHEDULE: Final = """
    UPDATE delayed_events SET is_claimed = 0, scheduled_ms = :scheduled_ms, run_ms = :run_ms
    WHERE delay_nid = :delay_nid AND finalised_ms IS NULL
"""
_FINALISE: Final = """
    UPDATE delayed_events SET is_claimed = 0, run_ms = NULL, finalised_ms = :now_ms, event_id = :event_id,
        error = :error
    WHERE delay_nid = :delay_nid AND finalised_ms IS NULL
"""
_FORGET: Final = """
    DELETE FROM delayed_events WHERE user_nid = :user_nid AND (finalised_ms < :before_ms OR finalised_ms <= (
        SELECT finalised_ms FROM delayed_events WHERE user_nid = :user_nid AND finalised_ms IS NOT NULL
        ORDER BY finalised_ms DESC LIMIT 1 OFFSET :kept
    ))
"""
_NEXT: Final = "SELECT MIN(run_ms) FROM delayed_events WHERE run_ms IS NOT NULL"

KEPT_MS: Final = 7 * 24 * 3_600_000
KEPT: Final = 1_000
"""How long, and how many for each user, finalised events can be asked about. MSC4140 recommends both."""


def insert_delayed_event(txn: WriteTxn, new: NewDelayedEvent, now_ms: int) -> None:
    """Schedule it from now on."""
    fields = msgspec.structs.asdict(new)
    txn.execute(_INSERT, delay_nid=txn.next_position(), now_ms=now_ms, run_ms=now_ms + new.delay_ms, **fields)
    txn.hint(Kind.JOB, 0)


def find_delayed_event(txn: ReadTxn, delay_id: str) -> DelayedEvent | None:
    row = txn.first(_FIND, delay_id=delay_id)
    return None if row is None else _delayed(row)


def find_same_request(txn: ReadTxn, new: NewDelayedEvent) -> str | None:
    """The delay id that this very request got before, or None."""
    value: str | None = txn.value(
        _FIND_REQUEST,
        user_nid=new.user_nid,
        device_id=new.device_id,
        room_id=new.room_id,
        type=new.type,
        txn_id=new.txn_id,
    )
    return value


def list_scheduled(txn: ReadTxn, user_nid: int) -> list[DelayedEvent]:
    """What a user has scheduled, the next one first."""
    return [_delayed(row) for row in txn.all(_LIST, user_nid=user_nid)]


def count_scheduled(txn: ReadTxn, user_nid: int) -> tuple[int, int]:
    """How many a user has scheduled, and when the next one is due (0 if there is none)."""
    row = txn.first(_COUNT, user_nid=user_nid)
    return (0, 0) if row is None else (row[0], row[1] or 0)


def claim_due(txn: WriteTxn, now_ms: int, until_ms: int, limit: int) -> list[DelayedEvent]:
    """Take events that are due, for oneself until `until_ms`; those due first come first."""
    due = [_delayed(row) for row in txn.all(_DUE, now_ms=now_ms, limit=limit)]
    txn.execute_many(_CLAIM, [{"delay_nid": one.delay_nid, "until_ms": until_ms} for one in due])
    return due


def claim(txn: WriteTxn, delay_nid: int, until_ms: int) -> None:
    txn.execute(_CLAIM, delay_nid=delay_nid, until_ms=until_ms)


def reschedule(txn: WriteTxn, delay_nid: int, scheduled_ms: int, run_ms: int) -> None:
    """Nobody sends it just now: it is due at `run_ms`."""
    txn.execute(_RESCHEDULE, delay_nid=delay_nid, scheduled_ms=scheduled_ms, run_ms=run_ms)
    txn.hint(Kind.JOB, 0)


def finalise(
    txn: WriteTxn,
    delayed: DelayedEvent,
    now_ms: int,
    event_id: EventID | None = None,
    error: bytes | None = None,
) -> None:
    """It was sent (`event_id`), failed (`error`, JSON) or was canceled. Old ones of the user are forgotten."""
    txn.execute(_FINALISE, delay_nid=delayed.delay_nid, now_ms=now_ms, event_id=event_id, error=error)
    txn.execute(_FORGET, user_nid=delayed.user_nid, before_ms=now_ms - KEPT_MS, kept=KEPT)


def find_next_due_ms(txn: ReadTxn) -> int | None:
    """When the next event is due (or the next claim ends), or None without any."""
    value: int | None = txn.value(_NEXT)
    return value


def _delayed(row: Row) -> DelayedEvent:
    delayed = DelayedEvent(*row)
    return msgspec.structs.replace(delayed, is_claimed=bool(delayed.is_claimed))
