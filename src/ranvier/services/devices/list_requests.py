"""Lists of remote users' devices are asked of their servers, and kept.

A list is asked for once at a time: the worker that brings lists up to date in the background and the clients that want
the keys now share the request.

Spec: server-server API, GET /user/devices/{userId}.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Final

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.identifiers import DeviceID, UserID, server_of
from ranvier.io.clock import Clock
from ranvier.io.ports import Misbehaved, RemoteFault
from ranvier.services.devices.remote_keys import pack_cross_signing_keys, pack_devices
from ranvier.services.remote.flights import Flights
from ranvier.services.remote.requests import Requests, path_of
from ranvier.services.remote.standing import HeldBack
from ranvier.services.turns import ASKER, Turns
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables.cross_signing import MASTER, SELF_SIGNING, set_remote_cross_signing_keys
from ranvier.store.tables.device_lists import (
    Resync,
    find_remote_list,
    list_due,
    list_fresh,
    list_remote_devices,
    mark_changed,
    postpone_resync,
    replace_remote_devices,
)
from ranvier.store.tables.interned import Interner, find_user_nids

log = logging.getLogger(__name__)

FIRST_RETRY_MS: Final = 30_000
MAX_RETRY_MS: Final = 6 * 3_600_000
MOST_NOW: Final = 10
"""Lists of one server that are asked for while a client waits. One request tells the keys of more users at once."""
AT_ONCE: Final = 100
"""Lists that clients wait for, over all servers."""
ASKED_FOR_ONE: Final = 50
"""Of these, for one user."""

_PATH: Final = "/_matrix/federation/v1/user/devices"

BringLists = Callable[[Sequence[UserID]], Awaitable[bool]]
"""See `ListRequests.bring`."""


async def bring_nothing(_user_ids: Sequence[UserID]) -> bool:
    """Where there is no federation."""
    return False


class _Device(msgspec.Struct, frozen=True):
    device_id: DeviceID
    keys: JsonObject | None = None
    device_display_name: str | None = None


class _Devices(msgspec.Struct, frozen=True):
    """What a server answers."""

    user_id: UserID
    stream_id: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
    devices: list[_Device]
    master_key: JsonObject | None = None
    self_signing_key: JsonObject | None = None


class ListRequests:
    """Asks for lists."""

    def __init__(self, db: Database, interner: Interner, requests: Requests, clock: Clock) -> None:
        self._db = db
        self._interner = interner
        self._requests = requests
        self._clock = clock
        self._flights: Flights[int, None] = Flights()  # by user_nid
        self._askers: Turns[str] = Turns(ASKED_FOR_ONE)
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def bring(self, user_ids: Sequence[UserID]) -> bool:
        """Ask now for what is to be asked for anyway of the lists of one server's users, so that what a client gets
        is kept. False: of these there is none, or there are too many. True, too, if some have come meanwhile.

        Lists whose server did not answer lately are left to the worker. Raises: StoreFault.
        Cost: one read; for each list, a request and a write.
        """
        if len(user_ids) > MOST_NOW:
            return False
        due, have_come = await self._db.read(self._read_due, user_ids)
        await asyncio.gather(*(self._bring_one(user_id, nid) for user_id, nid in due.items()))
        return have_come or bool(due)

    async def ask(self, user_id: UserID, user_nid: int) -> None:
        """Ask for a list, if that is still to be done, and keep it; or note when to ask again. Raises: StoreFault."""
        await self._flights.fly(user_nid, lambda: self._ask(user_id, user_nid))

    async def _bring_one(self, user_id: UserID, user_nid: int) -> None:
        async with self._askers.take(ASKER.get()), self._slots:
            await self.ask(user_id, user_nid)

    def _read_due(self, txn: ReadTxn, user_ids: Sequence[UserID]) -> tuple[dict[UserID, int], bool]:
        """Whose lists are to be asked for; whether some are here."""
        nids = find_user_nids(txn, self._interner, user_ids)
        due = {one.user_nid for one in self._list_due(txn, list(nids.values()))}
        have_come = bool(list_fresh(txn, list(nids.values())))
        return {user_id: nid for user_id, nid in nids.items() if nid in due}, have_come

    def _list_due(self, txn: ReadTxn, user_nids: Sequence[int]) -> list[Resync]:
        now_ms = self._clock.now_ms()
        return list_due(txn, user_nids, now_ms, now_ms + MAX_RETRY_MS)

    async def _ask(self, user_id: UserID, user_nid: int) -> None:
        for asked in await self._db.read(self._list_due, [user_nid]):
            try:
                answer = await self._requests.get(server_of(user_id), path_of(_PATH, user_id))
                told = _decode(user_id, answer)
            except HeldBack as fault:
                # The server is known to be away: that says nothing of this list.
                retry_ms = min(fault.retry_at_ms, self._clock.now_ms() + MAX_RETRY_MS)
                await self._db.write(postpone_resync, asked, asked.failures, retry_ms)
            except RemoteFault as fault:
                log.info("no devices of %s: %s", user_id, fault)
                pause_ms = min(FIRST_RETRY_MS * 2 ** min(asked.failures, 20), MAX_RETRY_MS)
                retry_ms = self._clock.now_ms() + pause_ms
                await self._db.write(postpone_resync, asked, asked.failures + 1, retry_ms)
            else:
                await self._db.write(_store, asked, told)


def _decode(user_id: UserID, answer: JsonObject) -> _Devices:
    """Raises: Misbehaved."""
    try:
        told = msgspec.convert(answer, _Devices)
    except msgspec.ValidationError as error:
        raise Misbehaved(f"devices of {user_id} in a form that is none: {error}") from error
    if told.user_id != user_id:
        raise Misbehaved(f"devices of another user than {user_id}")
    return told


def _store(txn: WriteTxn, asked: Resync, told: _Devices) -> None:
    """Keep a list. Clients are told if it is not what they may have got from here or, in vain, asked for."""
    nid, before = asked.user_nid, find_remote_list(txn, asked.user_nid)
    old = list_remote_devices(txn, [nid])[nid]
    new = pack_devices(
        told.user_id,
        ((device.device_id, device.device_display_name, device.keys) for device in told.devices),
    )
    if before is None or not replace_remote_devices(txn, asked, told.stream_id, list(new.values())):
        return
    documents = ((MASTER, told.master_key), (SELF_SIGNING, told.self_signing_key))
    has_other_keys = set_remote_cross_signing_keys(txn, nid, pack_cross_signing_keys(told.user_id, documents))
    is_other = has_other_keys or {device.device_id: device for device in old} != new
    if is_other and (before.stream_id is not None or asked.failures):
        mark_changed(txn, nid)
