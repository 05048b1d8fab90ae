"""Devices and sessions of users, as administrators see and end them."""

from collections.abc import Collection

import msgspec

from ranvier.core.errors import Forbidden, InvalidParam, NotFound
from ranvier.core.identifiers import DeviceID, ServerName, UserID, parse_device_id
from ranvier.io.clock import Clock
from ranvier.services.accounts.last_seen import LastSeen
from ranvier.services.accounts.sessions import SessionDrafts, check_device_name
from ranvier.services.administration.people import check_local, get_account
from ranvier.services.requester import Requester
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables import devices
from ranvier.store.tables.dehydrated_devices import find_dehydrated_device
from ranvier.store.tables.devices import Device
from ranvier.store.tables.tokens import insert_token


class DeviceInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A device, with the names that Synapse gives its parts."""

    device_id: DeviceID
    user_id: UserID
    display_name: str | None
    last_seen_ip: str | None
    last_seen_user_agent: str | None
    last_seen_ts: int | None
    dehydrated: bool


class UserSessions:
    """Devices of users of this server. `user_id` is of it, or InvalidParam is raised; NotFound: no such user."""

    def __init__(
        self,
        server_name: ServerName,
        db: Database,
        clock: Clock,
        drafts: SessionDrafts,
        last_seen: LastSeen,
    ) -> None:
        self._server_name = server_name
        self._db = db
        self._clock = clock
        self._drafts = drafts
        self._last_seen = last_seen

    async def list_devices(self, user_id: UserID) -> list[DeviceInfo]:
        check_local(user_id, self._server_name)

        def read(txn: ReadTxn) -> tuple[list[Device], int | None]:
            user_nid = get_account(txn, user_id).user_nid
            dehydrated = find_dehydrated_device(txn, user_nid)
            return devices.list_devices(txn, user_nid), None if dehydrated is None else dehydrated.device_nid

        found, dehydrated_nid = await self._db.read(read)
        return [self._show(user_id, one, one.device_nid == dehydrated_nid) for one in found]

    async def get_device(self, user_id: UserID, device_id: DeviceID) -> DeviceInfo:
        """Raises: NotFound."""
        for device in await self.list_devices(user_id):
            if device.device_id == device_id:
                return device
        raise NotFound("There is no such device.")

    async def add_device(self, user_id: UserID, device_id: str, display_name: str | None) -> bool:
        """Make a device without a session, if there is none of this name; whether it is new."""
        check_local(user_id, self._server_name)
        check_device_name(display_name)
        wished = parse_device_id(device_id)
        now_ms = self._clock.now_ms()

        def write(txn: WriteTxn) -> bool:
            account = get_account(txn, user_id)
            if devices.find_device(txn, account.user_nid, wished) is not None:
                return False
            if account.deactivated_ms is not None:
                raise InvalidParam("This account is deactivated.")
            devices.insert_device(txn, account.user_nid, wished, display_name, now_ms)
            return True

        return await self._db.write(write)

    async def rename_device(self, user_id: UserID, device_id: DeviceID, display_name: str | None) -> None:
        """None: leave its name. Raises: NotFound."""
        check_local(user_id, self._server_name)
        check_device_name(display_name)

        def write(txn: WriteTxn) -> None:
            device = devices.find_device(txn, get_account(txn, user_id).user_nid, device_id)
            if device is None:
                raise NotFound("There is no such device.")
            if display_name is not None and display_name != device.display_name:
                devices.set_display_name(txn, device, display_name)

        await self._db.write(write)

    async def delete_devices(self, user_id: UserID, device_ids: Collection[str]) -> None:
        """End their sessions. Devices that are not there are passed over."""
        check_local(user_id, self._server_name)
        doomed = set(device_ids)

        def write(txn: WriteTxn) -> None:
            found = devices.list_devices(txn, get_account(txn, user_id).user_nid)
            devices.delete_devices(txn, [device for device in found if device.device_id in doomed])

        await self._db.write(write)

    async def log_in_as(self, requester: Requester, user_id: UserID, valid_until_ms: int | None) -> str:
        """An access token with which the administrator acts as a user: without a device, so that the user sees
        nothing of it. It ends with the administrator's own sessions, and with all of the user's.

        Raises: NotFound; Forbidden: oneself; InvalidParam.
        """
        check_local(user_id, self._server_name)
        if requester.user_id == user_id:
            raise Forbidden("You are logged in as yourself already.")
        drafted = self._drafts.lasting_tokens()
        if valid_until_ms is not None and valid_until_ms <= drafted.stored.created_ms:
            raise InvalidParam("valid_until_ms lies in the past.")
        stored = msgspec.structs.replace(drafted.stored, expires_ms=valid_until_ms)

        def write(txn: WriteTxn) -> None:
            account = get_account(txn, user_id)
            if account.deactivated_ms is not None:
                raise InvalidParam("This account is deactivated.")
            insert_token(txn, account.user_nid, None, stored, issued_by_nid=requester.user_nid)

        await self._db.write(write)
        return drafted.access

    def _show(self, user_id: UserID, device: Device, is_dehydrated: bool) -> DeviceInfo:
        # What is not written yet is newer than what is.
        seen = self._last_seen.find(device.device_nid)
        return DeviceInfo(
            device_id=device.device_id,
            user_id=user_id,
            display_name=device.display_name,
            last_seen_ip=device.last_seen_ip if seen is None else seen.last_seen_ip,
            last_seen_user_agent=device.last_seen_agent if seen is None else seen.last_seen_agent,
            last_seen_ts=device.last_seen_ms if seen is None else seen.last_seen_ms,
            dehydrated=is_dehydrated,
        )
