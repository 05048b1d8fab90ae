"""Which state of a room a user may read: the one of now, the one in which they left it, or none.

Spec: client-server API, "Getting events for a room" (GET /rooms/{roomId}/state and its kin).
"""

from typing import Final

import msgspec

from ranvier.core.auth.select import JOIN_RULES
from ranvier.core.errors import Forbidden
from ranvier.core.identifiers import RoomID
from ranvier.core.room_versions import get_room_version
from ranvier.core.tokens import POSITION_SHIFT
from ranvier.core.visibility import HistoryVisibility
from ranvier.services.rooms.conditions import meets_condition
from ranvier.services.rooms.live import read_slots
from ranvier.services.rooms.sight import Sight, find_standpoint
from ranvier.store.database import ReadTxn
from ranvier.store.tables import memberships, rooms, state
from ranvier.store.tables.interned import Interner
from ranvier.store.tables.rooms import Room, RoomSummary

_NOT_IN_ROOM: Final = "You are not in this room."


class StateAccess(msgspec.Struct, frozen=True):
    """A room, and the state of it that a user may read."""

    room: Room
    state_root: int
    until: int | None  # the position at which the user left; None: the state is that of now


def access_state(txn: ReadTxn, sight: Sight, room_id: RoomID, user_nid: int) -> StateAccess:
    """What members read, who once were members, and everybody where the history is world-readable.

    Raises: Forbidden, in the same words for a room that is not known here.
    Cost: 2 queries for who is joined.
    """
    room = rooms.find_room(txn, room_id)
    if room is None:
        raise Forbidden(_NOT_IN_ROOM)
    standpoint = find_standpoint(txn, user_nid, room.room_nid)
    if standpoint.is_joined:
        return StateAccess(room, room.state_root, None)
    if standpoint.may_look_back:
        left = standpoint.joined_until >> POSITION_SHIFT
        return StateAccess(room, state.find_root_at(txn, room.room_nid, left), left)
    if sight.is_world_readable(txn, room.state_root):
        return StateAccess(room, room.state_root, None)
    raise Forbidden(_NOT_IN_ROOM)


def access_joined(txn: ReadTxn, room_id: RoomID, user_nid: int) -> Room:
    """The room, of which the user is a member now. Raises: Forbidden, as above."""
    room = rooms.find_room(txn, room_id)
    membership = None if room is None else memberships.find_membership(txn, room.room_nid, user_nid)
    if room is None or membership is None or membership.membership != memberships.JOIN:
        raise Forbidden(_NOT_IN_ROOM)
    return room


def may_preview(
    txn: ReadTxn,
    interner: Interner,
    room: Room,
    summary: RoomSummary,
    user_nid: int | None,
    membership: str | None,
) -> bool:
    """Whether somebody may learn what the room is about: its members and those who could become one.

    `user_nid` is None for somebody without an account.
    Cost: no query but for restricted rooms.
    Spec: client-server API, GET /room_summary/{roomIdOrAlias}, GET /rooms/{roomId}/hierarchy.
    """
    if membership in (memberships.JOIN, memberships.INVITE):
        return True
    if summary.history_visibility == HistoryVisibility.WORLD_READABLE:
        return True
    if membership == memberships.BAN:
        return False
    version = get_room_version(room.version)
    rules = version.auth
    if summary.join_rule == "public" or (summary.join_rule == "knock" and rules.knock):
        return True
    if summary.join_rule == "knock_restricted":
        return rules.knock_restricted
    if summary.join_rule != "restricted" or not rules.restricted or user_nid is None:
        return False
    slots = read_slots(txn, interner, room.room_nid, room.room_id, version, (JOIN_RULES,))
    return meets_condition(txn, user_nid, slots[JOIN_RULES])
