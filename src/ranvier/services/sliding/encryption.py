"""The e2ee extension: what keys of the device are left, and whose devices changed. Spec: MSC3884."""

from collections.abc import Collection

import msgspec
import orjson

from ranvier.services.devices.device_lists import Moved, read_device_lists, read_moved
from ranvier.services.requester import Requester
from ranvier.store.database import ReadTxn
from ranvier.store.tables.interned import Interner
from ranvier.store.tables.state import list_roots_at


class EncryptionQuestion(msgspec.Struct, frozen=True):
    since: int  # up to where the client was told of device lists
    now: int
    device_lists: Collection[int] | None  # who changed theirs; None: not known
    rooms: Collection[int] | None  # joined rooms that changed; None: not known
    user: bool  # whether something of the user's own changed


def read_device_list_changes(
    txn: ReadTxn, interner: Interner, requester: Requester, asked: EncryptionQuestion
) -> bytes | None:
    """`device_lists`, or None if nothing changed.

    Cost: nothing if no device list changed and nobody came or went; 2 queries to know the latter where rooms
    changed; then those of /keys/changes.
    """
    may_have_moved = asked.user or asked.rooms is None or _has_other_state(txn, asked.rooms, asked)
    if not may_have_moved and asked.device_lists is not None and not asked.device_lists:
        return None
    moved = read_moved(txn, requester.user_nid, asked.since, asked.now) if may_have_moved else Moved((), ())
    lists = read_device_lists(txn, interner, requester.user_nid, moved, asked.since, asked.now)
    if not lists.changed and not lists.left:
        return None
    return orjson.dumps({"changed": lists.changed, "left": lists.left})


def _has_other_state(txn: ReadTxn, rooms: Collection[int], asked: EncryptionQuestion) -> bool:
    """Whether the state of a room changed: a message is no reason to look at members."""
    if not rooms:
        return False
    return list_roots_at(txn, rooms, asked.since) != list_roots_at(txn, rooms, asked.now)
