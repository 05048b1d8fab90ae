"""Forgets devices that nobody uses any more, with all that was stored for them."""

from typing import Final, Protocol

from ranvier.historical.sync_v3.proxy.storing import device_key
from ranvier.historical.sync_v3.sessions import DAY_MS, SWEEP_S
from ranvier.io.clock import Clock
from ranvier.store.database import Database, WriteTxn
from ranvier.store.tables import sync_v3_proxy as table
from ranvier.store.tables.sync_v3_sessions import delete_sessions_of

IDLE_MS: Final = 30 * DAY_MS
BATCH: Final = 10


class Known(Protocol):
    """What remembers devices in memory: `devices.Devices`."""

    def forget(self, device_nids: set[int]) -> None: ...


class DeviceSweeper:
    """The worker."""

    name = "sync v3 devices"

    def __init__(self, db: Database, known: Known, clock: Clock) -> None:
        self._db = db
        self._known = known
        self._clock = clock

    async def run(self) -> None:
        while True:
            await self.sweep()
            await self._clock.sleep(SWEEP_S)

    async def sweep(self) -> None:
        """Once."""
        before_ms = self._clock.now_ms() - IDLE_MS
        while device_nids := await self._db.write(_delete_unused, before_ms):
            self._known.forget(device_nids)


def _delete_unused(txn: WriteTxn, before_ms: int) -> set[int]:
    device_nids = table.list_unused_devices(txn, before_ms, BATCH)
    for device_nid in device_nids:
        table.delete_device(txn, device_nid)
        delete_sessions_of(txn, device_key(device_nid))
    return set(device_nids)
