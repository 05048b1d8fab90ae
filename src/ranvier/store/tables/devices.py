"""Devices of local users.

Tables: devices, deleted_devices, and the deletion of everything that belongs to a device. Owner:
services.devices.
Growth: one row a device. Index -> query: UNIQUE (user_nid, device_id) -> find, list.

`device_nid` is a position and never used again, so nothing of a deleted device can come to a new one of the
same name.
What belongs to a device says so with `device_nid … ON DELETE CASCADE`; the two exceptions are in
`delete_devices`: tables that know it by its name, and to-device messages, of which there may be a million: a
sweeper deletes them bit by bit (`sweep_deleted_devices`). A test walks the schema and finds whatever is
forgotten.
"""

from collections.abc import Collection
from typing import Final

import msgspec

from ranvier.core.identifiers import DeviceID
from ranvier.store.database import Kind, ReadTxn, Row, WriteTxn
from ranvier.store.tables.account_data import GLOBAL, delete_account_data
from ranvier.store.tables.batches import in_batches
from ranvier.store.tables.device_lists import insert_device_change

_LOCAL_SETTINGS: Final = "org.matrix.msc3890.local_notification_settings"
"""What clients keep about notifying one device, in account data that is named after it (MSC3890)."""


class Device(msgspec.Struct, frozen=True):
    device_nid: int
    user_nid: int
    device_id: DeviceID
    display_name: str | None
    created_ms: int
    last_seen_ms: int | None
    last_seen_ip: str | None
    last_seen_agent: str | None
    keys: bytes | None  # device keys as uploaded, JSON


_SELECT: Final = """
    SELECT device_nid, user_nid, device_id, display_name, created_ms, last_seen_ms, last_seen_ip,
        last_seen_agent, keys
    FROM devices
"""
_FIND: Final = f"{_SELECT} WHERE user_nid = :user_nid AND device_id = :device_id"
_LIST: Final = f"{_SELECT} WHERE user_nid = :user_nid ORDER BY device_id"
_LIST_OF_USERS: Final = f"{_SELECT} WHERE user_nid IN (:user_nids[]) ORDER BY user_nid, device_id"
_FIND_NIDS: Final = """
    WITH wanted(user_nid, device_id) AS (:devices[2])
    SELECT d.user_nid, d.device_id, d.device_nid
    FROM wanted JOIN devices d ON d.user_nid = wanted.user_nid AND d.device_id = wanted.device_id
"""
_INSERT: Final = """
    INSERT INTO devices (device_nid, user_nid, device_id, display_name, created_ms)
    VALUES (:device_nid, :user_nid, :device_id, :display_name, :created_ms)
"""
_RENAME: Final = "UPDATE devices SET display_name = :display_name WHERE device_nid = :device_nid"
_SET_KEYS: Final = "UPDATE devices SET keys = :keys WHERE device_nid = :device_nid"
_SEEN: Final = """
    UPDATE devices SET last_seen_ms = :last_seen_ms, last_seen_ip = :last_seen_ip, last_seen_agent =
        :last_seen_agent
    WHERE device_nid = :device_nid AND (last_seen_ms IS NULL OR last_seen_ms < :last_seen_ms)
"""
_BURY: Final = (
    "INSERT INTO deleted_devices (device_nid) VALUES (:device_nid) ON CONFLICT (device_nid) DO NOTHING"
)
_FORGET: Final = (
    "DELETE FROM key_signatures WHERE target_user_nid = :user_nid AND target_id = :device_id",
    "DELETE FROM client_transactions WHERE user_nid = :user_nid AND device_id = :device_id",
)
_DELETE: Final = "DELETE FROM devices WHERE device_nid = :device_nid"
_BURIED: Final = "SELECT device_nid FROM deleted_devices ORDER BY device_nid LIMIT 1"
_REMAINS: Final = """
    SELECT position FROM to_device_messages WHERE device_nid = :device_nid ORDER BY position LIMIT :limit
"""
_SWEEP: Final = "DELETE FROM to_device_messages WHERE device_nid = :device_nid AND position <= :up_to"
_UNBURY: Final = "DELETE FROM deleted_devices WHERE device_nid = :device_nid"


class Seen(msgspec.Struct, frozen=True):
    """When and from where a device was last used. The service collects these and writes them now and then."""

    device_nid: int
    last_seen_ms: int
    last_seen_ip: str | None
    last_seen_agent: str | None


