"""Whom and which rooms an application service cares for. Its functions run in read transactions.

Spec: application service API, "Registration" (definitions/registration.yaml).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from ranvier.core.appservices.namespaces import Namespaces
from ranvier.core.identifiers import UserID
from ranvier.store.database import ReadTxn
from ranvier.store.tables import appservices, rooms
from ranvier.store.tables.aliases import list_aliases_of_rooms
from ranvier.store.tables.events import EventRecord
from ranvier.store.tables.interned import Interner, list_state_keys, list_user_ids
from ranvier.store.tables.memberships import JOIN
from ranvier.store.tables.rooms import Room

MAX_USERS: Final = 200_000
"""Of whom it is remembered whether the service cares for them."""
MAX_ROOMS: Final = 10_000
"""Whose members of interest are remembered."""

_MEMBER: Final = "m.room.member"


class RoomInterest(msgspec.Struct, frozen=True):
    """Why a service cares for a room."""

    room: Room
    is_claimed: bool  # the room itself, or an alias of it
    members: frozenset[int]  # joined local users for whom the service cares, now

    def __bool__(self) -> bool:
        return self.is_claimed or bool(self.members)


class Interest:
    """What one service claims, found in the tables, and remembered where it cannot change unseen."""

    def __init__(self, interner: Interner, namespaces: Namespaces) -> None:
        self._interner = interner
        self._namespaces = namespaces
        self._users: dict[int, bool] = {}  # a user's name never changes
        self._members: dict[int, tuple[int, frozenset[int]]] = {}  # room_nid -> (state root, members)

    def list_users(self, txn: ReadTxn, user_nids: Iterable[int]) -> set[int]:
        """Those of these users that the service claims."""
        wanted = set(user_nids)
        unknown = [nid for nid in wanted if nid not in self._users]
        if unknown:
            if len(self._users) + len(unknown) > MAX_USERS:
                self._users.clear()
                unknown = list(wanted)
            names = list_user_ids(txn, self._interner, unknown)
            self._users.update((nid, self._namespaces.claims_user(name)) for nid, name in names.items())
        return {nid for nid in wanted if self._users.get(nid)}

    def list_rooms(self, txn: ReadTxn, room_nids: Collection[int]) -> dict[int, RoomInterest]:
        """room_nid -> why the service may care for it, or may not: each of these rooms has an entry.

        Cost: 1 query; 1 more where the state of a room changed since it was last asked for; 1 for aliases.
        """
        found = rooms.list_rooms(txn, room_nids)
        members = self._list_members(txn, found)
        claimed = {nid for nid, room in found.items() if self._namespaces.claims_room(room.room_id)}
        if self._namespaces.aliases and len(claimed) < len(found):
            claimed.update(
                nid
                for nid, alias in list_aliases_of_rooms(txn, found)
                if self._namespaces.claims_alias(alias)
            )
        return {nid: RoomInterest(room, nid in claimed, members[nid]) for nid, room in found.items()}

    def select_events(
        self, txn: ReadTxn, live: Sequence[tuple[int, EventRecord]], after: int
    ) -> list[tuple[int, EventRecord]]:
        """Those of the events, all of them after a position, that concern the service, as of each event.

        Cost: that of `list_rooms`, and 1 or 2 queries for what changed since.
        """
        room_nids = {record.room_nid for _, record in live}
        interests = self.list_rooms(txn, room_nids)
        histories = self._read_histories(txn, room_nids, after)
        concerned = self.list_users(txn, {record.sender_nid for _, record in live})
        targets = self._list_targets(txn, [record for _, record in live])
        return [
            (position, record)
            for position, record in live
            if record.sender_nid in concerned
            or record.state_key_nid in targets
            or _was_of_interest(interests[record.room_nid], histories.get(record.room_nid), position)
        ]

    def list_sharing(self, txn: ReadTxn, user_nids: Collection[int]) -> set[int]:
        """Those of these users, of any server, that the service claims or that share a room of interest with
        it. Cost: 2 queries, and that of `list_rooms` for all their rooms."""
        found = self.list_users(txn, user_nids)
        pairs = appservices.list_joined_rooms(txn, [nid for nid in user_nids if nid not in found])
        interests = self.list_rooms(txn, {room_nid for _, room_nid in pairs})
        found.update(user_nid for user_nid, room_nid in pairs if interests[room_nid])
        return found

    def _list_members(self, txn: ReadTxn, found: Mapping[int, Room]) -> dict[int, frozenset[int]]:
        members: dict[int, frozenset[int]] = {}
        for nid, room in found.items():
            root, known = self._members.get(nid, (-1, frozenset()))
            if root == room.state_root:
                members[nid] = known
        stale = [nid for nid in found if nid not in members]
        if stale:
            pairs = appservices.list_local_joined(txn, stale)
            concerned = self.list_users(txn, {user_nid for _, user_nid in pairs})
            by_room: dict[int, set[int]] = {nid: set() for nid in stale}
            for room_nid, user_nid in pairs:
                if user_nid in concerned:
                    by_room[room_nid].add(user_nid)
            if len(self._members) + len(stale) > MAX_ROOMS:
                self._members.clear()
            for nid in stale:
                members[nid] = frozenset(by_room[nid])
                self._members[nid] = (found[nid].state_root, members[nid])
        return members

    def _read_histories(
        self, txn: ReadTxn, room_nids: Collection[int], after: int
    ) -> dict[int, dict[int, list[appservices.Change]]]:
        """room_nid -> user_nid -> what changed after the position, of users for whom the service cares."""
        changes = appservices.list_later_changes(txn, room_nids, after)
        concerned = self.list_users(txn, {change.user_nid for change in changes})
        histories: dict[int, dict[int, list[appservices.Change]]] = {}
        for change in changes:
            if change.user_nid in concerned:
                histories.setdefault(change.room_nid, {}).setdefault(change.user_nid, []).append(change)
        return histories

    def _list_targets(self, txn: ReadTxn, records: Iterable[EventRecord]) -> set[int]:
        """state_key_nids of member events about users that the service claims."""
        nids = {
            record.state_key_nid
            for record in records
            if record.type == _MEMBER and record.state_key_nid is not None
        }
        slots = list_state_keys(txn, self._interner, nids) if nids else {}
        return {nid for nid, (_, key) in slots.items() if self._namespaces.claims_user(UserID(key))}


def _was_of_interest(
    interest: RoomInterest, history: Mapping[int, Sequence[appservices.Change]] | None, position: int
) -> bool:
    if interest.is_claimed:
        return True
    if not history:
        return bool(interest.members)
    if not interest.members <= history.keys():
        return True  # somebody was there all the time
    return any(_was_joined(changes, position) for changes in history.values())


def _was_joined(changes: Sequence[appservices.Change], position: int) -> bool:
    """`changes`: of one user in one room, oldest first."""
    membership = changes[0].previous
    for change in changes:
        if change.position > position:
            break
        membership = change.membership
    return membership == JOIN
