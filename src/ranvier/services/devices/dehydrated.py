"""Dehydrated devices: a device that nobody uses, kept on the server with its secrets encrypted, so that messages can
be encrypted for a user who is logged in nowhere. Who logs in next brings it to life, reads its messages, and puts a
new one in its place.

Spec: MSC3814.
"""

import msgspec
import orjson

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import Forbidden, InvalidParam, NotFound
from ranvier.core.identifiers import DeviceID, parse_device_id
from ranvier.io.clock import Clock
from ranvier.services.accounts.sessions import check_device_name
from ranvier.services.devices.key_upload import CheckedKeys, KeyUpload, check_keys, store_keys
from ranvier.services.devices.to_device import encode_message, read_messages
from ranvier.services.requester import Requester
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables.dehydrated_devices import (
    DehydratedDevice,
    find_dehydrated_device,
    insert_dehydrated_device,
)
from ranvier.store.tables.devices import delete_devices, find_device, insert_device
from ranvier.store.tables.to_device import ToDeviceMessage


class NewDehydratedDevice(msgspec.Struct, frozen=True, kw_only=True):
    """What a client sends."""

    device_id: str
    device_data: JsonObject
    device_keys: JsonObject
    initial_device_display_name: str | None = None
    one_time_keys: dict[str, str | JsonObject] | None = None
    fallback_keys: dict[str, str | JsonObject] | None = None


class DehydratedDeviceInfo(msgspec.Struct, frozen=True):
    device_id: DeviceID
    device_data: msgspec.Raw


class Events(msgspec.Struct, frozen=True):
    events: list[msgspec.Raw]
    position: int  # the next ones are behind it


class _Checked(msgspec.Struct, frozen=True):
    device_id: DeviceID
    display_name: str | None
    data: bytes
    keys: CheckedKeys


class DehydratedDevices:
    """Looks after the one dehydrated device that a user may have."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def replace(self, requester: Requester, new: NewDehydratedDevice) -> None:
        """Make a dehydrated device, in place of the one that there was.

        Raises: BadKey, InvalidSignature; InvalidParam, also when another device has that id.
        """
        device_id = parse_device_id(new.device_id)
        check_device_name(new.initial_device_display_name)
        upload = KeyUpload(
            device_keys=new.device_keys, one_time_keys=new.one_time_keys, fallback_keys=new.fallback_keys
        )
        keys = check_keys(upload, requester.user_id, device_id)
        checked = _Checked(device_id, new.initial_device_display_name, orjson.dumps(new.device_data), keys)
        await self._db.write(_replace, requester.user_nid, checked, self._clock.now_ms())

    async def get(self, requester: Requester) -> DehydratedDeviceInfo:
        """Raises: NotFound."""
        found = await self._db.read(_get, requester.user_nid)
        return DehydratedDeviceInfo(found.device_id, msgspec.Raw(found.device_data))

    async def delete(self, requester: Requester) -> DeviceID:
        """Delete it; its id. Raises: NotFound."""
        return await self._db.write(_delete, requester.user_nid)

    async def list_events(self, requester: Requester, device_id: str, since: int) -> Events:
        """Messages for it behind a position. They stay until the device is deleted, so that bringing it to life
        can be begun again.

        Raises: Forbidden: the dehydrated device is another one; NotFound: there is none.
        """
        messages = await self._db.read(_list_events, requester.user_nid, device_id, since)
        events = [msgspec.Raw(encode_message(message)) for message in messages]
        return Events(events, messages[-1].position if messages else since)


def _get(txn: ReadTxn, user_nid: int) -> DehydratedDevice:
    found = find_dehydrated_device(txn, user_nid)
    if found is None:
        raise NotFound("There is no dehydrated device.")
    return found


def _replace(txn: WriteTxn, user_nid: int, new: _Checked, now_ms: int) -> None:
    if find_dehydrated_device(txn, user_nid) is not None:
        _delete(txn, user_nid)
    if find_device(txn, user_nid, new.device_id) is not None:
        raise InvalidParam("Another device has this id.")
    device_nid = insert_device(txn, user_nid, new.device_id, new.display_name, now_ms)
    device = find_device(txn, user_nid, new.device_id)
    assert device is not None, "it was just made"
    store_keys(txn, device, new.keys)
    insert_dehydrated_device(txn, user_nid, device_nid, new.data)


def _delete(txn: WriteTxn, user_nid: int) -> DeviceID:
    found = _get(txn, user_nid)
    device = find_device(txn, user_nid, found.device_id)
    assert device is not None, "a dehydrated device is a device"
    delete_devices(txn, [device])
    return found.device_id


def _list_events(txn: ReadTxn, user_nid: int, device_id: str, since: int) -> list[ToDeviceMessage]:
    found = _get(txn, user_nid)
    if found.device_id != device_id:
        raise Forbidden("This is not the dehydrated device.")
    return read_messages(txn, found.device_nid, since, txn.position)
