"""Whose devices or cross-signing keys changed, and the devices of remote users.

Tables: device_list_versions, device_list_changes, remote_device_lists, remote_devices. Owner:
services.devices.
Growth: one row a user, one a change of a local user (pruned), one a remote device of users who share an
encrypted room.
Index -> query: versions_by_position -> users changed since P; changes primary key -> what to tell other
servers; changes_by_user -> the change before one; stale -> what to ask other servers anew.

A change is one row whatever the number of those who share a room with the user: a reader asks who changed
since P, then which of them share a room with it (`memberships.list_sharing_among`). So it costs what
changed, never what there is.

Spec: server-server API, "Device Management"; client-server API, "Tracking the device list for a user".
"""

from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from ranvier.core.identifiers import DeviceID
from ranvier.store.database import Kind, ReadTxn, WriteTxn
from ranvier.store.tables.batches import in_batches


class DeviceChange(msgspec.Struct, frozen=True):
    """A change of a local user's device (or, with None, cross-signing keys). `position` is its stream_id."""

    position: int
    user_nid: int
    device_id: DeviceID | None


class RemoteList(msgspec.Struct, frozen=True):
    stream_id: int | None  # of the newest update that was applied; None: never synchronized
    needs_resync: bool
    retry_ms: int


class RemoteDevice(msgspec.Struct, frozen=True):
    device_id: DeviceID
    display_name: str | None
    keys: bytes | None  # JSON


_SET_VERSION: Final = """
    INSERT INTO device_list_versions (user_nid, position) VALUES (:user_nid, :position)
    ON CONFLICT (user_nid) DO UPDATE SET position = excluded.position
"""
_INSERT_CHANGE: Final = """
    INSERT INTO device_list_changes (position, user_nid, device_id) VALUES (:position, :user_nid, :device_id)
"""
_CHANGED_USERS: Final = """
    SELECT user_nid FROM device_list_versions WHERE position > :since AND position <= :up_to ORDER BY position
"""
_VERSIONS: Final = "SELECT user_nid, position FROM device_list_versions WHERE user_nid IN (:user_nids[])"
_CHANGES: Final = """
    SELECT position, user_nid, device_id FROM device_list_changes
    WHERE position > :since AND position <= :up_to ORDER BY position LIMIT :limit
"""
_PREVIOUS: Final = """
    SELECT MAX(position) FROM device_list_changes WHERE user_nid = :user_nid AND position < :position
"""
_PRUNE: Final = "DELETE FROM device_list_changes WHERE position < :before"

_FIND_REMOTE: Final = (
    "SELECT stream_id, needs_resync, retry_ms FROM remote_device_lists WHERE user_nid = :user_nid"
)
_LIST_REMOTE: Final = """
    SELECT user_nid FROM remote_device_lists WHERE user_nid IN (:user_nids[]) AND needs_resync = 0
"""
_SET_REMOTE: Final = """
    INSERT INTO remote_device_lists (user_nid, stream_id, needs_resync, retry_ms)
    VALUES (:user_nid, :stream_id, 0, 0)
    ON CONFLICT (user_nid) DO UPDATE SET stream_id = excluded.stream_id, needs_resync = 0, retry_ms = 0
"""
_MARK_STALE: Final = """
    INSERT INTO remote_device_lists (user_nid, needs_resync) VALUES (:user_nid, 1)
    ON CONFLICT (user_nid) DO UPDATE SET needs_resync = 1
"""
_POSTPONE: Final = "UPDATE remote_device_lists SET retry_ms = :retry_ms WHERE user_nid = :user_nid"
_LIST_STALE: Final = """
    SELECT user_nid FROM remote_device_lists WHERE needs_resync = 1 AND retry_ms <= :now_ms
    ORDER BY retry_ms LIMIT :limit
"""
_DROP_REMOTE: Final = "DELETE FROM remote_device_lists WHERE user_nid = :user_nid"
_REMOTE_DEVICES: Final = """
    SELECT user_nid, device_id, display_name, keys FROM remote_devices
    WHERE user_nid IN (:user_nids[]) ORDER BY user_nid, device_id
"""
_UPSERT_REMOTE_DEVICE: Final = """
    INSERT INTO remote_devices (user_nid, device_id, display_name, keys)
    VALUES (:user_nid, :device_id, :display_name, :keys)
    ON CONFLICT (user_nid, device_id) DO UPDATE SET display_name = excluded.display_name, keys = excluded.keys
"""
_DELETE_REMOTE_DEVICE: Final = """
    DELETE FROM remote_devices WHERE user_nid = :user_nid AND device_id = :device_id
"""
_DELETE_REMOTE_DEVICES: Final = "DELETE FROM remote_devices WHERE user_nid = :user_nid"


def insert_device_change(txn: WriteTxn, user_nid: int, device_id: DeviceID | None) -> int:
    """Note that a local user's device changed (None: cross-signing keys or signatures); the position."""
    position = _set_version(txn, user_nid)
    txn.execute(_INSERT_CHANGE, position=position, user_nid=user_nid, device_id=device_id)
    return position


def list_changed_users(txn: ReadTxn, since: int, up_to: int) -> list[int]:
    """Users (local and remote) whose newest change lies in (since, up_to], oldest first."""
    return [user_nid for (user_nid,) in txn.all(_CHANGED_USERS, since=since, up_to=up_to)]


