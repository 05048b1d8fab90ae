"""Where a user stands: the rooms joined at a position, and what changed in that since another one."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec
import orjson

from ranvier.services.sync.timelines import Window
from ranvier.store.database import ReadTxn
from ranvier.store.tables import memberships
from ranvier.store.tables.account_data import list_ignored
from ranvier.store.tables.memberships import BAN, INVITE, JOIN, KNOCK, LEAVE, MembershipChange
from ranvier.store.tables.one_time_keys import count_one_time_keys, list_unused_fallback_types

SIGNED_KEYS: Final = "signed_curve25519"
"""The one-time keys that every client of today has."""

_END_OF_TIME: Final = 2**63 - 1


class Standing(msgspec.Struct, frozen=True):
    """How a user and one of their devices stand at a position."""

    position: int
    joined: Mapping[int, int]  # room_nid -> position since when
    rooms: frozenset[int]  # the keys of `joined`
    ignored: frozenset[int]  # user_nids
    keys: bytes  # members of a response: what encryption keys of the device are left

    def at(self, position: int) -> "Standing":
        """The same at a later position: nothing of it changed."""
        return Standing(position, self.joined, self.rooms, self.ignored, self.keys)


class Pending(msgspec.Struct, frozen=True):
    """A room into which the user may come: an invite or a knock."""

    room_nid: int
    event_nid: int
    membership: str


class Plan(msgspec.Struct, frozen=True):
    """What a response to one user covers."""

    known: Sequence[Window]  # of rooms in which the user was all the time since
    new: Sequence[Window]  # of rooms that the client has not seen, or not since an earlier stay
    left: Sequence[Window]
    pending: Sequence[Pending]


def read_standing(
    txn: ReadTxn, user_nid: int, device_nid: int | None, now: int, old: Standing | None = None
) -> Standing:
    """How the user stands at `now`, which is not after the transaction's position.

    Cost: 4 queries if only other things of the user changed since `old`; else 5.
    """
    ignored = frozenset(list_ignored(txn, user_nid))
    keys = _read_keys(txn, device_nid)
    if (
        old is not None
        and old.position <= now
        and not memberships.list_membership_changes(txn, user_nid, old.position, now)
    ):
        return Standing(now, old.joined, old.rooms, ignored, keys)
    joined = _read_joined(txn, user_nid, now)
    return Standing(now, joined, frozenset(joined), ignored, keys)


def _read_keys(txn: ReadTxn, device_nid: int | None) -> bytes:
    """Spec: client-server API, "End-to-end encryption", extensions to /sync."""
    counts = {} if device_nid is None else count_one_time_keys(txn, device_nid)
    # COMPAT: clients that see no count at all never upload the first keys.
    counts.setdefault(SIGNED_KEYS, 0)
    fallback = [] if device_nid is None else list_unused_fallback_types(txn, device_nid)
    return b'"device_one_time_keys_count":%b,"device_unused_fallback_key_types":%b' % (
        orjson.dumps(counts),
        orjson.dumps(fallback),
    )


def _read_joined(txn: ReadTxn, user_nid: int, now: int) -> dict[int, int]:
    joined = {
        one.room_nid: one.position
        for one in memberships.list_rooms_of_user(txn, user_nid)
        if one.position <= now
    }
    # Where the engine shows more than what is settled, or less is asked for, the later changes are undone.
    later: dict[int, MembershipChange] = {}
    for change in memberships.list_membership_changes(txn, user_nid, now, _END_OF_TIME):
        later.setdefault(change.room_nid, change)
    for room_nid, change in later.items():
        joined.pop(room_nid, None)
        if change.previous == JOIN:
            before = [
                one.position
                for one in memberships.list_room_membership_changes(txn, user_nid, room_nid)
                if one.membership == JOIN and one.position <= now
            ]
            joined[room_nid] = before[-1] if before else now
    return joined


def plan_first(txn: ReadTxn, user_nid: int, standing: Standing, *, include_leave: bool) -> Plan:
    """What a client gets that knows nothing yet. Cost: 1 query; one more for each room that was left."""
    now = standing.position
    new = [Window(room_nid, None, now, True) for room_nid in standing.joined]
    others = memberships.list_rooms_of_user(
        txn, user_nid, (INVITE, KNOCK, LEAVE, BAN) if include_leave else (INVITE, KNOCK)
    )
    pending, left = [], []
    for one in others:
        if one.position > now or one.is_forgotten:
            continue
        if one.membership in (INVITE, KNOCK):
            pending.append(Pending(one.room_nid, one.event_nid, one.membership))
        elif _was_joined(memberships.list_room_membership_changes(txn, user_nid, one.room_nid)):
            left.append(Window(one.room_nid, None, one.position, True))
        elif one.membership == LEAVE:
            left.append(Window(one.room_nid, one.position - 1, one.position, False))
    return Plan((), new, left, pending)


def plan_next(
    txn: ReadTxn,
    user_nid: int,
    standing: Standing,
    since: int,
    rooms: AbstractSet[int],
    *,
    full_state: bool,
) -> Plan:
    """What a client gets that knows what was at `since`; of joined rooms those in `rooms`, where something
    changed. Cost: 1 query."""
    now = standing.position
    changes: dict[int, list[MembershipChange]] = {}
    for change in memberships.list_membership_changes(txn, user_nid, since, now):
        changes.setdefault(change.room_nid, []).append(change)
    known = [Window(nid, since, now, full_state) for nid in rooms if nid not in changes]
    new, left, pending = [], [], []
    for room_nid, several in changes.items():
        last = several[-1]
        if last.membership == JOIN:
            new.append(Window(room_nid, None, now, True, is_cut_off=True))
        elif last.membership in (INVITE, KNOCK):
            pending.append(Pending(room_nid, last.event_nid, last.membership))
        else:
            # Also when it was forgotten since: the client has to hear that the room is no longer joined.
            left.append(_left_window(several, since))
    return Plan(known, new, left, pending)


def _left_window(changes: Sequence[MembershipChange], since: int) -> Window:
    until, room_nid = changes[-1].position, changes[-1].room_nid
    if not any(change.membership == JOIN for change in changes):
        if changes[0].previous == JOIN:
            return Window(room_nid, since, until, False)
        # Never in the room: an invite or knock that came to nothing. Only its end is told.
        return Window(room_nid, until - 1, until, False)
    return Window(room_nid, None, until, True, is_cut_off=True)


def _was_joined(changes: Sequence[MembershipChange]) -> bool:
    return any(JOIN in (change.membership, change.previous) for change in changes)
