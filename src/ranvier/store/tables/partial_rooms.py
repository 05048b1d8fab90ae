"""Rooms that were entered with a state that lacked most of its members, until that is whole.

Tables: partial_rooms, partial_events; of room_servers the places that are held for servers of which it was told that
they are in the room. Growth: one row for each such room; one for each event that came before its state was whole.
Index -> query: (room, event) -> what is to be decided again; whole_position -> what became whole since.
"""

from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from ranvier.core.identifiers import ServerName
from ranvier.store.database import ReadTxn, WriteTxn
from ranvier.store.tables import rooms
from ranvier.store.tables.batches import in_batches
from ranvier.store.tables.interned import Interner, intern_servers


class PartialRoom(msgspec.Struct, frozen=True):
    """A room whose state is not whole."""

    room_nid: int
    join_nid: int  # the event by which this server entered
    server_nids: tuple[int, ...]  # in the room then, as it was told; this server is not among them


class CompletedRoom(msgspec.Struct, frozen=True):
    """A room whose state became whole."""

    room_nid: int
    join_nid: int
    missed_nids: tuple[int, ...]  # servers that were in the room meanwhile, while that was not known here


_INSERT: Final = """
    INSERT INTO partial_rooms (room_nid, join_nid, servers, whole_position)
    VALUES (:room_nid, :join_nid, :servers, 0)
    ON CONFLICT (room_nid) DO UPDATE SET join_nid = excluded.join_nid, servers = excluded.servers,
        whole_position = 0
"""
_FIND: Final = """
    SELECT room_nid, join_nid, servers FROM partial_rooms WHERE room_nid = :room_nid AND whole_position = 0
"""
_END: Final = "UPDATE partial_rooms SET whole_position = :position WHERE room_nid = :room_nid"
_SET_MISSED: Final = "UPDATE partial_rooms SET servers = :servers WHERE room_nid = :room_nid"
_COMPLETED: Final = """
    SELECT room_nid, join_nid, servers FROM partial_rooms
    WHERE whole_position > :after AND whole_position <= :upto ORDER BY whole_position
"""
_FORGET: Final = "DELETE FROM partial_rooms WHERE room_nid = :room_nid"
_HIDDEN: Final = """
    SELECT room_nid, whole_position FROM partial_rooms WHERE whole_position = 0 OR whole_position > :since
"""
_WHOLE: Final = """
    SELECT whole_position FROM partial_rooms
    WHERE room_nid = :room_nid AND join_nid <= :position AND whole_position > :position
"""
_WAS_PARTIAL: Final = """
    SELECT 1 FROM partial_rooms
    WHERE room_nid = :room_nid AND join_nid <= :position AND (whole_position = 0 OR whole_position > :position)
"""
_INSERT_EVENT: Final = """
    INSERT INTO partial_events (room_nid, event_nid) VALUES (:room_nid, :event_nid)
    ON CONFLICT (room_nid, event_nid) DO NOTHING
"""
_EVENTS: Final = "SELECT event_nid FROM partial_events WHERE room_nid = :room_nid ORDER BY event_nid"
_AMONG: Final = "SELECT event_nid FROM partial_events WHERE event_nid IN (:nids[])"
_DELETE_EVENTS: Final = "DELETE FROM partial_events WHERE room_nid = :room_nid"
_DELETE_SOME: Final = "DELETE FROM partial_events WHERE room_nid = :room_nid AND event_nid IN (:nids[])"
_NEWEST: Final = """
    UPDATE rooms SET newest_position = {greatest}(newest_position, :position) WHERE room_nid = :room_nid
"""
_HOLD: Final = """
    INSERT INTO room_servers (room_nid, server_nid, joined_count) VALUES (:room_nid, :server_nid, 1)
    ON CONFLICT (room_nid, server_nid) DO UPDATE SET joined_count = room_servers.joined_count + 1
"""
_RELEASE: Final = """
    UPDATE room_servers SET joined_count = joined_count - 1
    WHERE room_nid = :room_nid AND server_nid IN (:nids[])
"""
_DROP: Final = """
    DELETE FROM room_servers WHERE room_nid = :room_nid AND server_nid IN (:nids[]) AND joined_count <= 0
"""


