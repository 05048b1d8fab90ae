"""Dehydrated devices: one for each user, that collects messages until somebody brings it to life.

Table: dehydrated_devices. Owner: services.devices. Growth: one row a user. The device itself is a row of `devices`,
with keys and messages like any other one; deleting that deletes this.

Spec: MSC3814.
"""

from typing import Final

import msgspec

from ranvier.core.identifiers import DeviceID
from ranvier.store.database import ReadTxn, WriteTxn


class DehydratedDevice(msgspec.Struct, frozen=True):
    device_nid: int
    device_id: DeviceID
    device_data: bytes  # JSON


_FIND: Final = """
    SELECT d.device_nid, d.device_id, h.device_data
    FROM dehydrated_devices h JOIN devices d ON d.device_nid = h.device_nid WHERE h.user_nid = :user_nid
"""
_INSERT: Final = """
    INSERT INTO dehydrated_devices (user_nid, device_nid, device_data)
    VALUES (:user_nid, :device_nid, :device_data)
"""


def find_dehydrated_device(txn: ReadTxn, user_nid: int) -> DehydratedDevice | None:
    row = txn.first(_FIND, user_nid=user_nid)
    return None if row is None else DehydratedDevice(*row)


def insert_dehydrated_device(txn: WriteTxn, user_nid: int, device_nid: int, device_data: bytes) -> None:
    """Make a device the dehydrated one. The one before must be deleted."""
    txn.execute(_INSERT, user_nid=user_nid, device_nid=device_nid, device_data=device_data)
