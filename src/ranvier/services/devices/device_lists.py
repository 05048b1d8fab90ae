"""Whose devices a client has to ask for anew, and whom it can forget.

A user hears of everybody with whom a room is shared. So there are two reasons to be told of somebody: their keys
changed, or they came into a room of the user's (or the user into one of theirs); and one to forget somebody: no room
is shared any more.

Spec: client-server API, "Tracking the device list for a user", "Extensions to /sync".
"""

from collections.abc import Collection

import msgspec

from ranvier.core.errors import BadToken
from ranvier.core.identifiers import UserID
from ranvier.core.tokens import SyncToken
from ranvier.services.requester import Requester
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables.cross_signing import list_users_signed
from ranvier.store.tables.device_lists import list_changed_users
from ranvier.store.tables.interned import Interner, list_user_ids
from ranvier.store.tables.memberships import (
    JOIN,
    list_all_members,
    list_membership_changes,
    list_moved,
    list_sharing_among,
)


class DeviceLists(msgspec.Struct, frozen=True):
    """The fields of the specification."""

    changed: list[UserID]
    left: list[UserID]


class Moved(msgspec.Struct, frozen=True):
    """Who came into rooms of a user, or left them: user_nids. Coming and going of the user is that of all others;
    who comes is among those who came."""

    came: Collection[int]
    went: Collection[int]


class DeviceListChanges:
    """Answers GET /keys/changes."""

    def __init__(self, db: Database, interner: Interner) -> None:
        self._db = db
        self._interner = interner

    async def list(self, requester: Requester, since: SyncToken, until: SyncToken) -> DeviceLists:
        """What changed after `since`, up to now: that is `until` at least.

        Raises: BadToken when the tokens are the wrong way round.
        """
        if until.position < since.position:
            raise BadToken("the list would end before it begins")
        return await self._db.read(_read_all, self._interner, requester.user_nid, since.position)


def _read_all(txn: ReadTxn, interner: Interner, user_nid: int, since: int) -> DeviceLists:
    moved = read_moved(txn, user_nid, since, txn.position)
    return read_device_lists(txn, interner, user_nid, moved, since, txn.position)


def read_device_lists(  # who, and from when to when
    txn: ReadTxn, interner: Interner, user_nid: int, moved: Moved, since: int, up_to: int
) -> DeviceLists:
    """What a client that knows what was at `since` has to hear, when `moved` is what became of its rooms.

    Cost: 2 queries; one more if anybody's keys changed or anybody moved.
    """
    changed = {*list_changed_users(txn, since, up_to), *moved.came}
    candidates = changed | set(moved.went)
    sharing = list_sharing_among(txn, user_nid, candidates) if candidates else set()
    # Whom the user has signed, and the user, whoever shares a room with them.
    told = (changed & sharing) | set(list_users_signed(txn, user_nid, since, up_to)) | (changed & {user_nid})
    gone = set(moved.went) - sharing - {user_nid}
    names = list_user_ids(txn, interner, told | gone)
    return DeviceLists(sorted(names[nid] for nid in told), sorted(names[nid] for nid in gone))


def read_moved(txn: ReadTxn, user_nid: int, since: int, up_to: int) -> Moved:
    """Who came and went, from the memberships as they are now. A user who was in a room for a moment only counts
    as one who went.

    Cost: 2 queries, one more for each room that the user came into or left; it follows the number of members of
    rooms in which anything happened. Sync, which knows the changes of its rooms, need not ask this.
    """
    came: set[int] = set()
    went: set[int] = set()
    for other_nid, membership in list_moved(txn, user_nid, since, up_to):
        (came if membership == JOIN else went).add(other_nid)
    for room_nid, is_in in _own_moves(txn, user_nid, since, up_to).items():
        for member in list_all_members(txn, room_nid):
            if member.membership == JOIN:
                (came if is_in else went).add(member.user_nid)
            elif member.position > since:
                went.add(member.user_nid)
    return Moved(came, went - {user_nid})


def _own_moves(txn: ReadTxn, user_nid: int, since: int, up_to: int) -> dict[int, bool]:
    """room_nid -> whether the user is in it now, of rooms that the user joined or left."""
    return {
        change.room_nid: change.membership == JOIN
        for change in list_membership_changes(txn, user_nid, since, up_to)
        if JOIN in (change.membership, change.previous)
    }
