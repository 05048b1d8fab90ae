"""When and from where devices were last used. Every request tells, so it is collected in memory and written
now and then; what a crash loses is the last minutes.
"""

from typing import Final

from ranvier.io.clock import Clock
from ranvier.services.requester import Requester
from ranvier.store.database import Database
from ranvier.store.tables.devices import Seen, update_last_seen

INTERVAL_S: Final = 120.0
MAX_COLLECTED: Final = 100_000
"""Devices seen between two writes; further ones are seen with their next request."""
MAX_AGENT_CHARS: Final = 200


class LastSeen:
    """Collects, and writes."""

    name = "last seen"

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._collected: dict[int, tuple[int, str, str | None]] = {}

    def note(self, requester: Requester, ip: str, agent: str | None) -> None:
        """Called for every request: costs an entry in a dict."""
        device_nid = requester.device_nid
        if device_nid is not None and (device_nid in self._collected or len(self._collected) < MAX_COLLECTED):
            self._collected[device_nid] = (self._clock.now_ms(), ip, agent)

    def find(self, device_nid: int) -> Seen | None:
        """What was noted and is not written yet."""
        noted = self._collected.get(device_nid)
        return None if noted is None else _seen(device_nid, *noted)

    async def run(self) -> None:
        try:
            while True:
                await self._clock.sleep(INTERVAL_S)
                await self.write()
        finally:
            await self.write()

    async def write(self) -> None:
        """Write what was collected."""
        collected, self._collected = self._collected, {}
        if collected:
            seen = [_seen(device_nid, *noted) for device_nid, noted in collected.items()]
            await self._db.write(update_last_seen, seen)


def _seen(device_nid: int, now_ms: int, ip: str, agent: str | None) -> Seen:
    return Seen(device_nid, now_ms, ip, agent and agent[:MAX_AGENT_CHARS])