def insert_device(
    txn: WriteTxn, user_nid: int, device_id: DeviceID, display_name: str | None, created_ms: int
) -> int:
    """Add a device that does not exist; its device_nid. Its list of devices changes for those who share a
    room.
    """
    device_nid = txn.next_position()
    txn.execute(
        _INSERT,
        device_nid=device_nid,
        user_nid=user_nid,
        device_id=device_id,
        display_name=display_name,
        created_ms=created_ms,
    )
    insert_device_change(txn, user_nid, device_id)
    return device_nid


def find_device(txn: ReadTxn, user_nid: int, device_id: DeviceID) -> Device | None:
    row = txn.first(_FIND, user_nid=user_nid, device_id=device_id)
    return None if row is None else _device(row)


def list_devices(txn: ReadTxn, user_nid: int) -> list[Device]:
    """Every device of a user, by device_id."""
    return [_device(row) for row in txn.all(_LIST, user_nid=user_nid)]


def list_devices_of_users(txn: ReadTxn, user_nids: Collection[int]) -> dict[int, list[Device]]:
    """user_nid -> its devices, for `/keys/query` and wildcards. Every user asked for has an entry."""
    found: dict[int, list[Device]] = {nid: [] for nid in user_nids}
    for batch in in_batches(list(found)):
        for row in txn.all(_LIST_OF_USERS, user_nids=batch):
            found[row[1]].append(_device(row))
    return found


def find_device_nids(
    txn: ReadTxn, devices: Collection[tuple[int, DeviceID]]
) -> dict[tuple[int, DeviceID], int]:
    """(user_nid, device_id) -> device_nid, of those that exist."""
    return {
        (user_nid, device_id): device_nid
        for batch in in_batches(list(devices))
        for user_nid, device_id, device_nid in txn.all(_FIND_NIDS, devices=batch)
    }


def set_display_name(txn: WriteTxn, device: Device, display_name: str | None) -> None:
    """Rename a device, which others get to see with its keys."""
    txn.execute(_RENAME, device_nid=device.device_nid, display_name=display_name)
    insert_device_change(txn, device.user_nid, device.device_id)


def set_device_keys(txn: WriteTxn, device: Device, keys: bytes) -> bool:
    """Store a device's identity keys (JSON); False if they are what is stored already, byte for byte."""
    if device.keys == keys:
        return False
    txn.execute(_SET_KEYS, device_nid=device.device_nid, keys=keys)
    insert_device_change(txn, device.user_nid, device.device_id)
    return True


def update_last_seen(txn: WriteTxn, seen: Collection[Seen]) -> None:
    """Write what was collected since the last time, at one go. Nobody has to catch up with it: no position."""
    # In order, so that two processes never wait for each other in a circle.
    ordered = sorted(seen, key=lambda one: one.device_nid)
    txn.execute_many(_SEEN, [msgspec.structs.asdict(one) for one in ordered])


def delete_devices(txn: WriteTxn, devices: Collection[Device]) -> None:
    """Delete devices and everything that belongs to them: tokens, keys, pushers, messages, signatures on
    them.
    """
    for device in devices:
        txn.execute(_BURY, device_nid=device.device_nid)
        for sql in _FORGET:
            txn.execute(sql, user_nid=device.user_nid, device_id=device.device_id)
        delete_account_data(txn, device.user_nid, GLOBAL, f"{_LOCAL_SETTINGS}.{device.device_id}")
        if txn.execute(_DELETE, device_nid=device.device_nid):
            insert_device_change(txn, device.user_nid, device.device_id)
            txn.hint(Kind.USER, device.user_nid)
            txn.hint(Kind.SESSION, device.user_nid)


def sweep_deleted_devices(txn: WriteTxn, limit: int = 1000) -> bool:
    """Delete up to `limit` messages that a deleted device left behind. True: there may be more, call again."""
    device_nid = txn.value(_BURIED)
    if device_nid is None:
        return False
    remains = txn.all(_REMAINS, device_nid=device_nid, limit=limit)
    if remains:
        txn.execute(_SWEEP, device_nid=device_nid, up_to=remains[-1][0])
    if len(remains) < limit:
        txn.execute(_UNBURY, device_nid=device_nid)
    return True


def _device(row: Row) -> Device:
    return Device(*row)
