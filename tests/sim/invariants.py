"""What must hold when everything has healed and everybody has heard everything."""

import traceback
from collections.abc import Mapping, Sequence
from typing import Any

from ranvier.core.identifiers import RoomID
from ranvier.store.database import ReadTxn
from ranvier.store.tables import destinations, outbox, rooms

from ..federation.agreement import View, is_server_in_room, lacks_members, view_of
from ..sliding_client import assert_knows
from ..sync_equivalent import Follower, assert_equivalent
from .actors import Cast, Room
from .clients import Reader, Slider
from .server import SimServer

MAX_TASKS = 60
"""Of a server that has nothing to do: its workers and a few that wait."""

_SERVER = "SELECT server_nid FROM servers WHERE server_name = :server_name"
_ROOM = "SELECT room_nid FROM rooms WHERE room_id = :room_id"
_LAST_JOIN = """
    SELECT c.position, m.membership FROM memberships m
    JOIN users u ON u.user_nid = m.user_nid
    JOIN membership_changes c ON c.user_nid = m.user_nid AND c.room_nid = m.room_nid
    WHERE m.room_nid = :room_nid AND u.user_id = :user_id AND c.membership = 'join' AND c.previous <> 'join'
    ORDER BY c.position DESC LIMIT 1
"""
_TOLD_AFTER = """
    SELECT e.event_id FROM events e LEFT JOIN late_events l ON l.event_nid = e.event_nid
    WHERE e.room_nid = :room_nid AND e.status = 0 AND e.room_order IS NOT NULL
    AND (l.position > :after OR (e.event_nid > :after AND e.room_order = e.event_nid * 1048576))
"""
_WITH_STATUS = "SELECT event_id, status FROM events WHERE event_id IN (:ids[]) AND status IN (:statuses[])"
_BEHIND = "list of servers that are behind"
_STRAY = {
    "outbox": "SELECT server_nid FROM outbox",
    "outbox_edus": "SELECT -position FROM outbox_edus WHERE position NOT IN (SELECT position FROM outbox)",
    "destination_leases": "SELECT server_nid FROM destination_leases",
}


async def sort_by_wholeness(servers: Sequence[SimServer], room_id: str) -> tuple[list[SimServer], list[str]]:
    """The servers whose state of the room is whole; and the names of those others that it will yet come to: where
    nobody else takes a server's joins for such, nobody tells it anything."""
    partial = [
        server
        for server in servers
        if await lacks_members(server, room_id)  # type: ignore[arg-type]  # has all that is read
    ]
    whole = [server for server in servers if server not in partial]
    waiting = [
        server.name
        for server in partial
        for other in whole
        if await is_server_in_room(other, room_id, server.server_name)  # type: ignore[arg-type]
    ]
    return whole, waiting


async def views_of(servers: Sequence[SimServer], room_id: str) -> dict[str, View]:
    """The room as each server has it that is or was in it."""
    views: dict[str, View] = {}
    for server in servers:
        if server.is_gone:
            continue
        room = await server.foundation.ports.db.read(rooms.find_room, RoomID(room_id))
        if room is not None and room.extremities:
            views[server.name] = await view_of(server, room_id)  # type: ignore[arg-type]  # has all that is read
    return views


def never_right(views: Mapping[str, View]) -> list[Any]:
    """Differences that no further news can mend."""
    found: list[Any] = [("dangling", name, view.dangling) for name, view in views.items() if view.dangling]
    (first, one), *others = views.items()
    for name, other in others:
        for event_id in sorted(one.before.keys() & other.before.keys()):
            if one.before[event_id] != other.before[event_id]:
                found.append(
                    (
                        "state before",
                        event_id,
                        first,
                        name,
                        _differing(one.before[event_id], other.before[event_id]),
                    )
                )
            if (event_id in one.rejected) != (event_id in other.rejected):
                found.append(("rejected", event_id, first, name))
    return found


