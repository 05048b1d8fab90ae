"""Rooms: their number, version and head, what lists show of them, and which are blocked.

Tables: rooms, room_summaries, blocked_rooms. Owner: services.rooms. Growth: one row a room.
Index -> query: room_id -> find; primary keys -> everything else.

The head of a room is what the next event is built on. `append` alone writes it.
"""

from collections.abc import Collection
from typing import Final

import msgspec

from ranvier.core.identifiers import RoomID
from ranvier.store.database import ReadTxn, Row, WriteTxn
from ranvier.store.tables.admin_tasks import DELETE_ROOM
from ranvier.store.tables.batches import in_batches


class Room(msgspec.Struct, frozen=True):
    """A room and its head."""

    room_nid: int
    room_id: RoomID
    version: str
    revision: int  # of the head: `append` takes it back and raises Conflict if it is no longer this one
    extremities: tuple[int, ...]  # event_nids, ascending
    state_root: int  # the room's state now
    is_partial: bool
    newest_position: int
    newest_local_position: int
    joined_count: int
    invited_count: int


class RoomSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What lists of rooms show and filter by, as the current state has it."""

    name: str | None = None
    topic: str | None = None
    avatar_url: str | None = None
    canonical_alias: str | None = None
    room_type: str | None = None
    join_rule: str | None = None
    history_visibility: str | None = None
    guest_can_join: bool = False
    encryption: str | None = None  # the algorithm; None: not encrypted
    predecessor_room_id: str | None = None
    successor_room_id: str | None = None


_COLUMNS: Final = """
    room_nid, room_id, version, revision, extremities, state_root, is_partial, newest_position,
    newest_local_position,
    joined_count, invited_count
"""
_SUMMARY_FIELDS: Final = RoomSummary.__struct_fields__
_SUMMARY_COLUMNS: Final = ", ".join(_SUMMARY_FIELDS)

_INSERT: Final = """
    INSERT INTO rooms (room_id, version) VALUES (:room_id, :version)
    ON CONFLICT (room_id) DO NOTHING
"""
_FIND: Final = f"SELECT {_COLUMNS} FROM rooms WHERE room_id = :room_id"  # noqa: S608
_LIST_BY_ID: Final = f"SELECT {_COLUMNS} FROM rooms WHERE room_id IN (:room_ids[])"  # noqa: S608
_LIST: Final = f"SELECT {_COLUMNS} FROM rooms WHERE room_nid IN (:nids[])"  # noqa: S608
_CHANGED: Final = """
    SELECT room_nid, newest_position FROM rooms WHERE room_nid IN (:nids[]) AND newest_position > :after
"""
_ACTIVE: Final = "SELECT room_nid FROM rooms WHERE newest_position > :after ORDER BY room_nid"
_CORRECT_VERSION: Final = """
    UPDATE rooms SET version = :version WHERE room_nid = :room_nid AND state_root = 0
"""
_SET_PARTIAL: Final = "UPDATE rooms SET is_partial = :is_partial WHERE room_nid = :room_nid"
_UPSERT_SUMMARY: Final = f"""
    INSERT INTO room_summaries (room_nid, {_SUMMARY_COLUMNS})
    VALUES (:room_nid, {", ".join(f":{field}" for field in _SUMMARY_FIELDS)})
    ON CONFLICT (room_nid) DO UPDATE SET {
    ", ".join(f"{field} = excluded.{field}" for field in _SUMMARY_FIELDS)
}
"""  # noqa: S608
_LIST_SUMMARIES: Final = (
    f"SELECT room_nid, {_SUMMARY_COLUMNS} FROM room_summaries WHERE room_nid IN (:nids[])"  # noqa: S608
)
_BLOCK: Final = """
    INSERT INTO blocked_rooms (room_id, blocked_by, blocked_ms) VALUES (:room_id, :blocked_by, :now_ms)
    ON CONFLICT (room_id) DO NOTHING
"""
_UNBLOCK: Final = "DELETE FROM blocked_rooms WHERE room_id = :room_id"
_IS_BLOCKED: Final = f"""
    SELECT 1 FROM blocked_rooms WHERE room_id = :room_id
    UNION ALL
    SELECT 1 FROM admin_tasks WHERE resource_id = :room_id AND action = '{DELETE_ROOM}'
        AND status IN ('scheduled', 'active')
