"""A device publishes its keys: the long-lived ones, one-time keys, and fallback keys.

Spec: client-server API, "Uploading keys", "One-time and fallback keys".
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.encryption_keys import (
    SIGNED_CURVE25519,
    is_same_key,
    parse_device_keys,
    parse_one_time_key,
)
from ranvier.core.errors import BadSignature, InvalidParam, InvalidSignature, NotFound
from ranvier.core.identifiers import DeviceID, UserID
from ranvier.services.requester import Requester
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables.cross_signing import delete_signatures_on
from ranvier.store.tables.devices import Device, find_device, set_device_keys
from ranvier.store.tables.one_time_keys import (
    Holder,
    PublicKey,
    count_one_time_keys,
    insert_one_time_keys,
    list_one_time_keys,
    list_unused_fallback_types,
    set_fallback_key,
)

MAX_ONE_TIME_KEYS: Final = 1000
"""Of one device at a time. Clients keep 50 to 100 here."""
MAX_FALLBACK_KEYS: Final = 20
"""Of one device, each of another algorithm."""


class KeyUpload(msgspec.Struct, frozen=True, kw_only=True):
    """What a client sends; every part may be left out."""

    device_keys: JsonObject | None = None
    one_time_keys: dict[str, str | JsonObject] | None = None
    fallback_keys: dict[str, str | JsonObject] | None = None


class CheckedKeys(msgspec.Struct, frozen=True):
    """The same, checked, in the form in which it is stored."""

    device_keys: bytes | None
    one_time_keys: Mapping[tuple[str, str], bytes]  # (algorithm, key id) -> JSON
    fallback_keys: tuple[PublicKey, ...]

    @property
    def is_nothing(self) -> bool:
        return self.device_keys is None and not self.one_time_keys and not self.fallback_keys


class KeyCounts(msgspec.Struct, frozen=True):
    """What a device has left: for the response to an upload, and for sync."""

    one_time_keys: Mapping[str, int]  # algorithm -> how many
    unused_fallback_types: list[str]


class KeyUploads:
    """Takes keys from devices."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def upload(self, requester: Requester, upload: KeyUpload) -> Mapping[str, int]:
        """Store keys of the requester's device; how many one-time keys it now has, by algorithm.

        Raises: BadKey, InvalidSignature; InvalidParam: too many keys, a key id that has another key, or a
        requester without a device.
        """
        if requester.device_id is None or requester.device_nid is None:
            raise InvalidParam("Keys belong to a device, and this access token has none.")
        keys = check_keys(upload, requester.user_id, requester.device_id)
        if keys.is_nothing:
            counts = await self._db.read(read_key_counts, requester.device_nid)
        else:
            counts = await self._db.write(_store, requester.user_nid, requester.device_id, keys)
        return counts.one_time_keys


def check_keys(upload: KeyUpload, user_id: UserID, device_id: DeviceID) -> CheckedKeys:
    """Raises: BadKey, InvalidSignature; InvalidParam: two fallback keys of one algorithm."""
    try:
        device_keys = (
            None if upload.device_keys is None else parse_device_keys(upload.device_keys, user_id, device_id)
        )
    except BadSignature as error:
        raise InvalidSignature(f"The device keys are not signed by the device: {error}.") from error
    one_time = [parse_one_time_key(*item) for item in (upload.one_time_keys or {}).items()]
    fallback = [PublicKey(*parse_one_time_key(*item)) for item in (upload.fallback_keys or {}).items()]
    if len({key.algorithm for key in fallback}) != len(fallback):
        raise InvalidParam("There can be only one fallback key of an algorithm.")
    if len(fallback) > MAX_FALLBACK_KEYS:
        raise InvalidParam(f"A device has at most {MAX_FALLBACK_KEYS} fallback keys.")
    return CheckedKeys(
        device_keys, {(algorithm, key_id): json for algorithm, key_id, json in one_time}, tuple(fallback)
    )


def store_keys(txn: WriteTxn, device: Device, keys: CheckedKeys) -> None:
    """Store what a device uploaded. Uploading the same again changes nothing.

    Raises: InvalidParam.
    """
    holder = Holder(device.user_nid, device.device_nid)
    if keys.device_keys is not None and set_device_keys(txn, device, keys.device_keys):
        # What was signed is there no more.
        delete_signatures_on(txn, device.user_nid, device.device_id)
    if keys.one_time_keys:
        old = list_one_time_keys(txn, device.device_nid)
        for name in keys.one_time_keys.keys() & old.keys():
            if not is_same_key(keys.one_time_keys[name], old[name]):
                raise InvalidParam(f"There is another one-time key {':'.join(name)} already.")
        new = {name: json for name, json in keys.one_time_keys.items() if name not in old}
        if len(old) + len(new) > MAX_ONE_TIME_KEYS:
            raise InvalidParam(f"A device has at most {MAX_ONE_TIME_KEYS} one-time keys.")
        if new:
            insert_one_time_keys(txn, holder, new)
    for key in keys.fallback_keys:
        set_fallback_key(txn, holder, key)


def read_key_counts(txn: ReadTxn, device_nid: int) -> KeyCounts:
    """How many keys a device has left. A USER hint tells when that changes. Cost: 2 queries."""
    # COMPAT(clients): for some, a count that is not there is not 0 but unknown, and they upload nothing.
    counts = {SIGNED_CURVE25519: 0} | count_one_time_keys(txn, device_nid)
    return KeyCounts(counts, list_unused_fallback_types(txn, device_nid))


def _store(txn: WriteTxn, user_nid: int, device_id: DeviceID, keys: CheckedKeys) -> KeyCounts:
    device = find_device(txn, user_nid, device_id)
    if device is None:
        raise NotFound("This device has been deleted.")
    store_keys(txn, device, keys)
    return read_key_counts(txn, device.device_nid)
