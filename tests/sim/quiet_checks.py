"""What must hold when nobody says anything any more, and nobody said anything for others to hear what they missed."""

from collections.abc import Collection, Mapping, Sequence
from itertools import permutations
from typing import Any

import msgspec

from ranvier.core.canonical_json import parse_object
from ranvier.core.identifiers import EventID, RoomID
from ranvier.store.database import ReadTxn
from ranvier.store.tables import jobs, rooms
from ranvier.store.tables.events import Status

from ..federation.agreement import View, lacks_members, view_of
from .invariants import never_right
from .server import SimServer

_EVENTS = (
    "SELECT event_id, status, type, json FROM events WHERE room_nid = :room_nid AND state_root IS NOT NULL"
)
_MEMBERS = """
    SELECT u.user_id, m.membership, e.event_id FROM memberships m JOIN users u ON u.user_nid = m.user_nid
    JOIN events e ON e.event_nid = m.event_nid WHERE m.room_nid = :room_nid
"""
_STALE = """
    SELECT u.user_id FROM remote_device_lists r JOIN users u ON u.user_nid = r.user_nid WHERE r.needs_resync = 1
"""


class Copy(msgspec.Struct, frozen=True):
    """A room as one server has it."""

    server: str  # its full name
    view: View | None  # None: it is not in the room
    placed: Mapping[EventID, Status]  # by event id: all of its history
    joins: Collection[str]  # event ids of those that are joins
    exits: Collection[str]  # event ids of those that made users of this server leave
    members: Mapping[str, tuple[str, str]]  # by user: membership and its event id

    @property
    def servers(self) -> set[str]:
        """Those in the room, as this one sees it."""
        return {_server_of(user) for user, (membership, _) in self.members.items() if membership == "join"}

    def membership(self, user: str) -> str:
        found, _ = self.members.get(user, ("leave", ""))
        return "leave" if found == "ban" else found

    def was_in(self, server: str, event_id: EventID) -> bool:
        """Whether a server was in the room before an event."""
        assert self.view is not None
        before = self.view.before[event_id]
        return any(
            kind == "m.room.member" and _server_of(user) == server and member in self.joins
            for (kind, user), member in before.items()
        )


async def copy_of(server: SimServer, room_id: str) -> Copy | None:
    """The room as a server has it; None: it knows nothing of it. Fails where it does not hang together."""
    read = server.foundation.ports.db.read
    room = await read(rooms.find_room, RoomID(room_id))
    if room is None:
        return None
    placed, joins, exits = await read(_read_events, room.room_nid, server.server_name)
    members = await read(_read_members, room.room_nid)
    is_in = any(
        _server_of(user) == server.server_name and membership == "join"
        for user, (membership, _) in members.items()
    )
    view = await view_of(server, room_id) if is_in else None  # type: ignore[arg-type]  # has all that is read
    return Copy(server.server_name, view, placed, joins, exits, members)


def _read_events(
    txn: ReadTxn, room_nid: int, server: str
) -> tuple[dict[EventID, Status], set[str], set[str]]:
    placed: dict[EventID, Status] = {}
    joins: set[str] = set()
    exits: set[str] = set()
    for event_id, status, kind, json in txn.all(_EVENTS, room_nid=room_nid):
        placed[event_id] = Status(status)
        if kind == "m.room.member":
            event = parse_object(json)
            if event["content"]["membership"] == "join":
                joins.add(event_id)
            elif _server_of(str(event["state_key"])) == server:
                exits.add(event_id)
    return placed, joins, exits


def _read_members(txn: ReadTxn, room_nid: int) -> dict[str, tuple[str, str]]:
    return {
        user: (membership, event_id) for user, membership, event_id in txn.all(_MEMBERS, room_nid=room_nid)
    }


def _server_of(user: str) -> str:
    return user.partition(":")[2]


