"""Other servers tell that the devices and keys of their users changed.

An update of a list that is followed is applied if it comes right after the one that was applied before it. Any
other one makes the list stale: it is asked for again (`resync`), and until then clients' queries go to the user's
server.

Of users who are not followed, nobody here has got any keys since a room is shared, and clients were told then that
they have to ask. So what their servers say of them is no news; it is passed on all the same, as other servers do,
but not that they have come.

Spec: server-server API, "Device Management".
"""

from ranvier.core.federation.edus import DeviceListUpdate, SigningKeyUpdate
from ranvier.core.identifiers import ServerName, UserID
from ranvier.services.devices.remote_keys import (
    MAX_DEVICES,
    MAX_LIST_BYTES,
    cut_name,
    pack_cross_signing_keys,
    pack_device_keys,
)
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables.cross_signing import (
    MASTER,
    SELF_SIGNING,
    list_cross_signing_keys,
    set_remote_cross_signing_keys,
)
from ranvier.store.tables.device_lists import (
    RemoteDevice,
    delete_remote_device,
    find_remote_list,
    list_remote_devices,
    mark_changed,
    mark_stale,
    measure_remote_devices,
    shares_a_room,
    upsert_remote_device,
)
from ranvier.store.tables.interned import Interner, find_user_nids


class RemoteDeviceLists:
    """Takes the EDUs. That the server may speak for the user was checked."""

    def __init__(self, db: Database, interner: Interner) -> None:
        self._db = db
        self._interner = interner

    async def device_list_update(self, _origin: ServerName, edu: DeviceListUpdate) -> None:
        """Raises: StoreFault."""
        await self._db.write(_update, self._interner, edu)

    async def signing_key_update(self, _origin: ServerName, edu: SigningKeyUpdate) -> None:
        """Raises: StoreFault."""
        await self._db.write(_update_signing_keys, self._interner, edu)


def _update(txn: WriteTxn, interner: Interner, edu: DeviceListUpdate) -> None:
    nid = _find(txn, interner, edu.user_id)
    known = None if nid is None else find_remote_list(txn, nid)
    if nid is None or known is None:
        if edu.prev_id:
            _tell_of_stranger(txn, nid)
        return
    keys = pack_device_keys(edu.keys, edu.user_id, edu.device_id)
    if known.needs_resync or known.stream_id is None:
        mark_stale(txn, nid)
    elif edu.stream_id <= known.stream_id:
        # Sent twice, or overtaken by the answer that had it already. Else the server counts anew.
        if not _is_known(txn, nid, edu, keys):
            mark_stale(txn, nid)
    # Without predecessors it does not say what comes before it. COMPAT(Conduit): it says nothing else.
    elif not edu.prev_id or any(prev != known.stream_id for prev in edu.prev_id):
        mark_stale(txn, nid)
    elif edu.deleted:
        delete_remote_device(txn, nid, edu.stream_id, edu.device_id)
    elif (keys is None and edu.keys is not None) or _is_full(txn, nid, keys):
        mark_stale(txn, nid)  # what is asked for whole is cut to what is kept
    else:
        device = RemoteDevice(edu.device_id, cut_name(edu.device_display_name), keys)
        upsert_remote_device(txn, nid, edu.stream_id, device)


def _is_full(txn: ReadTxn, user_nid: int, keys: bytes | None) -> bool:
    count, size = measure_remote_devices(txn, user_nid)
    return count >= MAX_DEVICES or size + len(keys or b"") > MAX_LIST_BYTES


def _is_known(txn: ReadTxn, user_nid: int, edu: DeviceListUpdate, keys: bytes | None) -> bool:
    """Whether an update says what is stored."""
    stored = {device.device_id: device for device in list_remote_devices(txn, [user_nid])[user_nid]}
    device = stored.get(edu.device_id)
    if edu.deleted or device is None:
        return edu.deleted == (device is None)
    return device == RemoteDevice(edu.device_id, cut_name(edu.device_display_name), keys)


def _update_signing_keys(txn: WriteTxn, interner: Interner, edu: SigningKeyUpdate) -> None:
    nid = _find(txn, interner, edu.user_id)
    known = None if nid is None else find_remote_list(txn, nid)
    if nid is None or known is None:
        _tell_of_stranger(txn, nid)
        return
    if known.needs_resync:
        mark_stale(txn, nid)
        return
    new = pack_cross_signing_keys(
        edu.user_id, ((MASTER, edu.master_key), (SELF_SIGNING, edu.self_signing_key))
    )
    keys = {key.usage: key for key in new}
    old = list_cross_signing_keys(txn, [nid])[nid]
    # What it does not name is still there, but not under another master key, which has not signed it.
    if MASTER not in keys or (MASTER in old and old[MASTER].public_key == keys[MASTER].public_key):
        keys = old | keys
    if set_remote_cross_signing_keys(txn, nid, list(keys.values())):
        mark_changed(txn, nid)


def _find(txn: ReadTxn, interner: Interner, user_id: UserID) -> int | None:
    return find_user_nids(txn, interner, [user_id]).get(user_id)


def _tell_of_stranger(txn: WriteTxn, user_nid: int | None) -> None:
    if user_nid is not None and shares_a_room(txn, user_nid):
        mark_changed(txn, user_nid)
