"""The devices of a user: listed, renamed, deleted.

Spec: client-server API, "Device Management".
"""

from collections.abc import Collection

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import NotFound
from ranvier.core.identifiers import DeviceID, UserID
from ranvier.io.clock import Clock
from ranvier.services.accounts.last_seen import LastSeen
from ranvier.services.accounts.sessions import check_device_name
from ranvier.services.accounts.uia import UserInteractive
from ranvier.services.requester import Requester
from ranvier.store.database import Database, WriteTxn
from ranvier.store.tables import devices
from ranvier.store.tables.devices import Device


class ClientDevice(msgspec.Struct, frozen=True, kw_only=True):
    """A device as its user sees it.

    COMPAT(matrix-nio 0.25): what is not known is null, as Synapse has it; the specification leaves it out.
    """

    device_id: DeviceID
    user_id: UserID
    display_name: str | None = None
    last_seen_ip: str | None = None
    last_seen_ts: int | None = None


class Devices:
    """Looks after devices."""

    def __init__(self, db: Database, clock: Clock, uia: UserInteractive, last_seen: LastSeen) -> None:
        self._db = db
        self._clock = clock
        self._uia = uia
        self._last_seen = last_seen

    async def list(self, requester: Requester) -> list[ClientDevice]:
        found = await self._db.read(devices.list_devices, requester.user_nid)
        return [self._show(requester, device) for device in found]

    async def get(self, requester: Requester, device_id: DeviceID) -> ClientDevice:
        """Raises: NotFound."""
        device = await self._db.read(devices.find_device, requester.user_nid, device_id)
        if device is None:
            raise NotFound("There is no such device.")
        return self._show(requester, device)

    async def update(self, requester: Requester, device_id: DeviceID, display_name: str | None) -> bool:
        """Rename a device (None: leave its name). An application service may make a new one: then True.

        Raises: NotFound, InvalidParam.
        """
        check_device_name(display_name)
        return await self._db.write(_update, requester, device_id, display_name, self._clock.now_ms())

    async def delete(
        self, requester: Requester, device_ids: Collection[DeviceID], request: str, auth: JsonObject | None
    ) -> None:
        """Delete devices, and what is not there any more; application services need not authenticate again.

        `request`: what is authorized, for user-interactive authentication.
        Raises: UiaRequired.
        """
        if requester.appservice_id is None:
            await self._uia.authorize_owner(requester, request, auth)
        await self._db.write(_delete, requester.user_nid, set(device_ids))

    def _show(self, requester: Requester, device: Device) -> ClientDevice:
        # What is not written yet is newer than what is.
        seen = self._last_seen.find(device.device_nid)
        return ClientDevice(
            device_id=device.device_id,
            user_id=requester.user_id,
            display_name=device.display_name,
            last_seen_ip=device.last_seen_ip if seen is None else seen.last_seen_ip,
            last_seen_ts=device.last_seen_ms if seen is None else seen.last_seen_ms,
        )


def _update(
    txn: WriteTxn, requester: Requester, device_id: DeviceID, display_name: str | None, now_ms: int
) -> bool:
    device = devices.find_device(txn, requester.user_nid, device_id)
    if device is None:
        if requester.appservice_id is None:
            raise NotFound("There is no such device.")
        devices.insert_device(txn, requester.user_nid, device_id, display_name, now_ms)
        return True
    if display_name is not None and display_name != device.display_name:
        devices.set_display_name(txn, device, display_name)
    return False


def _delete(txn: WriteTxn, user_nid: int, device_ids: Collection[DeviceID]) -> None:
    doomed = [device for device in devices.list_devices(txn, user_nid) if device.device_id in device_ids]
    devices.delete_devices(txn, doomed)
