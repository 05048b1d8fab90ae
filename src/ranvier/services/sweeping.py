"""What nobody needs any more goes, hour by hour. Nothing depends on it: whoever reads checks the time, too."""

from collections.abc import Callable
from typing import Final

from ranvier.io.clock import Clock
from ranvier.store.database import Database, WriteTxn

INTERVAL_S: Final = 3600.0

Sweep = Callable[[WriteTxn, int], bool | None]
"""Deletes what is too old. The number: now, in ms. True: there may be more, for another transaction."""


class Sweeper:
    """The worker of one area. It begins at once, for a server may never run for an hour."""

    def __init__(self, name: str, db: Database, clock: Clock, sweep: Sweep) -> None:
        self.name = name
        self._db = db
        self._clock = clock
        self._sweep = sweep

    async def run(self) -> None:
        while True:
            while await self._db.write(self._sweep, self._clock.now_ms()):
                pass  # each a write of its own, so that others come in between
            await self._clock.sleep(INTERVAL_S)
