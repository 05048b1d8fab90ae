"""Lists of remote users' devices are asked for in the background: at first, and when an update was missed.

A user's list is asked for once, however many updates were missed; a server is asked for one list at a time. One that
does not answer is asked again later and later, and at once when it shows that it is there. What is asked for stands
in the table, so it outlives the process.

Spec: server-server API, GET /user/devices/{userId}.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import ServerFault
from ranvier.core.identifiers import DeviceID, ServerName, UserID
from ranvier.io.clock import Clock
from ranvier.io.ports import Misbehaved, RemoteFault
from ranvier.services.devices.remote_keys import pack_cross_signing_keys, pack_devices
from ranvier.services.remote.requests import Requests, path_of
from ranvier.services.remote.standing import HeldBack
from ranvier.store.database import Database, Hint, Kind, ReadTxn, WriteTxn
from ranvier.store.tables.cross_signing import MASTER, SELF_SIGNING, set_remote_cross_signing_keys
from ranvier.store.tables.device_lists import (
    Resync,
    find_next_retry_ms,
    find_remote_list,
    hasten_resyncs,
    list_remote_devices,
    list_stale,
    mark_changed,
    postpone_resync,
    replace_remote_devices,
)
from ranvier.store.tables.interned import Interner, find_server_nids, list_server_names, list_user_ids

log = logging.getLogger(__name__)

MAX_SERVERS: Final = 20
"""Asked at the same time."""
BATCH: Final = 200
"""Lists that are looked at in one read."""
FIRST_RETRY_MS: Final = 30_000
MAX_RETRY_MS: Final = 6 * 3_600_000
MAX_IDLE_S: Final = 3_600.0
FAULT_PAUSE_S: Final = 5.0

_PATH: Final = "/_matrix/federation/v1/user/devices"


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


class _Due(msgspec.Struct, frozen=True):
    asked: Resync
    user_id: UserID


class DeviceListResync:
    """The worker."""

    name = "device list resync"

    def __init__(self, db: Database, interner: Interner, requests: Requests, clock: Clock) -> None:
        self._db = db
        self._interner = interner
        self._requests = requests
        self._clock = clock
        self._news = asyncio.Event()
        self._busy: set[int] = set()  # server_nids
        self._recovered: set[ServerName] = set()
        db.subscribe(self._hear)

    def wake(self, server: ServerName) -> None:
        """A server that failed is in order again."""
        self._recovered.add(server)
        self._news.set()

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            while True:
                self._news.clear()
                try:
                    await self._hasten()
                    due = await self._db.read(self._read_due)
                    for server_nid, (server, lists) in due.items():
                        self._busy.add(server_nid)
                        tasks.create_task(self._ask(server_nid, server, lists), name=f"lists of {server}")
                    retry_ms = await self._db.read(find_next_retry_ms, self._clock.now_ms())
                except ServerFault as fault:
                    log.warning("cannot look for stale device lists: %s", fault)
                    retry_ms = self._clock.now_ms() + round(1000 * FAULT_PAUSE_S)
                await self._wait(retry_ms)

    async def _hasten(self) -> None:
        recovered, self._recovered = self._recovered, set()
        if recovered:
            await self._db.write(self._hasten_all, recovered)

    def _hasten_all(self, txn: WriteTxn, servers: set[ServerName]) -> None:
        for server_nid in sorted(find_server_nids(txn, self._interner, servers).values()):
            hasten_resyncs(txn, server_nid)

    def _read_due(self, txn: ReadTxn) -> dict[int, tuple[ServerName, list[_Due]]]:
        """server_nid -> its name and lists, of servers that are not being asked."""
        room = MAX_SERVERS - len(self._busy)
        if room <= 0:
            return {}
        now_ms = self._clock.now_ms()
        stale = list_stale(txn, now_ms, now_ms + MAX_RETRY_MS, self._busy, BATCH)
        user_ids = list_user_ids(txn, self._interner, {one.user_nid for one in stale})
        servers = list_server_names(txn, self._interner, {one.server_nid for one in stale})
        due: dict[int, tuple[ServerName, list[_Due]]] = {}
        for one in stale:
            if one.server_nid in due or len(due) < room:
                lists = due.setdefault(one.server_nid, (servers[one.server_nid], []))[1]
                lists.append(_Due(one, user_ids[one.user_nid]))
        return due

    async def _ask(self, server_nid: int, server: ServerName, due: Sequence[_Due]) -> None:
        """Ask a server for lists, one after the other."""
        try:
            for one in due:
                await self._resync(server, one)
        except ServerFault as fault:
            log.warning("cannot store the devices of users of %s: %s", server, fault)
            await self._clock.sleep(FAULT_PAUSE_S)
        finally:
            self._busy.discard(server_nid)
            self._news.set()

    async def _resync(self, server: ServerName, due: _Due) -> None:
        try:
            answer = await self._requests.get(server, path_of(_PATH, due.user_id))
            told = _decode(server, due.user_id, answer)
        except HeldBack as fault:
            # The server is known to be away: that says nothing of this list.
            latest_ms = self._clock.now_ms() + MAX_RETRY_MS
            retry_ms = min(fault.retry_at_ms, latest_ms)
            await self._db.write(postpone_resync, due.asked, due.asked.failures, retry_ms)
        except RemoteFault as fault:
            log.info("no devices of %s: %s", due.user_id, fault)
            pause_ms = min(FIRST_RETRY_MS * 2 ** min(due.asked.failures, 20), MAX_RETRY_MS)
            retry_ms = self._clock.now_ms() + pause_ms
            await self._db.write(postpone_resync, due.asked, due.asked.failures + 1, retry_ms)
        else:
            await self._db.write(_store, due.asked, told)

    async def _wait(self, retry_ms: int | None) -> None:
        """Until there is something new, or for as long."""
        seconds = MAX_IDLE_S if retry_ms is None else (retry_ms - self._clock.now_ms()) / 1000
        try:
            async with self._clock.timeout(max(0.0, min(seconds, MAX_IDLE_S))):
                await self._news.wait()
        except TimeoutError:
            return

    def _hear(self, hints: Sequence[Hint]) -> None:
        if any(hint.kind in (Kind.JOB, Kind.GAP) for hint in hints):
            self._news.set()


def _decode(server: ServerName, user_id: UserID, answer: JsonObject) -> _Devices:
    """Raises: Misbehaved."""
    try:
        told = msgspec.convert(answer, _Devices)
    except msgspec.ValidationError as error:
        raise Misbehaved(f"{server} told of devices in a form that is none: {error}") from error
    if told.user_id != user_id:
        raise Misbehaved(f"{server} told of the devices of another user than {user_id}")
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
