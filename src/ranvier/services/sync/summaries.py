"""How many are in a room, and after whom a client may name it.

Spec: client-server API, GET /sync, RoomSummary; "Calculating the display name for a room".
"""

from collections.abc import Collection, Mapping
from typing import Final

import msgspec

from ranvier.core.identifiers import UserID
from ranvier.services.sync.state_changes import MEMBER, StateChange, member_slots
from ranvier.services.sync.timelines import Window
from ranvier.store.database import ReadTxn
from ranvier.store.tables import memberships, rooms
from ranvier.store.tables.interned import Interner, list_state_keys, list_user_ids

HEROES: Final = 5

_NAMES: Final = frozenset((("m.room.name", ""), ("m.room.canonical_alias", "")))


class Summary(msgspec.Struct, frozen=True):
    joined_count: int
    invited_count: int
    heroes: tuple[UserID, ...] | None  # one more than is told: the reader is none; None: the room has a name


def read_summaries(
    txn: ReadTxn, interner: Interner, changes: Mapping[Window, StateChange]
) -> tuple[dict[Window, Summary], dict[Window, dict[int, int]]]:
    """The summaries of those windows where it may have changed, and their heroes' members (slot -> event).

    Cost: nothing if no membership or name changed; else 4 queries, and 2 for rooms that all have left.
    """
    wanted = [window for window, change in changes.items() if _may_differ(txn, interner, window, change)]
    if not wanted:
        return {}, {}
    room_nids = {window.room_nid for window in wanted}
    found = rooms.list_rooms(txn, room_nids)
    names = rooms.list_summaries(txn, room_nids)
    unnamed = {
        nid for nid in room_nids if nid not in names or not (names[nid].name or names[nid].canonical_alias)
    }
    heroes = _read_heroes(txn, unnamed)
    user_ids = list_user_ids(txn, interner, {nid for members in heroes.values() for nid in members})
    slots = member_slots(txn, interner, user_ids.values())
    summaries, members = {}, {}
    for window in wanted:
        room = found[window.room_nid]
        few = heroes.get(window.room_nid)
        summaries[window] = Summary(
            room.joined_count,
            room.invited_count,
            None if few is None else tuple(user_ids[nid] for nid in few),
        )
        members[window] = {slots[user_ids[nid]]: event_nid for nid, event_nid in (few or {}).items()}
    return summaries, members


def _may_differ(txn: ReadTxn, interner: Interner, window: Window, change: StateChange) -> bool:
    if window.since is None or window.full_state:
        return True
    if not change.changed:
        return False
    names = list_state_keys(txn, interner, change.changed)
    return any(name[0] == MEMBER or name in _NAMES for name in names.values())


def _read_heroes(txn: ReadTxn, room_nids: Collection[int]) -> dict[int, dict[int, int]]:
    """room_nid -> user_nid -> member event, of the first few joined or invited; else of those who left."""
    found = _first(txn, room_nids, (memberships.JOIN, memberships.INVITE))
    # With at most the reader left, those who went are who the room is remembered by.
    alone = [nid for nid in room_nids if len(found[nid]) <= 1]
    gone = _first(txn, alone, (memberships.BAN, memberships.LEAVE)) if alone else {}
    for nid, members in gone.items():
        if members:
            found[nid] |= members
    return found


def _first(txn: ReadTxn, room_nids: Collection[int], kinds: tuple[str, ...]) -> dict[int, dict[int, int]]:
    """The first members of some kinds, in the order of their events."""
    several = [memberships.list_first_members(txn, room_nids, kind, HEROES + 1) for kind in kinds]
    found = {}
    for nid in room_nids:
        members = sorted((pair for one in several for pair in one.get(nid, ())), key=lambda pair: pair[1])
        found[nid] = dict(members[: HEROES + 1])
    return found
