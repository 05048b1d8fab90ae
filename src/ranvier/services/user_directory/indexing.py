"""Keeps the directory of users in step with profiles and with who is in which room.

A follower: it remembers up to which position everything is in the directory, wakes when something changed, and
compares the states of the rooms that changed. So nothing is missed, whatever way a member event came, and
messages cost nothing.
"""

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final, TypeVar

import msgspec

from ranvier.core import state_map
from ranvier.core.identifiers import UserID, server_of
from ranvier.io.clock import Clock
from ranvier.services.user_directory.words import words_of
from ranvier.store.database import Conflict, Database, Hint, Kind, ReadTxn, WriteTxn
from ranvier.store.tables import events, profiles, rooms, state
from ranvier.store.tables.followers import find_follower, move_follower
from ranvier.store.tables.interned import Interner, find_user_nids, list_state_keys, list_user_ids
from ranvier.store.tables.state_nodes import NodeCache, SnapshotNodes
from ranvier.store.tables.user_directory import DirectoryEntry, upsert_entries

NAME: Final = "user directory"
GATHER_S: Final = 0.5
"""Between a change and looking at it."""
ROOMS_AT_ONCE: Final = 50
MEMBERS_AT_ONCE: Final = 500
MAX_BEHIND: Final = 10_000
"""Positions that are read again after a restart, though they held nothing for the directory."""
MAX_NAME_CHARS: Final = 256
MAX_URL_CHARS: Final = 1_024

_MEMBER_TYPE: Final = "m.room.member"
_T = TypeVar("_T")


class _Content(msgspec.Struct, gc=False):
    membership: object = None
    displayname: object = None
    avatar_url: object = None


class _Member(msgspec.Struct, gc=False):
    content: _Content


_MEMBER: Final = msgspec.json.Decoder(_Member)


