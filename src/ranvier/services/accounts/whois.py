"""From where an account is used.

Spec: client-server API, GET /admin/whois/{userId}.
"""

from collections.abc import Sequence

import msgspec

from ranvier.core.errors import Forbidden, NotFound
from ranvier.core.identifiers import UserID
from ranvier.services.requester import Requester
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables.accounts import find_account_by_id
from ranvier.store.tables.devices import Device, list_devices


class Connection(msgspec.Struct, frozen=True, omit_defaults=True):
    last_seen: int
    ip: str | None = None
    user_agent: str | None = None


class Connections(msgspec.Struct, frozen=True):
    connections: Sequence[Connection]


class DeviceSessions(msgspec.Struct, frozen=True):
    sessions: Sequence[Connections]


class WhoIs(msgspec.Struct, frozen=True):
    user_id: UserID
    devices: dict[str, DeviceSessions]


async def look_up_whois(db: Database, requester: Requester, user_id: UserID) -> WhoIs:
    """Devices and where they were last seen. Raises: Forbidden; NotFound (administrators are told)."""
    if requester.user_id != user_id and not requester.is_admin:
        raise Forbidden("Only an administrator of this server may ask about others.")
    devices = await db.read(_list_devices, user_id)
    return WhoIs(user_id, {device.device_id: _sessions(device) for device in devices})


def _list_devices(txn: ReadTxn, user_id: UserID) -> list[Device]:
    account = find_account_by_id(txn, user_id)
    if account is None:
        raise NotFound("There is no such user.")
    return list_devices(txn, account.user_nid)


def _sessions(device: Device) -> DeviceSessions:
    if device.last_seen_ms is None:
        return DeviceSessions([])
    seen = Connection(device.last_seen_ms, device.last_seen_ip, device.last_seen_agent)
    return DeviceSessions([Connections([seen])])
