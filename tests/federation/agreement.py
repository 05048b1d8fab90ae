"""What homeservers must agree on when each of them has heard everything about a room.

Whether an event soft-fails is a server's own business: it depends on what came first. The state before an event
is not: it follows from the graph alone, and so does the state now, once the extremities are the same.
"""

from typing import Any

import msgspec

from ranvier.core import state_map
from ranvier.core.events.parse import parse_stored
from ranvier.core.identifiers import EventID, RoomID, StateKey
from ranvier.core.room_versions import get_room_version
from ranvier.services.rooms.state_before import States, StateView
from ranvier.store.database import ReadTxn
from ranvier.store.tables import events, rooms, unchecked_states
from ranvier.store.tables.edges import list_auth_nids
from ranvier.store.tables.events import EventRecord, Status, record_of
from ranvier.store.tables.interned import list_state_keys
from ranvier.store.tables.memberships import list_servers_in_room
from ranvier.store.tables.state import list_current_state
from ranvier.store.tables.state_nodes import SnapshotNodes

from ..http.homeserver import Homeserver

_PLACED = f"""
    SELECT {events.COLUMNS} FROM events e WHERE e.room_nid = :room_nid AND e.state_root IS NOT NULL
"""

_STATE_EVENTS = f"""
    SELECT {events.COLUMNS} FROM events e WHERE e.room_nid = :room_nid AND e.state_key_nid IS NOT NULL
"""

_LACKING = """
    SELECT 1 FROM rooms r JOIN memberships m ON m.room_nid = r.room_nid AND m.is_local = 1 AND m.membership = 'join'
    WHERE r.room_id = :room_id AND r.is_partial = 1 LIMIT 1
"""

_THERE = """
    SELECT 1 FROM rooms r JOIN room_servers rs ON rs.room_nid = r.room_nid AND rs.joined_count > 0
    JOIN servers s ON s.server_nid = rs.server_nid
    WHERE r.room_id = :room_id AND s.server_name = :name
"""

_COUNTED = """
    SELECT u.server_nid, COUNT(*) FROM memberships m JOIN users u ON u.user_nid = m.user_nid
    WHERE m.room_nid = :room_nid AND m.membership = 'join' GROUP BY u.server_nid
"""

State = dict[StateKey, EventID]


class View(msgspec.Struct, frozen=True):
    """A room as one server has it."""

    state: State
    extremities: frozenset[EventID]
    dangling: frozenset[EventID]  # extremities that lie behind others
    before: dict[EventID, State]  # of each event whose place in the graph is known
    rejected: frozenset[EventID]
    messages: frozenset[EventID]  # soft-failed ones, too


async def view_of(server: Homeserver, room_id: str) -> View:
    """How a server sees a room; fails where that does not hang together."""
    return await server.foundation.ports.db.read(_read, server, room_id)


async def lacks_members(server: Homeserver, room_id: str) -> bool:
    """Whether the server is in the room, and its state is not whole there."""

    def read(txn: ReadTxn) -> bool:
        return txn.value(_LACKING, room_id=room_id) is not None

    return await server.foundation.ports.db.read(read)


async def is_server_in_room(server: Homeserver, room_id: str, name: str) -> bool:
    """Whether anybody of another server is joined, by what a server knows."""

    def read(txn: ReadTxn) -> bool:
        return txn.value(_THERE, room_id=room_id, name=name) is not None

    return await server.foundation.ports.db.read(read)