def find_versions(txn: ReadTxn, user_nids: Collection[int]) -> dict[int, int]:
    """user_nid -> position of its newest change; a user without any is left out."""
    nids = list(user_nids)
    return {
        nid: position for batch in in_batches(nids) for nid, position in txn.all(_VERSIONS, user_nids=batch)
    }


def list_device_changes(txn: ReadTxn, since: int, up_to: int, limit: int) -> list[DeviceChange]:
    """What is to be told to other servers, oldest first; which of them, the rooms of the user tell."""
    return [DeviceChange(*row) for row in txn.all(_CHANGES, since=since, up_to=up_to, limit=limit)]


def find_previous_change(txn: ReadTxn, user_nid: int, position: int) -> int | None:
    """The user's change before this one: the `prev_id` of the update. A server that missed it asks for the
    list.
    """
    value: int | None = txn.value(_PREVIOUS, user_nid=user_nid, position=position)
    return value


def delete_device_changes(txn: WriteTxn, before: int) -> int:
    """Forget changes below a position. Servers that did not get them find the gap and ask for the list."""
    return txn.execute(_PRUNE, before=before)


def find_remote_list(txn: ReadTxn, user_nid: int) -> RemoteList | None:
    """None: this user's devices are not followed."""
    row = txn.first(_FIND_REMOTE, user_nid=user_nid)
    return None if row is None else RemoteList(row[0], bool(row[1]), row[2])


def list_fresh(txn: ReadTxn, user_nids: Collection[int]) -> set[int]:
    """Of these remote users, those whose devices can be answered for without asking their server."""
    nids = list(user_nids)
    return {nid for batch in in_batches(nids) for (nid,) in txn.all(_LIST_REMOTE, user_nids=batch)}


def replace_remote_devices(
    txn: WriteTxn, user_nid: int, stream_id: int, devices: Sequence[RemoteDevice]
) -> None:
    """Store a whole list as the user's server gave it; the list is fresh from now on."""
    txn.execute(_SET_REMOTE, user_nid=user_nid, stream_id=stream_id)
    txn.execute(_DELETE_REMOTE_DEVICES, user_nid=user_nid)
    txn.execute_many(_UPSERT_REMOTE_DEVICE, [_remote(user_nid, device) for device in devices])
    _set_version(txn, user_nid)


def upsert_remote_device(txn: WriteTxn, user_nid: int, stream_id: int, device: RemoteDevice) -> None:
    """Apply an update whose predecessors were all applied."""
    txn.execute(_SET_REMOTE, user_nid=user_nid, stream_id=stream_id)
    txn.execute(_UPSERT_REMOTE_DEVICE, **_remote(user_nid, device))
    _set_version(txn, user_nid)


def delete_remote_device(txn: WriteTxn, user_nid: int, stream_id: int, device_id: DeviceID) -> None:
    """Apply an update with `deleted`."""
    txn.execute(_SET_REMOTE, user_nid=user_nid, stream_id=stream_id)
    txn.execute(_DELETE_REMOTE_DEVICE, user_nid=user_nid, device_id=device_id)
    _set_version(txn, user_nid)


def mark_changed(txn: WriteTxn, user_nid: int) -> None:
    """Tell clients that a remote user's keys changed, when what changed is stored elsewhere (cross-signing)."""
    _set_version(txn, user_nid)


def mark_stale(txn: WriteTxn, user_nid: int) -> None:
    """Follow a remote user whose list has to be asked for: the first time, or because an update was missed.

    Clients are told at once, so that they ask for the keys before they send to devices that are out of date.
    """
    txn.execute(_MARK_STALE, user_nid=user_nid)
    _set_version(txn, user_nid)
    txn.hint(Kind.JOB, 0)


def postpone_resync(txn: WriteTxn, user_nid: int, retry_ms: int) -> None:
    """The user's server did not answer: do not ask before `retry_ms`."""
    txn.execute(_POSTPONE, user_nid=user_nid, retry_ms=retry_ms)


def list_stale(txn: ReadTxn, now_ms: int, limit: int) -> list[int]:
    """Remote users whose devices are to be asked for now, longest due first."""
    return [user_nid for (user_nid,) in txn.all(_LIST_STALE, now_ms=now_ms, limit=limit)]


def drop_remote_list(txn: WriteTxn, user_nid: int) -> None:
    """Stop following a user with whom nobody shares a room any more; the devices go too."""
    txn.execute(_DROP_REMOTE, user_nid=user_nid)


def list_remote_devices(txn: ReadTxn, user_nids: Collection[int]) -> dict[int, list[RemoteDevice]]:
    """user_nid -> devices as last heard of. Every user asked for has an entry."""
    found: dict[int, list[RemoteDevice]] = {nid: [] for nid in user_nids}
    for batch in in_batches(list(found)):
        for user_nid, *rest in txn.all(_REMOTE_DEVICES, user_nids=batch):
            found[user_nid].append(RemoteDevice(*rest))
    return found


def _set_version(txn: WriteTxn, user_nid: int) -> int:
    position = txn.next_position()
    txn.execute(_SET_VERSION, user_nid=user_nid, position=position)
    txn.hint(Kind.DEVICE_LIST, user_nid)
    return position


def _remote(user_nid: int, device: RemoteDevice) -> dict[str, object]:
    return {"user_nid": user_nid, **msgspec.structs.asdict(device)}