"""  # noqa: S608
_BLOCKED_BY: Final = "SELECT blocked_by FROM blocked_rooms WHERE room_id = :room_id"


def insert_room(txn: WriteTxn, room_id: RoomID, version: str) -> Room:
    """The room, made without events if it is not here yet; a room that is here keeps its version."""
    txn.execute(_INSERT, room_id=room_id, version=version)
    room = find_room(txn, room_id)
    assert room is not None, "it was inserted, or it was there"
    return room


def find_room(txn: ReadTxn, room_id: RoomID) -> Room | None:
    row = txn.first(_FIND, room_id=room_id)
    return None if row is None else room_of(row)


def correct_version(txn: WriteTxn, room_nid: int, version: str) -> None:
    """Note the true version of a room of which only invites or knocks are known: the first of them may have
    named a wrong one. Does nothing for a room whose state is known."""
    txn.execute(_CORRECT_VERSION, room_nid=room_nid, version=version)


def list_rooms(txn: ReadTxn, room_nids: Collection[int]) -> dict[int, Room]:
    """Rooms by number. Cost: 1 query per 4,096."""
    nids = list(room_nids)
    return {row[0]: room_of(row) for batch in in_batches(nids) for row in txn.all(_LIST, nids=batch)}


def list_rooms_by_id(txn: ReadTxn, room_ids: Collection[RoomID]) -> dict[RoomID, Room]:
    """Rooms by id; those that are not known here are left out. Cost: 1 query per 4,096."""
    ids = list(room_ids)
    return {row[1]: room_of(row) for batch in in_batches(ids) for row in txn.all(_LIST_BY_ID, room_ids=batch)}


def list_changed_rooms(txn: ReadTxn, room_nids: Collection[int], after: int) -> dict[int, int]:
    """Those of the rooms that got live events after a position, each with the newest such position."""
    nids = list(room_nids)
    return {
        nid: position
        for batch in in_batches(nids)
        for nid, position in txn.all(_CHANGED, nids=batch, after=after)
    }


def list_active_rooms(txn: ReadTxn, after: int) -> list[int]:
    """All rooms that got live events after a position. Cost: reads the table of rooms."""
    return [row[0] for row in txn.all(_ACTIVE, after=after)]


def update_partial(txn: WriteTxn, room_nid: int, is_partial: bool) -> None:
    """Note whether the room's state is still incomplete after a join by federation."""
    txn.execute(_SET_PARTIAL, room_nid=room_nid, is_partial=int(is_partial))


def upsert_summary(txn: WriteTxn, room_nid: int, summary: RoomSummary) -> None:
    """Replace what lists show of the room. Call it in the transaction whose append changed it."""
    fields = {
        name: _storable(value) if isinstance(value, str) else value
        for name, value in msgspec.structs.asdict(summary).items()
    }
    fields["guest_can_join"] = int(summary.guest_can_join)
    txn.execute(_UPSERT_SUMMARY, room_nid=room_nid, **fields)


def list_summaries(txn: ReadTxn, room_nids: Collection[int]) -> dict[int, RoomSummary]:
    """The summaries of those rooms that have one. Cost: 1 query per 4,096."""
    nids = list(room_nids)
    return {
        row[0]: summary_of(row[1:])
        for batch in in_batches(nids)
        for row in txn.all(_LIST_SUMMARIES, nids=batch)
    }


def block_room(txn: WriteTxn, room_id: RoomID, blocked_by: str, now_ms: int) -> None:
    """Nobody of this server may enter the room any more. The room need not be known here."""
    txn.execute(_BLOCK, room_id=room_id, blocked_by=blocked_by, now_ms=now_ms)


def unblock_room(txn: WriteTxn, room_id: RoomID) -> None:
    txn.execute(_UNBLOCK, room_id=room_id)


def find_blocker(txn: ReadTxn, room_id: RoomID) -> str | None:
    """The administrator who blocked the room; None: nobody did."""
    value: str | None = txn.value(_BLOCKED_BY, room_id=room_id)
    return value


def is_blocked(txn: ReadTxn, room_id: RoomID) -> bool:
    """Whether nobody of this server may enter: the room is blocked, or just being deleted."""
    return txn.value(_IS_BLOCKED, room_id=room_id) is not None


def room_of(row: Row) -> Room:
    """The record of a row of the columns above."""
    nid, room_id, version, revision, extremities, root, is_partial, newest, newest_local, joined, invited = (
        row
    )
    return Room(
        nid,
        room_id,
        version,
        revision,
        decode_extremities(extremities),
        root,
        is_partial == 1,
        newest,
        newest_local,
        joined,
        invited,
    )


def summary_of(row: Row) -> RoomSummary:
    """The record of a row of `_SUMMARY_COLUMNS`."""
    fields = dict(zip(_SUMMARY_FIELDS, row, strict=True))
    fields["guest_can_join"] = fields["guest_can_join"] == 1
    return RoomSummary(**fields)


def decode_extremities(stored: str) -> tuple[int, ...]:
    return tuple(msgspec.json.decode(stored, type=list[int]))


def encode_extremities(event_nids: Collection[int]) -> str:
    return msgspec.json.encode(sorted(event_nids)).decode()


def _storable(text: str) -> str:
    """Names and topics may be any JSON string; PostgreSQL's text holds all but U+0000."""
    return text.replace("\0", "")
