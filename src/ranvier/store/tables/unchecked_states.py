"""Rooms of which a state was taken without events that could not be checked at the time.

Tables: unchecked_states, unchecked_history. What came into such a room since is in partial_events, to be decided again
when the keys are here.
Growth: a row for each such room, and for events of its past, until the keys are here or are given up.
"""

from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from ranvier.core.identifiers import EventID, KeyID, ServerName
from ranvier.store.database import ReadTxn, WriteTxn
from ranvier.store.tables.rooms import decode_extremities

MAX_WANTED: Final = 200
"""Keys of one room that are waited for."""

MAX_CLAIMS: Final = 50
"""States of one room that are asked for again."""


class AskedState(msgspec.Struct, frozen=True, array_like=True):
    """A state that a server was asked for."""

    server: ServerName
    event_id: EventID
    is_after: bool  # the state after the event, which is not here; or that before it


class WantedKey(msgspec.Struct, frozen=True, array_like=True):
    """A key that could not be had, and when it must have been valid (ms); None: at any time."""

    server: ServerName
    key_id: KeyID
    valid_at_ms: int | None


class UncheckedState(msgspec.Struct, frozen=True):
    """See the schema."""

    room_nid: int
    entered_nid: int
    extremities: tuple[int, ...]
    state_root: int
    claims: Sequence[AskedState]
    wanted: Sequence[WantedKey]
    since_ms: int


_FIND: Final = """
    SELECT room_nid, entered_nid, extremities, state_root, claims, wanted, since_ms FROM unchecked_states
    WHERE room_nid = :room_nid
"""
_INSERT_ENTRANCE: Final = """
    INSERT INTO unchecked_states (room_nid, entered_nid, extremities, state_root, claims, wanted, since_ms)
    VALUES (:room_nid, 0, '[]', 0, :claims, :wanted, :since_ms)
"""
_SET_ENTERED: Final = "UPDATE unchecked_states SET entered_nid = :event_nid WHERE room_nid = :room_nid"
_INSERT_GAP: Final = """
    INSERT INTO unchecked_states (room_nid, entered_nid, extremities, state_root, claims, wanted, since_ms)
    SELECT room_nid, 0, extremities, state_root, :claims, :wanted, :since_ms FROM rooms
    WHERE room_nid = :room_nid AND is_partial = 0
"""
_UPDATE: Final = "UPDATE unchecked_states SET claims = :claims, wanted = :wanted WHERE room_nid = :room_nid"
_TOUCH: Final = """
    UPDATE rooms SET newest_position = {greatest}(newest_position, :position) WHERE room_nid = :room_nid
"""
_INSERT_HISTORY: Final = """
    INSERT INTO unchecked_history (room_nid, event_id) VALUES (:room_nid, :event_id)
    ON CONFLICT (room_nid, event_id) DO NOTHING
"""
_HISTORY: Final = """
    SELECT e.event_nid FROM unchecked_history h JOIN events e ON e.event_id = h.event_id
    WHERE h.room_nid = :room_nid AND e.room_nid = h.room_nid AND e.state_root IS NOT NULL
"""
_DELETE_HISTORY: Final = "DELETE FROM unchecked_history WHERE room_nid = :room_nid"
_DELETE: Final = "DELETE FROM unchecked_states WHERE room_nid = :room_nid"


def find(txn: ReadTxn, room_nid: int) -> UncheckedState | None:
    """The room, if it is one of these."""
    row = txn.first(_FIND, room_nid=room_nid)
    if row is None:
        return None
    nid, entered_nid, extremities, state_root, claims, wanted, since_ms = row
    return UncheckedState(
        nid,
        entered_nid,
        decode_extremities(extremities),
        state_root,
        msgspec.json.decode(claims, type=list[AskedState]),
        msgspec.json.decode(wanted, type=list[WantedKey]),
        since_ms,
    )


def begin_entrance(
    txn: WriteTxn, room_nid: int, claim: AskedState, wanted: Collection[WantedKey], now_ms: int
) -> None:
    """This server is about to enter a room on such a state: call `note_entrance` when the event is stored."""
    forget(txn, room_nid)
    txn.execute(_INSERT_ENTRANCE, room_nid=room_nid, since_ms=now_ms, **_encode([claim], list(wanted)))


def note_entrance(txn: WriteTxn, room_nid: int, event_nid: int) -> None:
    """It entered by this event."""
    txn.execute(_SET_ENTERED, room_nid=room_nid, event_nid=event_nid)


def add(
    txn: WriteTxn,
    room_nid: int,
    claims: Collection[AskedState],
    wanted: Collection[WantedKey],
    now_ms: int,
) -> bool:
    """Such states are about to be taken into a room, at gaps. False: its state is not whole anyway."""
    known = find(txn, room_nid)
    if known is None:
        rows = _encode(list(claims), list(wanted))
        return txn.execute(_INSERT_GAP, room_nid=room_nid, since_ms=now_ms, **rows) > 0
    merged = list(dict.fromkeys((*known.claims, *claims)))
    txn.execute(_UPDATE, room_nid=room_nid, **_encode(merged, list(dict.fromkeys((*known.wanted, *wanted)))))
    return True


def add_history(txn: WriteTxn, room_nid: int, event_ids: Collection[EventID]) -> None:
    """These events of the past are about to be stored on such a state."""
    txn.execute_many(_INSERT_HISTORY, [{"room_nid": room_nid, "event_id": one} for one in event_ids])


def list_history(txn: ReadTxn, room_nid: int) -> list[int]:
    """Those of them that were stored."""
    return [row[0] for row in txn.all(_HISTORY, room_nid=room_nid)]


def update_wanted(txn: WriteTxn, known: UncheckedState, wanted: Collection[WantedKey]) -> None:
    """These keys are waited for now."""
    txn.execute(_UPDATE, room_nid=known.room_nid, **_encode(known.claims, list(wanted)))


def note_decided(txn: WriteTxn, room_nid: int) -> None:
    """What came into the room was decided again: who has read all of it is to look once more."""
    txn.execute(_TOUCH, room_nid=room_nid, position=txn.next_position())


def forget(txn: WriteTxn, room_nid: int) -> None:
    """Nothing is waited for any more."""
    txn.execute(_DELETE, room_nid=room_nid)
    txn.execute(_DELETE_HISTORY, room_nid=room_nid)


def _encode(claims: Sequence[AskedState], wanted: Sequence[WantedKey]) -> dict[str, bytes]:
    return {
        "claims": msgspec.json.encode(claims[:MAX_CLAIMS]),
        "wanted": msgspec.json.encode(wanted[:MAX_WANTED]),
    }
