"""Telling other servers that devices and keys of our users changed.

What is to be told is queued in one transaction with how far the telling has got, so that nothing is lost. That
position stands in this server's own row of `destinations`.

Spec: server-server API, "Device Management".
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from ranvier.core.canonical_json import JsonObject, encode, parse_object
from ranvier.core.identifiers import UserID
from ranvier.io.clock import Clock
from ranvier.services.devices.keys import KeysFound, read_keys
from ranvier.store.database import Database, Hint, Kind, WriteTxn
from ranvier.store.tables import destinations, device_lists, memberships
from ranvier.store.tables.device_lists import DeviceChange
from ranvier.store.tables.interned import Interner, intern_servers, list_user_ids
from ranvier.store.tables.outbox import queue_edu

BATCH: Final = 100
"""Changes queued in one transaction."""

_DEVICE_UPDATE: Final = "m.device_list_update"
_KEY_UPDATE: Final = "m.signing_key_update"


class DeviceUpdates:
    """The worker that tells."""

    name = "device-updates"

    def __init__(self, db: Database, interner: Interner, clock: Clock) -> None:
        self._db = db
        self._interner = interner
        self._clock = clock
        self._news = asyncio.Event()
        self._news.set()
        db.subscribe(self._hear)

    async def run(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while await self._db.write(self._queue) == BATCH:
                pass

    def _hear(self, hints: Sequence[Hint]) -> None:
        if any(hint.kind in (Kind.DEVICE_LIST, Kind.GAP) for hint in hints):
            self._news.set()

    def _queue(self, txn: WriteTxn) -> int:
        """Queue what is to be told of the next changes; how many they are."""
        own = intern_servers(txn, self._interner, (self._interner.own_server,))[self._interner.own_server]
        row = destinations.list_destinations(txn, (own,)).get(own)
        after = 0 if row is None else row.sent_position
        changes = device_lists.list_device_changes(txn, after, txn.position, BATCH)
        names = list_user_ids(txn, self._interner, {change.user_nid for change in changes})
        for change in changes:
            servers = memberships.list_servers_sharing(txn, change.user_nid) - {own}
            if servers:
                edu_type, content = self._describe(txn, change, names[change.user_nid])
                queue_edu(txn, servers, edu_type, encode(content))
        if changes:
            destinations.note_success(txn, own, changes[-1].position, self._clock.now_ms())
        return len(changes)

    def _describe(self, txn: WriteTxn, change: DeviceChange, user_id: UserID) -> tuple[str, JsonObject]:
        found, _ = read_keys(txn, self._interner, {user_id: ()}, None)
        if change.device_id is None:
            return _KEY_UPDATE, _key_update(user_id, found)
        previous = device_lists.find_previous_change(txn, change.user_nid, change.position)
        content: JsonObject = {
            "user_id": user_id,
            "device_id": change.device_id,
            "stream_id": change.position,
            "prev_id": [] if previous is None else [previous],
        }
        keys = found.device_keys.get(user_id, {}).get(change.device_id)
        if keys is None:
            content["deleted"] = True
        else:
            content["keys"] = parse_object(bytes(keys))
        return _DEVICE_UPDATE, content


def _key_update(user_id: UserID, found: KeysFound) -> JsonObject:
    content: JsonObject = {"user_id": user_id}
    for name, keys in (("master_key", found.master_keys), ("self_signing_key", found.self_signing_keys)):
        if user_id in keys:
            content[name] = parse_object(bytes(keys[user_id]))
    return content
