"""What people do with their own account on this server's pages.

Spec: client-server API, "Account management" of the OAuth 2.0 API; MSC4191, MSC4312.
"""

from collections.abc import Sequence

import msgspec
import orjson

from ranvier.core.errors import Forbidden, NotFound
from ranvier.core.identifiers import DeviceID
from ranvier.io.clock import Clock
from ranvier.services.accounts.last_seen import LastSeen
from ranvier.services.accounts.owners import Owners
from ranvier.services.accounts.password_change import set_password
from ranvier.services.accounts.passwords import Passwords
from ranvier.services.accounts.profiles import DISPLAYNAME, Profiles
from ranvier.services.accounts.sessions import check_device_name
from ranvier.services.accounts.uia import APPROVAL, UserInteractive
from ranvier.services.devices.cross_signing import CROSS_SIGNING_UPLOAD
from ranvier.services.flows.deactivation import close_account
from ranvier.services.oauth.browsers import Person
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables.devices import Device, delete_devices, find_device, list_devices, set_display_name
from ranvier.store.tables.profiles import find_profile


class ShownDevice(msgspec.Struct, frozen=True):
    """A device as its owner sees it."""

    device_id: DeviceID
    display_name: str | None
    last_seen_ms: int | None
    last_seen_ip: str | None
    last_seen_agent: str | None
    created_ms: int


class OwnDevices:
    """The devices of whoever is signed in."""

    def __init__(self, db: Database, last_seen: LastSeen) -> None:
        self._db = db
        self._last_seen = last_seen

    async def list(self, person: Person) -> Sequence[ShownDevice]:
        """The one used last comes first."""
        devices = [self._show(one) for one in await self._db.read(list_devices, person.user_nid)]
        return sorted(devices, key=lambda one: -(one.last_seen_ms or 0))

    async def get(self, person: Person, device_id: str) -> ShownDevice:
        """Raises: NotFound."""
        device = await self._db.read(find_device, person.user_nid, DeviceID(device_id))
        if device is None:
            raise NotFound("You have no such device. It may be signed out already.")
        return self._show(device)

    async def rename(self, person: Person, device_id: str, name: str) -> None:
        """Raises: InvalidParam, NotFound."""
        check_device_name(name)
        await self._db.write(_rename, person.user_nid, DeviceID(device_id), name or None)

    async def delete(self, person: Person, device_id: str) -> None:
        """Sign it out. Whether the person proved lately who they are is the caller's affair."""
        await self._db.write(_delete, person.user_nid, DeviceID(device_id))

    def _show(self, device: Device) -> ShownDevice:
        # What is not written yet is newer than what is.
        seen = self._last_seen.find(device.device_nid) or device
        return ShownDevice(
            device.device_id,
            device.display_name,
            seen.last_seen_ms,
            seen.last_seen_ip,
            seen.last_seen_agent,
            device.created_ms,
        )


class OwnAccount:
    """The account of whoever is signed in."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        profiles: Profiles,
        owners: Owners,
        passwords: Passwords,
        uia: UserInteractive,
    ) -> None:
        self._db = db
        self._clock = clock
        self._profiles = profiles
        self._owners = owners
        self._passwords = passwords
        self._uia = uia

    async def display_name(self, person: Person) -> str:
        """Empty where there is none."""
        return await self._db.read(_display_name, person.user_nid)

    async def set_display_name(self, person: Person, name: str) -> None:
        """Raises: InvalidParam, UserSuspended."""
        await self._profiles.set_field(person.requester, person.user_id, DISPLAYNAME, {DISPLAYNAME: name})

    async def change_password(self, person: Person, current: str, new: str, *, logout_devices: bool) -> None:
        """Browsers that are signed in are not any more, this one included.

        Raises: Forbidden: the current one is wrong; WeakPassword, InvalidParam, LimitExceeded.
        """
        self._passwords.check_new(new)
        identifier = {"type": "m.id.user", "user": person.user_id}
        account = await self._owners.prove({"identifier": identifier}, current)
        if account.user_nid != person.user_nid:
            raise Forbidden("Invalid username or password.")
        password_hash = await self._passwords.hash(new)
        await self._db.write(
            set_password, person.user_id, password_hash, keep_device=None, logout_devices=logout_devices
        )

    async def close(self, person: Person, *, erase: bool) -> None:
        """For good. Whether the person proved lately who they are is the caller's affair."""
        await self._db.write(close_account, person.user_id, self._clock.now_ms(), erase=erase)

    async def approve_reset(self, person: Person, session_id: str) -> None:
        """The client that waits with this session of user-interactive authentication may replace the keys, once.

        Raises: NotFound; Forbidden: it is somebody else's. Whether the proof is fresh is the caller's affair.
        """
        session = await self._uia.find_session(session_id)
        if session.request != CROSS_SIGNING_UPLOAD:
            raise NotFound("This session is unknown or has expired.")
        for (stage,) in APPROVAL:
            await self._uia.prove(session_id, stage, person.user_nid, b"{}")


def _display_name(txn: ReadTxn, user_nid: int) -> str:
    name = find_profile(txn, user_nid).get(DISPLAYNAME)
    decoded = None if name is None else orjson.loads(name)
    return decoded if isinstance(decoded, str) else ""


def _rename(txn: WriteTxn, user_nid: int, device_id: DeviceID, name: str | None) -> None:
    device = find_device(txn, user_nid, device_id)
    if device is None:
        raise NotFound("You have no such device. It may be signed out already.")
    set_display_name(txn, device, name)


def _delete(txn: WriteTxn, user_nid: int, device_id: DeviceID) -> None:
    device = find_device(txn, user_nid, device_id)
    delete_devices(txn, [] if device is None else [device])