def differences(copies: Sequence[Copy]) -> list[Any]:
    """What the servers in a room do not know of each other, though all that was said has arrived."""
    present = [copy for copy in copies if copy.view is not None]
    if not present:
        return []
    views = {copy.server: copy.view for copy in present if copy.view is not None}
    found = never_right(views)
    for one, other in permutations(present, 2):
        if other.server in one.servers:
            found += _missing(one, other)
            if one.server in other.servers and one.server < other.server:
                found += _contradictions(one, other)
    for copy in copies:
        if copy.view is None:
            found += _strays(copy, present)
    return found


def _missing(one: Copy, other: Copy) -> list[Any]:
    """What a server takes for said, and another one that is in the room for it has never heard of."""
    assert one.view is not None
    found: list[Any] = []
    heads = one.view.extremities - other.placed.keys()
    if heads:
        found.append(("never heard of", sorted(heads), "which follows nothing for", one.server, other.server))
    unknown = {
        event_id
        for user, (membership, event_id) in one.members.items()
        if membership == "join" and _server_of(user) == one.server
        if event_id not in other.placed and other.members.get(user, ("", ""))[1] != event_id
    }
    if unknown:
        found.append(("never heard of the join", sorted(unknown), one.server, other.server))
    if not other.exits:
        lost = {
            event_id
            for event_id, status in one.placed.items()
            if status is Status.ACCEPTED
            and event_id not in other.placed
            and one.was_in(other.server, event_id)
        }
        if lost:
            found.append(("lost", sorted(lost), "known to", one.server, "not to", other.server))
    return found


def _contradictions(one: Copy, other: Copy) -> list[Any]:
    """Whether two that heard of the same, and took it alike, see the same room."""
    assert one.view is not None
    assert other.view is not None
    common = one.placed.keys() & other.placed.keys()
    if (one.view.extremities | other.view.extremities) - common:
        return []  # told of as missing
    if any(one.placed[event_id] is not other.placed[event_id] for event_id in common):
        return []  # what fails softly is a server's own business
    found: list[Any] = []
    # Who comes back through a server that has not heard of the leave yet begins anew with the join: the leave stands
    # beside that everywhere else.
    apart = (one.view.extremities ^ other.view.extremities) - set(one.exits) - set(other.exits)
    if apart:
        found.append(("extremities", sorted(apart), one.server, other.server))
    if one.view.extremities == other.view.extremities and one.view.state != other.view.state:
        slots = one.view.state.items() ^ other.view.state.items()
        found.append(("state now", sorted({slot for slot, _ in slots}), one.server, other.server))
    return found


def _strays(out: Copy, present: Sequence[Copy]) -> list[Any]:
    """What a server that is not in a room does not know of its users there."""
    users = {user for copy in (out, *present) for user in copy.members if _server_of(user) == out.server}
    known = {one for copy in present for one, status in copy.placed.items() if status is Status.ACCEPTED}
    found: list[Any] = []
    for user in sorted(users):
        held = {copy.membership(user) for copy in present}
        # Who loses the right to invite before the invited user's server has answered has invited nobody, and nobody
        # tells that server.
        is_vain = out.membership(user) == "invite" and out.members[user][1] not in known
        if len(held) == 1 and out.membership(user) not in held and not is_vain:
            found.append(("membership", user, "here", out.membership(user), "in the room", *held))
    return found


async def not_whole(server: SimServer, room_id: str) -> list[Any]:
    lacks = await lacks_members(server, room_id)  # type: ignore[arg-type]  # has all that is read
    return [("not whole", server.name)] if lacks else []


async def left_undone(server: SimServer) -> list[Any]:
    """Jobs that wait, and lists of devices that are to be asked for."""
    read = server.foundation.ports.db.read
    found: list[Any] = [
        ("job", server.name, job.kind, job.key) for job in await read(jobs.list_waiting_jobs, 100)
    ]
    return found + [("stale devices", server.name, user) for user in await read(_read_stale)]


def _read_stale(txn: ReadTxn) -> list[str]:
    return [row[0] for row in txn.all(_STALE)]
