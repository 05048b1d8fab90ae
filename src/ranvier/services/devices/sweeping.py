"""The messages of deleted devices go bit by bit: there may be a million of them."""

import asyncio
from collections.abc import Sequence

from ranvier.store.database import Database, Hint, Kind
from ranvier.store.tables.devices import sweep_deleted_devices


class DeviceSweeper:
    """Sweeps when devices were deleted, and at the start what a process before left over."""

    name = "deleted devices"

    def __init__(self, db: Database) -> None:
        self._db = db
        self._deleted = asyncio.Event()
        db.subscribe(self._hear)

    async def run(self) -> None:
        while True:
            self._deleted.clear()
            # Each bit is a write of its own, so that others come in between.
            while await self._db.write(sweep_deleted_devices):
                pass
            await self._deleted.wait()

    def _hear(self, hints: Sequence[Hint]) -> None:
        if any(hint.kind in (Kind.JOB, Kind.GAP) for hint in hints):
            self._deleted.set()
