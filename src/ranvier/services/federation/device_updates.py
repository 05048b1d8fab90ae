"""Telling other servers that devices and keys of our users changed.

What is to be told is queued in one transaction with how far the telling has got, so that nothing is lost. A user who
comes into a room with servers that share no other one is told to them, too. When many devices of one user change at
once, only the last is told: the others are a gap, at which servers ask for the whole list.

Spec: server-server API, "Device Management".
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from typing import Final

import msgspec

from ranvier.core.canonical_json import JsonObject, encode, parse_object
from ranvier.core.identifiers import DeviceID, UserID
from ranvier.io.clock import Clock
from ranvier.services.devices.keys import KeysFound, read_keys
from ranvier.store.database import Conflict, Database, Hint, Kind, ReadTxn, WriteTxn
from ranvier.store.tables import destinations, device_lists, followers, memberships, partial_rooms
from ranvier.store.tables.device_lists import DeviceChange
from ranvier.store.tables.devices import list_devices
from ranvier.store.tables.interned import Interner, intern_servers, list_user_ids
from ranvier.store.tables.outbox import queue_edu
from ranvier.store.tables.partial_rooms import CompletedRoom

BATCH: Final = 1_000
"""Changes, and joins, that are looked at in one transaction."""
MAX_UPDATES: Final = 20
"""Of one user at once."""
GATHER_S: Final = 0.05
"""Between news and looking at them: what comes in quick succession is looked at together."""

_DEVICE_UPDATE: Final = "m.device_list_update"
_KEY_UPDATE: Final = "m.signing_key_update"


class _News(msgspec.Struct, frozen=True):
    """What is to be told."""

    changes: Sequence[DeviceChange]
    joins: Sequence[tuple[int, int, int]]  # (position, user_nid, room_nid)
    completed: Sequence[CompletedRoom]
    upto: int  # all up to here


class _User(msgspec.Struct, frozen=True):
    """Whose devices are told of, as they are now."""

    user_id: UserID
    user_nid: int
    names: Mapping[DeviceID, str | None]
    found: KeysFound


class DeviceUpdates:
    """The worker that tells."""

    name = "device-updates"

    def __init__(self, db: Database, interner: Interner, clock: Clock, *, tells_names: bool) -> None:
        self._db = db
        self._interner = interner
        self._clock = clock
        self._tells_names = tells_names
        self._news = asyncio.Event()
        db.subscribe(self._hear)

    async def run(self) -> None:
        self._news.set()
        while True:
            await self._news.wait()
            await self._clock.sleep(GATHER_S)
            self._news.clear()
            # Most of what wakes this is something else: reading is cheap.
            while await self._db.read(self._has_news):
                try:
                    await self._db.write(self._queue)
                except Conflict:
                    continue  # another process has done it

    def _hear(self, hints: Sequence[Hint]) -> None:
        if any(hint.kind in (Kind.DEVICE_LIST, Kind.USER, Kind.GAP) for hint in hints):
            self._news.set()

    def _has_news(self, txn: ReadTxn) -> bool:
        after = followers.find_follower(txn, self.name)
        return (
            device_lists.has_device_changes(txn, after, txn.position)
            or bool(memberships.list_local_joins(txn, after, txn.position, 1))
            or bool(partial_rooms.list_completed(txn, after, txn.position))
        )

    def _queue(self, txn: WriteTxn) -> None:
        """Queue what is to be told next."""
        own = intern_servers(txn, self._interner, (self._interner.own_server,))[self._interner.own_server]
        after = followers.find_follower(txn, self.name)
        news = _read_news(txn, after)
        user_ids = list_user_ids(
            txn, self._interner, {one.user_nid for one in news.changes} | {join[1] for join in news.joins}
        )
        for user_nid, changes in groupby(sorted(news.changes, key=_by_user), key=lambda one: one.user_nid):
            servers = memberships.list_servers_sharing(txn, user_nid) - {own}
            if servers:
                self._tell(txn, servers, user_nid, user_ids[user_nid], list(changes))
        told = {change.user_nid for change in news.changes if change.device_id is not None}
        for position, user_nid, room_nid in news.joins:
            if user_nid in told:
                continue
            servers = memberships.list_new_servers(txn, user_nid, room_nid) - {own}
            if servers:
                is_guess = partial_rooms.was_partial(txn, room_nid, position)
                self._introduce(txn, servers, user_nid, user_ids[user_nid], needs_keys=is_guess)
        for room in news.completed:
            self._tell_missed(txn, room)
        device_lists.prune_device_changes(txn, {one.user_nid for one in news.changes}, news.upto)
        followers.move_follower(txn, self.name, after, news.upto)

    def _tell(
        self,
        txn: WriteTxn,
        servers: Collection[int],
        user_nid: int,
        user_id: UserID,
        changes: Sequence[DeviceChange],
    ) -> None:
        """Queue one user's changes, oldest first."""
        user = self._read_user(txn, user_nid, user_id)
        # Of each device the newest: what is told is how the device is now.
        newest = {change.device_id: change for change in changes}
        has_other_keys = newest.pop(None, None) is not None
        updates = sorted(newest.values(), key=_by_user)
        if updates:
            told = device_lists.find_previous_change(txn, user_nid, changes[0].position)
            if told is None and changes[0] is not updates[0]:
                # Only who comes is told of without predecessors.
                told = changes[0].position
            if len(updates) > MAX_UPDATES:
                told, updates = updates[-2].position, updates[-1:]
            for change in updates:
                self._queue_update(txn, servers, user, change, () if told is None else (told,))
                told = change.position
        if has_other_keys:
            # One that still waits is replaced: this one says all.
            queue_edu(txn, servers, _KEY_UPDATE, encode(_key_update(user)), f"keys {user_nid}")

    def _introduce(
        self,
        txn: WriteTxn,
        servers: Collection[int],
        user_nid: int,
        user_id: UserID,
        *,
        needs_keys: bool = False,
    ) -> None:
        """Tell servers of a user whom they did not have to know so far. What they may know from earlier is out of
        date: an update without predecessors makes them ask for the list. Devices without keys are told of, too: the
        specification has servers tell of every user who comes. But not where `needs_keys`, to servers that were only
        said to be in a room: nothing can be encrypted for such devices, and when one gets keys, all are told.
        """
        newest = device_lists.find_newest_change(txn, user_nid)
        if newest is None:
            return
        user = self._read_user(txn, user_nid, user_id)
        if not needs_keys or user.found.device_keys.get(user_id) or user_id in user.found.master_keys:
            self._queue_update(txn, servers, user, newest, ())

    def _tell_missed(self, txn: WriteTxn, room: CompletedRoom) -> None:
        """Tell servers of which it was not known that they are in a room what they did not hear meanwhile."""
        users = memberships.list_local_members(txn, room.room_nid) if room.missed_nids else []
        for user_nid, user_id in list_user_ids(txn, self._interner, users).items():
            newest = device_lists.find_newest_change(txn, user_nid)
            if newest is not None and newest.position > room.join_nid:
                user = self._read_user(txn, user_nid, user_id)
                self._queue_update(txn, room.missed_nids, user, newest, ())
            else:
                new = memberships.list_new_servers(txn, user_nid, room.room_nid)
                self._introduce(txn, new.intersection(room.missed_nids), user_nid, user_id)

    def _read_user(self, txn: ReadTxn, user_nid: int, user_id: UserID) -> _User:
        found, _ = read_keys(txn, self._interner, {user_id: ()}, None, names=False)
        names = {device.device_id: device.display_name for device in list_devices(txn, user_nid)}
        return _User(user_id, user_nid, names, found)

    def _queue_update(
        self,
        txn: WriteTxn,
        servers: Collection[int],
        user: _User,
        change: DeviceChange,
        previous: Sequence[int],
    ) -> None:
        assert change.device_id is not None
        content: JsonObject = {
            "user_id": user.user_id,
            "device_id": change.device_id,
            "stream_id": change.position,
            "prev_id": list(previous),
        }
        if change.device_id not in user.names:
            content["deleted"] = True
        else:
            keys = user.found.device_keys[user.user_id].get(change.device_id)
            if keys is not None:
                content["keys"] = parse_object(bytes(keys))
            name = user.names[change.device_id]
            if self._tells_names and name is not None:
                content["device_display_name"] = name
        encoded = encode(content)
        away = destinations.list_failing(txn, servers)
        queue_edu(txn, set(servers) - away, _DEVICE_UPDATE, encoded)
        # For a server that is away, one update of a device waits: the gap before it says that there were more.
        queue_edu(txn, away, _DEVICE_UPDATE, encoded, f"device {user.user_nid} {change.device_id}")


def _by_user(change: DeviceChange) -> tuple[int, int]:
    return change.user_nid, change.position


def _read_news(txn: ReadTxn, after: int) -> _News:
    changes = device_lists.list_device_changes(txn, after, txn.position, BATCH)
    joins = memberships.list_local_joins(txn, after, txn.position, BATCH)
    ends = [rows[-1][0] for rows in (joins,) if len(rows) == BATCH]
    ends += [changes[-1].position] if len(changes) == BATCH else []
    upto = min(ends, default=txn.position)
    return _News(
        [change for change in changes if change.position <= upto],
        [join for join in joins if join[0] <= upto],
        partial_rooms.list_completed(txn, after, upto),
        upto,
    )


def _key_update(user: _User) -> JsonObject:
    content: JsonObject = {"user_id": user.user_id}
    for name, keys in (
        ("master_key", user.found.master_keys),
        ("self_signing_key", user.found.self_signing_keys),
    ):
        if user.user_id in keys:
            content[name] = parse_object(bytes(keys[user.user_id]))
    return content
