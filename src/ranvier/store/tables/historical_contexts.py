"""Contexts of 2014, and the rooms that show them.

Table: historical_contexts. Owner: historical.federation_2014. Growth: one row a context.
Index -> query: primary key -> by context; room_nid -> by room.
"""

from collections.abc import Collection
from typing import Final

import msgspec

from ranvier.core.identifiers import ServerName
from ranvier.store.database import ReadTxn, Row, WriteTxn
from ranvier.store.tables.batches import in_batches
from ranvier.store.tables.events import COLUMNS, EventRecord, record_of


class Context(msgspec.Struct, frozen=True):
    """What is known of a context."""

    context: str
    room_nid: int | None  # the room that shows it
    min_depth: int | None  # None: no PDU is held in line
    converted_position: int


_COLUMNS: Final = "context, room_nid, min_depth, converted_position"
_FIND: Final = f"SELECT {_COLUMNS} FROM historical_contexts WHERE context = :context"  # noqa: S608
_BY_ROOM: Final = f"SELECT {_COLUMNS} FROM historical_contexts WHERE room_nid = :room_nid"  # noqa: S608
_INSERT: Final = """
    INSERT INTO historical_contexts (context) VALUES (:context) ON CONFLICT (context) DO NOTHING
"""
_SHOW: Final = """
    UPDATE historical_contexts SET room_nid = :room_nid, converted_position = :position
    WHERE context = :context
"""
_LOWER: Final = """
    UPDATE historical_contexts SET min_depth = :depth
    WHERE context = :context AND (min_depth IS NULL OR min_depth > :depth)
"""
_CONVERTED: Final = """
    UPDATE historical_contexts SET converted_position = :position WHERE context = :context
"""
_OWN_EVENTS: Final = f"""
    SELECT {COLUMNS} FROM events e
    WHERE e.room_nid = :room_nid AND e.room_order > :after AND e.is_local = 1 AND e.status = 0
    ORDER BY e.room_order LIMIT :limit
"""  # noqa: S608
_OF_VERSION: Final = "SELECT room_nid FROM rooms WHERE version = :version AND newest_local_position > 0"
_ARE_OF_VERSION: Final = """
    SELECT room_nid FROM rooms WHERE room_nid IN (:nids[]) AND version = :version
"""
_SERVERS: Final = """
    SELECT DISTINCT s.server_name FROM memberships m JOIN users u ON u.user_nid = m.user_nid
    JOIN servers s ON s.server_nid = u.server_nid
    WHERE m.room_nid = :room_nid AND m.membership = 'join'
"""
_SERVERS_OF_USER: Final = """
    SELECT DISTINCT s.server_name FROM memberships a JOIN historical_contexts c ON c.room_nid = a.room_nid
    JOIN memberships m ON m.room_nid = a.room_nid JOIN users u ON u.user_nid = m.user_nid
    JOIN servers s ON s.server_nid = u.server_nid
    WHERE a.user_nid = :user_nid AND a.membership = 'join' AND m.membership = 'join'
"""


def find_context(txn: ReadTxn, context: str) -> Context | None:
    row = txn.first(_FIND, context=context)
    return None if row is None else _context_of(row)


def find_context_of_room(txn: ReadTxn, room_nid: int) -> Context | None:
    row = txn.first(_BY_ROOM, room_nid=room_nid)
    return None if row is None else _context_of(row)


def insert_context(txn: WriteTxn, context: str) -> Context:
    """The context, made if nothing was known of it."""
    txn.execute(_INSERT, context=context)
    found = find_context(txn, context)
    assert found is not None, "it was inserted, or it was there"
    return found


def show_in_room(txn: WriteTxn, context: str, room_nid: int, position: int) -> None:
    """Note the room that shows a context, and from which position on its events are to become PDUs."""
    txn.execute(_SHOW, context=context, room_nid=room_nid, position=position)


def lower_min_depth(txn: WriteTxn, context: str, depth: int) -> None:
    txn.execute(_LOWER, context=context, depth=depth)


def set_converted(txn: WriteTxn, context: str, position: int) -> None:
    txn.execute(_CONVERTED, context=context, position=position)


def list_own_events(txn: ReadTxn, room_nid: int, after: int, limit: int) -> list[EventRecord]:
    """Events of users of this server in a room after a position, oldest first."""
    rows = txn.all(_OWN_EVENTS, room_nid=room_nid, after=(after + 1 << 20) - 1, limit=limit)
    return [record_of(row) for row in rows]


def list_rooms_of_version(txn: ReadTxn, version: str) -> list[int]:
    """The rooms of a version in which anybody of this server did anything. Cost: reads the table of rooms."""
    return [row[0] for row in txn.all(_OF_VERSION, version=version)]


def choose_rooms_of_version(txn: ReadTxn, room_nids: Collection[int], version: str) -> list[int]:
    """Those of the rooms that are of a version."""
    return [
        row[0]
        for batch in in_batches(list(room_nids))
        for row in txn.all(_ARE_OF_VERSION, nids=batch, version=version)
    ]


def list_servers(txn: ReadTxn, room_nid: int) -> set[ServerName]:
    """The servers of all who are joined to a room."""
    return {ServerName(row[0]) for row in txn.all(_SERVERS, room_nid=room_nid)}


def list_servers_of_user(txn: ReadTxn, user_nid: int) -> set[ServerName]:
    """The servers of all who share the room of a context with the user."""
    return {ServerName(row[0]) for row in txn.all(_SERVERS_OF_USER, user_nid=user_nid)}


def _context_of(row: Row) -> Context:
    return Context(*row)