def not_yet(room: Room, views: Mapping[str, View]) -> list[Any]:
    """Differences that more news may mend."""
    (first, one), *others = views.items()
    found: list[Any] = []
    for name, other in others:
        if one.state != other.state:
            found.append(("state now", first, name, _differing(one.state, other.state)))
        if one.extremities != other.extremities:
            found.append(("extremities", first, name, sorted(one.extremities ^ other.extremities)))
    for name, view in views.items():
        lacking = set(room.spoken.values()) - view.messages - room.elsewhere.get(name, set())
        if lacking:
            found.append(("messages missing", name, sorted(lacking)))
    return found


def _differing(one: Mapping[Any, Any], other: Mapping[Any, Any]) -> dict[Any, Any]:
    slots = sorted(slot for slot in one.keys() | other.keys() if one.get(slot) != other.get(slot))
    return {slot: (one.get(slot), other.get(slot)) for slot in slots}


async def check_servers(servers: Sequence[SimServer], *, have_spoken: bool = True) -> list[str]:
    """Nothing waits to be sent, and nothing that should be done is held in memory or tables. `have_spoken`: all have
    since they came; until then a server that let another one in takes that one for behind by its own join."""
    complaints: list[str] = []
    gone = [server.server_name for server in servers if server.is_gone]
    for server in servers:
        if server.is_gone:
            continue
        found = await server.foundation.ports.db.read(_read_leftovers, (server.server_name, *gone))
        if not have_spoken:
            del found[_BEHIND]
        complaints += [f"{server.name}: {name} holds {count}" for name, count in found.items() if count]
        if len(server.life.tasks) > MAX_TASKS:
            complaints.append(f"{server.name}: {len(server.life.tasks)} tasks run")
    return complaints


def _read_leftovers(txn: ReadTxn, but_of: Sequence[str]) -> dict[str, int]:
    """`but_of`: the server itself, and those that nobody can send anything to any more."""
    nids = {txn.value(_SERVER, server_name=name) for name in but_of}
    return {
        **{name: sum(row[0] not in nids for row in txn.all(sql)) for name, sql in _STRAY.items()},
        _BEHIND: len({*destinations.list_behind(txn)} - nids),
        "list of servers with an outbox": len({*outbox.list_waiting_servers(txn)} - nids),
    }


async def check_reader(reader: Reader, cast: Cast) -> list[str]:
    """A user's client knows what one that has just begun is told; it was told everything, once."""
    complaints: list[str] = []
    user_id = reader.user.user_id
    fresh = reader.another()
    try:
        if reader.is_told_state_after:
            await fresh.sync()
            await _forget_partial(reader)
            _forget_empty_slots(reader.follower, fresh)
            await _forget_hidden(reader, fresh)
            await assert_equivalent(reader.follower, fresh, knows_senders=False)
        else:
            await fresh.sync()
    except AssertionError as error:
        complaints.append(f"{user_id} does not know what a new client is told: {where(error)}")
    if reader.is_told_state_after:
        complaints += _compare_state(reader, fresh)
    read = reader.server.foundation.ports.db.read
    for room_id in fresh.joined:
        expected = await read(_list_to_be_told, room_id, user_id)
        # What happened on a branch in which the user was out of the room may be hidden by its history visibility.
        missed = [
            event_id
            for event_id in expected
            if (room_id not in reader.told or not reader.told[room_id][event_id])
            and await reader.can_see(room_id, event_id)
        ]
        if missed:
            complaints.append(f"{user_id} was not told of {missed} in {room_id}")
    # State resolution may well choose an event that was not shown when it came.
    in_timelines = sorted({event_id for told in reader.told.values() for event_id in told})
    wrong = await read(_list_not_to_be_shown, in_timelines, (1, 2, 4))
    wrong += await read(_list_not_to_be_shown, sorted(reader.shown_state), (2, 4))
    if wrong:
        complaints.append(f"{user_id} was shown {wrong}")
    letters = [text for _, target, text in cast.letters if target == user_id]
    complaints += [
        f"{user_id} got {text!r} {reader.to_device[text]} times"
        for text in letters
        if reader.to_device[text] != 1
    ]
    return complaints


