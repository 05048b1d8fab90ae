"""Room aliases of this server.

Table: aliases. Owner: services.rooms. Growth: one row an alias.
Index -> query: primary key -> what an alias names; room -> the aliases of a room.
"""

from collections.abc import Collection
from typing import Final

import msgspec

from ranvier.core.identifiers import RoomAlias
from ranvier.store.database import ReadTxn, WriteTxn
from ranvier.store.tables.batches import in_batches


class Alias(msgspec.Struct, frozen=True):
    alias: RoomAlias
    room_nid: int
    creator_user_nid: int


_INSERT: Final = """
    INSERT INTO aliases (alias, room_nid, creator_user_nid, created_ms)
    VALUES (:alias, :room_nid, :creator_user_nid, :now_ms)
    ON CONFLICT (alias) DO NOTHING
"""
_FIND: Final = "SELECT alias, room_nid, creator_user_nid FROM aliases WHERE alias = :alias"
_OF_ROOM: Final = """
    SELECT alias, room_nid, creator_user_nid FROM aliases WHERE room_nid = :room_nid
    ORDER BY created_ms, alias
"""
_OF_ROOMS: Final = "SELECT room_nid, alias FROM aliases WHERE room_nid IN (:room_nids[])"
_DELETE: Final = "DELETE FROM aliases WHERE alias = :alias"
_MOVE: Final = "UPDATE aliases SET room_nid = :to_room_nid WHERE room_nid = :room_nid"


def insert_alias(txn: WriteTxn, alias: RoomAlias, room_nid: int, creator_user_nid: int, now_ms: int) -> bool:
    """Let an alias name a room. False, and nothing done, if it names one already."""
    return (
        txn.execute(_INSERT, alias=alias, room_nid=room_nid, creator_user_nid=creator_user_nid, now_ms=now_ms)
        > 0
    )


def find_alias(txn: ReadTxn, alias: RoomAlias) -> Alias | None:
    row = txn.first(_FIND, alias=alias)
    return None if row is None else Alias(*row)


def list_aliases(txn: ReadTxn, room_nid: int) -> list[Alias]:
    """The aliases of a room, the oldest first."""
    return [Alias(*row) for row in txn.all(_OF_ROOM, room_nid=room_nid)]


def list_aliases_of_rooms(txn: ReadTxn, room_nids: Collection[int]) -> list[tuple[int, RoomAlias]]:
    """(room_nid, alias) of all aliases of these rooms."""
    return [
        (room_nid, alias)
        for batch in in_batches(list(room_nids))
        for room_nid, alias in txn.all(_OF_ROOMS, room_nids=batch)
    ]


def delete_alias(txn: WriteTxn, alias: RoomAlias) -> bool:
    """False if there was no such alias."""
    return txn.execute(_DELETE, alias=alias) > 0


def move_aliases(txn: WriteTxn, room_nid: int, to_room_nid: int) -> int:
    """Let all aliases of a room name its successor; how many they are."""
    return txn.execute(_MOVE, room_nid=room_nid, to_room_nid=to_room_nid)
