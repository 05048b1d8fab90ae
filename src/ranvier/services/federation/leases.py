"""Who sends to which server, where several processes share a database: one of them at a time.

Every process reads the same news and keeps what concerns a server in memory; only the one that holds the
server's lease sends it, the others drop it. One that takes a lease over goes on from the server's position.
"""

from collections.abc import Collection
from enum import Enum
from typing import Final

from ranvier.io.clock import Clock
from ranvier.store.database import Database
from ranvier.store.tables import destination_leases
from ranvier.store.tables.destination_leases import MAX_AHEAD_MS, Lease

LEASE_MS: Final = 120_000
LEAST_LEFT_MS: Final = 75_000
"""What must be left of a lease for a transaction to be sent: longer than one may take."""

SWEEP_EVERY_S: Final = 60.0
"""How often it is looked for servers to which no process sends any more."""


class Holding(Enum):
    OWN = "own"
    NEW = "new"  # it is ours from now on: others may have sent what we have in memory
    LOST = "lost"


class Leases:
    """The leases of one process. `is_shared` is false where there is no other: then all are its own."""

    def __init__(self, db: Database, clock: Clock, owner: str, *, is_shared: bool) -> None:
        self.is_shared = is_shared
        self._db = db
        self._clock = clock
        self._owner = owner
        self._leases: dict[int, Lease] = {}

    async def hold(self, server_nid: int) -> Holding:
        """Whether this process may send to a server, for as long as one transaction takes.

        Cost: nothing, but for a write a minute for each server that is sent to.
        """
        if not self.is_shared:
            return Holding.OWN
        now_ms = self._clock.now_ms()
        known = self._leases.get(server_nid)
        left_ms = 0 if known is None else known.until_ms - now_ms
        if known is not None and not known.is_own and 0 < left_ms <= MAX_AHEAD_MS:
            return Holding.LOST
        # What lasts longer than it was taken for is from before the clock was set back.
        if known is not None and known.is_own and LEAST_LEFT_MS <= left_ms <= LEASE_MS:
            return Holding.OWN
        lease = await self._db.write(
            destination_leases.take_lease, server_nid, self._owner, now_ms, now_ms + LEASE_MS
        )
        self._leases[server_nid] = lease
        if not lease.is_own:
            return Holding.LOST
        return Holding.NEW if lease.is_new else Holding.OWN

    async def list_others(self) -> Collection[int]:
        """The servers (server_nid) to which other processes send."""
        if not self.is_shared:
            return ()
        now_ms = self._clock.now_ms()
        others = await self._db.read(destination_leases.list_leased, self._owner, now_ms)
        # What a process gave back before its time is free.
        self._leases = {nid: one for nid, one in self._leases.items() if one.is_own or nid in others}
        return others

    async def release(self) -> None:
        """Give all back."""
        self._leases.clear()
        if self.is_shared:
            await self._db.write(destination_leases.release_leases, self._owner)
