"""What other servers may know of the keys of our users.

Spec: server-server API, "End-to-End Encryption", "Device Management".
"""

import msgspec

from ranvier.core.errors import NotFound
from ranvier.core.identifiers import DeviceID, UserID, server_of
from ranvier.services.devices.claims import Claimed, Claims, KeyClaims
from ranvier.services.devices.keys import KeysFound, Wanted, read_keys
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables.device_lists import find_newest_change
from ranvier.store.tables.devices import list_devices
from ranvier.store.tables.interned import Interner, find_user_nids


class UserDevice(msgspec.Struct, frozen=True, omit_defaults=True):
    device_id: DeviceID
    keys: msgspec.Raw
    device_display_name: str | None = None


class UserDevices(msgspec.Struct, frozen=True, omit_defaults=True):
    """The fields of the specification."""

    user_id: UserID
    stream_id: int
    devices: list[UserDevice]
    master_key: msgspec.Raw | None = None
    self_signing_key: msgspec.Raw | None = None


class KeysForServers:
    """Answers other servers. `tells_names`: whether they get to know the names of devices."""

    def __init__(self, db: Database, interner: Interner, claims: KeyClaims, *, tells_names: bool) -> None:
        self._db = db
        self._interner = interner
        self._claims = claims
        self._tells_names = tells_names

    async def query(self, wanted: Wanted) -> KeysFound:
        """The keys of our users, with those signatures that everybody may see. Others' users are left out."""
        local = {user_id: ids for user_id, ids in wanted.items() if self._is_local(user_id)}
        found, _ = await self._db.read(read_keys, self._interner, local, None, names=self._tells_names)
        return found

    async def claim(self, claims: Claims) -> Claimed:
        """A key for each device of our users."""
        return await self._claims.claim_local(
            {user_id: devices for user_id, devices in claims.items() if self._is_local(user_id)}
        )

    async def list_devices(self, user_id: UserID) -> UserDevices:
        """All that is known of a user's devices. Raises: NotFound."""
        if not self._is_local(user_id):
            raise NotFound("This is no user of this server.")
        return await self._db.read(self._read_devices, user_id)

    def _read_devices(self, txn: ReadTxn, user_id: UserID) -> UserDevices:
        nid = find_user_nids(txn, self._interner, [user_id]).get(user_id)
        if nid is None:
            raise NotFound("There is no such user.")
        found, _ = read_keys(txn, self._interner, {user_id: ()}, None, names=False)
        newest = find_newest_change(txn, nid)
        names = {device.device_id: device.display_name for device in list_devices(txn, nid)}
        return UserDevices(
            user_id,
            0 if newest is None else newest.position,
            [
                UserDevice(DeviceID(name), keys, names[DeviceID(name)] if self._tells_names else None)
                for name, keys in found.device_keys[user_id].items()
            ],
            found.master_keys.get(user_id),
            found.self_signing_keys.get(user_id),
        )

    def _is_local(self, user_id: UserID) -> bool:
        return server_of(user_id) == self._interner.own_server