def begin(
    txn: WriteTxn, interner: Interner, room_nid: int, join_nid: int, servers: Collection[ServerName]
) -> Mapping[ServerName, int]:
    """This server entered the room by an event, which was appended with the state that came with it; `servers` are
    said to be in the room. Returns their numbers."""
    nids = intern_servers(txn, interner, [name for name in servers if name != interner.own_server])
    txn.execute_many(_HOLD, [{"room_nid": room_nid, "server_nid": nid} for nid in nids.values()])
    stored = msgspec.json.encode(sorted(nids.values())).decode()
    txn.execute(_INSERT, room_nid=room_nid, join_nid=join_nid, servers=stored)
    return nids


def forget(txn: WriteTxn, room_nid: int) -> None:
    """The room's state will not become whole: this server left, and is about to enter anew."""
    _release(txn, room_nid)
    txn.execute(_DELETE_EVENTS, room_nid=room_nid)
    txn.execute(_FORGET, room_nid=room_nid)
    rooms.update_partial(txn, room_nid, is_partial=False)


def end(txn: WriteTxn, room_nid: int, *, keeps_events: bool = False) -> None:
    """The room's state is whole; what was to be decided again is, in the same transaction. `keeps_events`: it is to be
    so once more."""
    _release(txn, room_nid)
    if not keeps_events:
        txn.execute(_DELETE_EVENTS, room_nid=room_nid)
    position = txn.next_position()
    txn.execute(_END, room_nid=room_nid, position=position)
    # Who has read all up to here is to look at it again.
    txn.execute(_NEWEST, room_nid=room_nid, position=position)
    rooms.update_partial(txn, room_nid, is_partial=False)


def note_missed(txn: WriteTxn, room_nid: int, server_nids: Collection[int]) -> None:
    """The room's state has become whole, and tells that these servers were in it."""
    txn.execute(_SET_MISSED, room_nid=room_nid, servers=msgspec.json.encode(sorted(server_nids)).decode())


def list_completed(txn: ReadTxn, after: int, upto: int) -> list[CompletedRoom]:
    """The rooms whose state became whole after one position and up to another."""
    return [
        CompletedRoom(nid, join_nid, tuple(msgspec.json.decode(servers, type=list[int])))
        for nid, join_nid, servers in txn.all(_COMPLETED, after=after, upto=upto)
    ]


def find(txn: ReadTxn, room_nid: int) -> PartialRoom | None:
    """The room, if its state is not whole."""
    row = txn.first(_FIND, room_nid=room_nid)
    if row is None:
        return None
    nid, join_nid, servers = row
    return PartialRoom(nid, join_nid, tuple(msgspec.json.decode(servers, type=list[int])))


def list_hidden(txn: ReadTxn, since: int) -> dict[int, int]:
    """The rooms whose state was not whole at a position: room_nid -> where it became whole, or 0."""
    return dict(txn.all(_HIDDEN, since=since))


def find_whole(txn: ReadTxn, room_nid: int, position: int) -> int:
    """The position itself, or, where the room's state was not whole there, that at which it became so."""
    found = txn.value(_WHOLE, room_nid=room_nid, position=position)
    return position if found is None else int(found)


def was_partial(txn: ReadTxn, room_nid: int, position: int) -> bool:
    """Whether the room's state was not whole at a position."""
    return txn.value(_WAS_PARTIAL, room_nid=room_nid, position=position) is not None


def insert_events(txn: WriteTxn, room_nid: int, event_nids: Collection[int]) -> None:
    """These are to be decided again. Called by `append` alone."""
    if event_nids:
        txn.execute_many(_INSERT_EVENT, [{"room_nid": room_nid, "event_nid": nid} for nid in event_nids])


def list_event_nids(txn: ReadTxn, room_nid: int) -> list[int]:
    """What is to be decided again, in the order in which it was stored."""
    return [row[0] for row in txn.all(_EVENTS, room_nid=room_nid)]


def forget_events(txn: WriteTxn, room_nid: int, event_nids: Collection[int]) -> None:
    """These are not to be decided again: they are none of the room's history any more."""
    for nids in in_batches(list(event_nids)):
        txn.execute(_DELETE_SOME, room_nid=room_nid, nids=nids)


def list_among(txn: ReadTxn, event_nids: Collection[int]) -> list[int]:
    """Those of the events that are to be decided again."""
    return [row[0] for nids in in_batches(list(event_nids)) for row in txn.all(_AMONG, nids=nids)]


def _release(txn: WriteTxn, room_nid: int) -> None:
    held = find(txn, room_nid)
    if held is None:
        return
    for nids in in_batches(list(held.server_nids)):
        txn.execute(_RELEASE, room_nid=room_nid, nids=nids)
        txn.execute(_DROP, room_nid=room_nid, nids=nids)