class DirectoryIndexer:
    """The follower."""

    name = NAME

    def __init__(self, db: Database, interner: Interner, nodes: NodeCache, clock: Clock) -> None:
        self._db = db
        self._interner = interner
        self._nodes = nodes
        self._clock = clock
        self._came = asyncio.Event()
        self._rooms: set[int] = set()  # that may have changed
        self._knows_rooms = False  # whether no others can have
        self._turn = asyncio.Lock()
        db.subscribe(self._hear)

    async def run(self) -> None:
        self._came.set()
        while True:
            await self._came.wait()
            await self._clock.sleep(GATHER_S)
            self._came.clear()
            try:
                await self.catch_up()
            except Conflict:
                self._came.set()

    async def refresh(self) -> None:
        """Deal with what is new: so that who searches finds those who have just come."""
        try:
            await self.catch_up()
        except Conflict:
            self._came.set()

    async def catch_up(self) -> None:
        """Bring everything that changed up to now into the directory.

        Raises: Conflict when another process does the same; what it has not seen is left to the next time.
        """
        async with self._turn:
            # Every hint up to this position has been heard: position and hints are told at once.
            upto = self._db.position()
            heard, self._rooms = self._rooms, set()
            known, self._knows_rooms = self._knows_rooms, True
            try:
                await self._catch_up(upto, heard if known else None)
            except BaseException:
                self._rooms |= heard
                self._knows_rooms = False
                raise

    async def _catch_up(self, upto: int, heard: Collection[int] | None) -> None:
        """`heard`: the rooms that may have changed up to a position; None: nobody knows which."""
        since, room_nids = await self._db.read(_find_changed, heard)
        if upto <= since:
            return
        found = False
        for batch in _parts(room_nids, ROOMS_AT_ONCE):
            members = await self._db.read(self._list_changed_members, batch, since, upto)
            for part in _parts(members, MEMBERS_AT_ONCE):
                found = True
                await self._db.write(upsert_entries, await self._db.read(self._read_members, part))
        entries = await self._db.read(self._read_profiles, since, upto)
        # Moving on is a write: without need it is not worth one.
        if found or entries or upto - since > MAX_BEHIND:
            await self._db.write(_finish, entries, since, upto)

    def _hear(self, hints: Sequence[Hint]) -> None:
        for hint in hints:
            if hint.kind is Kind.ROOM:
                self._rooms.add(hint.key)
            elif hint.kind is Kind.GAP:
                self._knows_rooms = False
            elif hint.kind is not Kind.USER:
                continue
            self._came.set()

    def _list_changed_members(
        self, txn: ReadTxn, room_nids: Sequence[int], since: int, upto: int
    ) -> list[tuple[UserID, int]]:
        """Whose member events are other ones now than they were, with the newest of each."""
        reader = SnapshotNodes(txn, self._nodes)
        before = state.list_roots_at(txn, room_nids, since)
        now = state.list_roots_at(txn, room_nids, upto)
        newest: dict[int, int] = {}
        for room_nid in room_nids:
            difference = state_map.difference(reader, (before[room_nid], now[room_nid]))
            for slot, (_, event_nid) in difference.items():
                if event_nid is not None:
                    newest[slot] = max(event_nid, newest.get(slot, 0))
        slots = list_state_keys(txn, self._interner, newest)
        return [(UserID(key), newest[slot]) for slot, (type_, key) in slots.items() if type_ == _MEMBER_TYPE]

    def _read_members(self, txn: ReadTxn, members: Sequence[tuple[UserID, int]]) -> list[DirectoryEntry]:
        """Local users are shown as their profiles say, others as their member events do."""
        user_nids = find_user_nids(txn, self._interner, [user_id for user_id, _ in members])
        own = {user_id for user_id in user_nids if server_of(user_id) == self._interner.own_server}
        others = {nid: user_id for user_id, nid in members if user_id in user_nids and user_id not in own}
        return [
            *self._of_profiles(txn, [user_nids[user_id] for user_id in own]),
            *_of_events(txn, others, user_nids),
        ]

    def _read_profiles(self, txn: ReadTxn, since: int, upto: int) -> list[DirectoryEntry]:
        return self._of_profiles(txn, profiles.list_changed_profiles(txn, since, upto))

    def _of_profiles(self, txn: ReadTxn, user_nids: Sequence[int]) -> list[DirectoryEntry]:
        user_ids = list_user_ids(txn, self._interner, user_nids)
        return [
            _entry(
                nid, user_ids[nid], *(_decode(fields.get(field)) for field in ("displayname", "avatar_url"))
            )
            for nid, fields in profiles.list_profiles(txn, user_nids).items()
        ]


def _find_changed(txn: ReadTxn, heard: Collection[int] | None) -> tuple[int, list[int]]:
    """From where to go on, and the rooms to look at."""
    since = find_follower(txn, NAME)
    return since, rooms.list_active_rooms(txn, since) if heard is None else sorted(heard)


def _finish(txn: WriteTxn, entries: Sequence[DirectoryEntry], since: int, upto: int) -> None:
    upsert_entries(txn, entries)
    move_follower(txn, NAME, since, upto)


def _of_events(
    txn: ReadTxn, members: Mapping[int, UserID], user_nids: Mapping[UserID, int]
) -> list[DirectoryEntry]:
    """What these member events say, if they are joins."""
    entries = []
    for event_nid, record in events.list_events(txn, members).items():
        content = _MEMBER.decode(record.json).content
        if content.membership == "join" and record.redacted_by is None:
            user_id = members[event_nid]
            entries.append(_entry(user_nids[user_id], user_id, content.displayname, content.avatar_url))
    return entries


def _entry(user_nid: int, user_id: UserID, display_name: object, avatar_url: object) -> DirectoryEntry:
    name = _text(display_name, MAX_NAME_CHARS)
    return DirectoryEntry(user_nid, name, _text(avatar_url, MAX_URL_CHARS), words_of(user_id, name))


def _text(value: object, max_chars: int) -> str | None:
    """A text that the database can hold; None for anything else, and for what is too long for a name."""
    if not isinstance(value, str) or len(value) > max_chars:
        return None
    return value.replace("\0", "") or None


def _decode(value: bytes | None) -> object:
    return None if value is None else msgspec.json.decode(value)


def _parts(values: Sequence[_T], size: int) -> Iterator[Sequence[_T]]:
    return (values[start : start + size] for start in range(0, len(values), size))
