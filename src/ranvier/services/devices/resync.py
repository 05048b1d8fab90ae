"""Lists of remote users' devices are asked for in the background: at first, and when an update was missed.

A user's list is asked for once, however many updates were missed; a server is asked for one list at a time. One that
does not answer is asked again later and later, and at once when it shows that it is there. What is asked for stands
in the table, so it outlives the process.

Spec: server-server API, GET /user/devices/{userId}.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

import msgspec

from ranvier.core.errors import ServerFault
from ranvier.core.identifiers import ServerName, UserID
from ranvier.io.clock import Clock
from ranvier.services.devices.list_requests import MAX_RETRY_MS, ListRequests
from ranvier.store.database import Database, Hint, Kind, ReadTxn, WriteTxn
from ranvier.store.tables.device_lists import find_next_retry_ms, hasten_resyncs, list_stale
from ranvier.store.tables.interned import Interner, find_server_nids, list_server_names, list_user_ids

log = logging.getLogger(__name__)

MAX_SERVERS: Final = 20
"""Asked at the same time."""
BATCH: Final = 200
"""Lists that are looked at in one read."""
MAX_IDLE_S: Final = 3_600.0
FAULT_PAUSE_S: Final = 5.0


class _Due(msgspec.Struct, frozen=True):
    user_id: UserID
    user_nid: int


class DeviceListResync:
    """The worker."""

    name = "device list resync"

    def __init__(self, db: Database, interner: Interner, lists: ListRequests, clock: Clock) -> None:
        self._db = db
        self._interner = interner
        self._lists = lists
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
                lists.append(_Due(user_ids[one.user_nid], one.user_nid))
        return due

    async def _ask(self, server_nid: int, server: ServerName, due: Sequence[_Due]) -> None:
        """Ask a server for lists, one after the other."""
        try:
            for one in due:
                await self._lists.ask(one.user_id, one.user_nid)
        except ServerFault as fault:
            log.warning("cannot store the devices of users of %s: %s", server, fault)
            await self._clock.sleep(FAULT_PAUSE_S)
        finally:
            self._busy.discard(server_nid)
            self._news.set()

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
