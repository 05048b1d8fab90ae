"""Requests to send to devices are remembered only for as long as they may come again."""

from typing import Final

from ranvier.io.clock import Clock
from ranvier.store.database import Database
from ranvier.store.tables.to_device import delete_expired_requests

INTERVAL_S: Final = 3600.0
REMEMBERED_MS: Final = 3 * 24 * 3_600_000
"""How long a repeated request, or a message that another server sends twice, is known as a repetition."""


class RequestForgetter:
    """The worker."""

    name = "repeated to-device requests"

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def run(self) -> None:
        while True:
            await self._db.write(delete_expired_requests, self._clock.now_ms() - REMEMBERED_MS)
            await self._clock.sleep(INTERVAL_S)