def _read(txn: ReadTxn, server: Homeserver, room_id: str) -> View:
    foundation = server.foundation
    room = rooms.find_room(txn, RoomID(room_id))
    assert room is not None
    records = {
        record.event_nid: record for record in map(record_of, txn.all(_PLACED, room_nid=room.room_nid))
    }

    def named(root: int) -> State:
        nids = state_map.to_dict(SnapshotNodes(txn, foundation.nodes), root)
        slots = list_state_keys(txn, foundation.interner, nids)
        ids = events.list_event_ids(txn, nids.values())
        return {slots[slot]: ids[nid] for slot, nid in nids.items()}

    states = States(txn, foundation.interner, foundation.nodes, room)
    after = [states.after(records[nid]) for nid in room.extremities]
    merged = states.merge([view for view in after if view is not None])
    stray = states.difference(StateView(room.state_root), merged)
    assert not stray, f"{server.server_name}: the state now is not that of the extremities: {stray}"
    if not room.is_partial and unchecked_states.find(txn, room.room_nid) is None:
        held = list_current_state(txn, room.room_nid)
        entries = state_map.to_dict(SnapshotNodes(txn, foundation.nodes), room.state_root)
        assert held == entries, f"{server.server_name}: the rows of the state are not those of its map"
        counts: dict[int, int] = dict(txn.all(_COUNTED, room_nid=room.room_nid))
        told = dict(list_servers_in_room(txn, room.room_nid))
        assert counts == told, f"{server.server_name}: as many members of other servers are not there"
    stray_edges = _find_wrong_nodes(txn, room)
    assert not stray_edges, f"{server.server_name}: not what these cite, or not their depth: {stray_edges}"
    ids = {nid: record.event_id for nid, record in records.items()}
    extremities = frozenset(ids[nid] for nid in room.extremities)
    return View(
        named(room.state_root),
        extremities,
        extremities & _cited(room_id, room.version, records),
        {record.event_id: named(record.state_root or 0) for record in records.values()},
        frozenset(one.event_id for one in records.values() if one.status is Status.REJECTED),
        frozenset(one.event_id for one in records.values() if one.type == "m.room.message"),
    )


def _find_wrong_nodes(txn: ReadTxn, room: rooms.Room) -> list[EventID]:
    """State events, outliers included, whose place in the auth graph is not what follows from what they cite."""
    stored = [record_of(row) for row in txn.all(_STATE_EVENTS, room_nid=room.room_nid)]
    by_id = {record.event_id: record for record in stored}
    edges = list_auth_nids(txn, [record.event_nid for record in stored])
    version = get_room_version(room.version)
    wrong = []
    for record in stored:
        pdu = parse_stored(record.json, record.event_id, room.room_id, version)
        cited = [by_id[event_id] for event_id in pdu.auth_events if event_id in by_id]
        depth = 1 + max((one.auth_depth or 0 for one in cited), default=-1)
        if {one.event_nid for one in cited} != set(
            edges.get(record.event_nid, ())
        ) or depth != record.auth_depth:
            wrong.append(record.event_id)
    return wrong


def _cited(room_id: str, version: str, records: dict[int, EventRecord]) -> set[EventID]:
    """All that lies behind the accepted events."""
    before = {
        record.event_id: parse_stored(
            record.json, record.event_id, RoomID(room_id), get_room_version(version)
        ).prev_events
        for record in records.values()
    }
    cited: set[EventID] = set()
    waiting = [
        parent
        for record in records.values()
        if record.status is Status.ACCEPTED
        for parent in before[record.event_id]
    ]
    while waiting:
        event_id = waiting.pop()
        if event_id not in cited:
            cited.add(event_id)
            waiting.extend(before.get(event_id, ()))
    return cited


def differences(views: dict[str, View]) -> list[Any]:
    """In what the servers do not agree, if they do not: the beginning of it."""
    (first, one), *others = views.items()
    found: list[Any] = [("dangling", name, view.dangling) for name, view in views.items() if view.dangling]
    for name, other in others:
        found.extend(
            ("state before", event_id, first, name, _differing(one.before[event_id], other.before[event_id]))
            for event_id in one.before.keys() & other.before.keys()
            if one.before[event_id] != other.before[event_id]
        )
        found.extend(("rejected", event_id, first, name) for event_id in one.rejected ^ other.rejected)
        if one.state != other.state:
            found.append(("state now", first, name, _differing(one.state, other.state)))
        if one.extremities != other.extremities:
            found.append(("extremities", first, name, one.extremities ^ other.extremities))
    return found


def _differing(one: State, other: State) -> dict[StateKey, tuple[EventID | None, EventID | None]]:
    return {
        slot: (one.get(slot), other.get(slot))
        for slot in one.keys() | other.keys()
        if one.get(slot) != other.get(slot)
    }