async def check_slider(slider: Slider) -> list[str]:
    """One that looked at all rooms by sliding sync knows what a first /sync tells."""
    for room_id in list(slider.sliding.rooms):
        # A first /sync leaves those out whose members are not here.
        if await lacks_members(slider.server, room_id):  # type: ignore[arg-type]  # has all that is read
            del slider.sliding.rooms[room_id]
    fresh = slider.fresh()
    await fresh.sync()
    for room_id, known in slider.sliding.rooms.items():
        there = (
            {event["event_id"] for event in fresh.joined[room_id].timeline}
            if room_id in fresh.joined
            else set()
        )
        # As in /sync: see `_forget_hidden`.
        known.timeline = [
            event
            for event in known.timeline
            if event["event_id"] in there or await slider.can_see(room_id, event["event_id"])
        ]
    try:
        await assert_knows(slider.sliding, fresh)
    except AssertionError as error:
        return [
            f"{slider.user.user_id} does not know by sliding sync what a new client is told: {where(error)}"
        ]
    return []


def _forget_empty_slots(follower: Follower, fresh: Follower) -> None:
    """State may resolve to nothing in a slot, and /sync has no way to tell of that."""
    for room_id, known in follower.joined.items():
        if room_id in fresh.joined:
            there = fresh.joined[room_id].state
            known.state = {slot: event_id for slot, event_id in known.state.items() if slot in there}


async def _forget_hidden(reader: Reader, fresh: Follower) -> None:
    """What happened on a branch in which the user was out of the room is shown to all who are in it when it comes, but
    may be hidden by its history visibility from who asks later."""
    for room_id, known in reader.follower.joined.items():
        if room_id in fresh.joined:
            there = {event["event_id"] for event in fresh.joined[room_id].timeline}
            known.timeline = [
                event
                for event in known.timeline
                if event["event_id"] in there or await reader.can_see(room_id, event["event_id"])
            ]


async def _forget_partial(reader: Reader) -> None:
    """A client that does not load members lazily is told of a room when its members are here: that may be never, where
    the join came to nothing elsewhere. Until then it knows what it was told before: an invite, or a former stay."""
    for room_id in {*reader.follower.joined, *reader.follower.invited}:
        if await lacks_members(reader.server, room_id):  # type: ignore[arg-type]  # has all that is read
            reader.follower.joined.pop(room_id, None)
            reader.follower.invited.pop(room_id, None)


def _compare_state(reader: Reader, fresh: Follower) -> list[str]:
    """With state_after, a client knows all of the state, whatever it had to be resolved from."""
    return [
        f"{reader.user.user_id} takes {known.get(slot)} for {slot} in {room_id}, not {event_id}"
        for room_id, expected in fresh.joined.items()
        for slot, event_id in expected.state.items()
        if room_id in reader.follower.joined
        and (known := reader.follower.joined[room_id].state).get(slot) != event_id
    ]


def _list_to_be_told(txn: ReadTxn, room_id: str, user_id: str) -> list[str]:
    """What was shown in a room since the user was last let in."""
    room_nid = txn.value(_ROOM, room_id=room_id)
    joined = txn.first(_LAST_JOIN, room_nid=room_nid, user_id=user_id)
    if joined is None:
        return []
    return [row[0] for row in txn.all(_TOLD_AFTER, room_nid=room_nid, after=joined[0])]


def _list_not_to_be_shown(
    txn: ReadTxn, event_ids: Sequence[str], statuses: Sequence[int]
) -> list[tuple[str, int]]:
    return [
        (row[0], row[1])
        for start in range(0, len(event_ids), 500)
        for row in txn.all(_WITH_STATUS, ids=event_ids[start : start + 500], statuses=statuses)
    ]


def where(error: AssertionError) -> str:
    """The assertion itself, and what stood in it: outside of pytest it tells nothing."""
    told = traceback.TracebackException.from_exception(error, capture_locals=True).stack[-1]
    values = {name: value[:200] for name, value in (told.locals or {}).items()}
    return f"{told.line} {error} {values}"
