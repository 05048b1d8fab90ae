"""How other servers are doing: one that fails is left alone for a while, longer each time.

Kept in `destinations`, so that a restart does not begin with requests to all that are gone. A server that
speaks to us is in order at once.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import msgspec

from ranvier.core.identifiers import ServerName
from ranvier.io.clock import Clock
from ranvier.io.ports import RemoteFault
from ranvier.io.randomness import Randomness
from ranvier.services.remote.flights import Flights
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables import destinations
from ranvier.store.tables.interned import Interner, find_server_nids, intern_servers

FIRST_PAUSE_MS: Final = 5_000
MAX_PAUSE_MS: Final = 24 * 3_600_000
"""Each failure in a row doubles the pause, up to a day."""

MAX_HOLD_MS: Final = 3_600_000
"""Of what a server demands with 429."""

MAX_SERVERS: Final = 50_000
"""Servers whose standing is in memory; the one not used for longest goes first."""


class HeldBack(RemoteFault):
    """The server failed lately: it is not asked before `retry_at_ms`."""

    def __init__(self, server: ServerName, retry_at_ms: int) -> None:
        super().__init__(f"{server} is not asked before {retry_at_ms}")
        self.retry_at_ms = retry_at_ms


class _Standing(msgspec.Struct, gc=False):
    retry_at_ms: int = 0
    pause_ms: int = 0  # 0: the last request succeeded

    @property
    def is_failing(self) -> bool:
        return self.pause_ms > 0


class Standings:
    """The standing of every server that something is asked of."""

    def __init__(self, db: Database, interner: Interner, clock: Clock, randomness: Randomness) -> None:
        self._db = db
        self._interner = interner
        self._clock = clock
        self._randomness = randomness
        self._servers: OrderedDict[ServerName, _Standing] = OrderedDict()
        self._flights: Flights[ServerName, _Standing] = Flights()
        self._subscribers: list[Callable[[ServerName], None]] = []

    def subscribe(self, subscriber: Callable[[ServerName], None]) -> None:
        """Call `subscriber` whenever a server that failed is in order again, or worth a try."""
        self._subscribers.append(subscriber)

    async def check(self, server: ServerName) -> None:
        """Raises: HeldBack. Cost: 1 query for a server that was not asked lately."""
        retry_at_ms = await self.retry_at_ms(server)
        if self._clock.now_ms() < retry_at_ms:
            raise HeldBack(server, retry_at_ms)

    async def retry_at_ms(self, server: ServerName) -> int:
        """When the server may be asked; in the past if that is now."""
        standing = await self._find(server)
        if standing.retry_at_ms - self._clock.now_ms() > max(standing.pause_ms, MAX_HOLD_MS):
            standing.retry_at_ms = 0  # no pause is so long: the clock was set back
        return standing.retry_at_ms

    async def succeeded(self, server: ServerName) -> None:
        """A request was answered, if only with a refusal. Cost: nothing unless the one before failed."""
        standing = await self._find(server)
        if not standing.is_failing:
            return
        standing.pause_ms = standing.retry_at_ms = 0
        await self._db.write(_note_recovery, self._interner, server, self._clock.now_ms())
        self._tell(server)

    async def failed(self, server: ServerName) -> None:
        """A request failed. Of those that were under way together, the first counts."""
        standing = await self._find(server)
        now_ms = self._clock.now_ms()
        if now_ms < await self.retry_at_ms(server):
            return
        pause_ms = min(2 * standing.pause_ms if standing.is_failing else FIRST_PAUSE_MS, MAX_PAUSE_MS)
        # Servers that were lost at one moment are not all to be asked again at one moment.
        standing.pause_ms = round(pause_ms * (0.8 + 0.4 * self._randomness.fraction()))
        standing.retry_at_ms = now_ms + standing.pause_ms
        await self._db.write(_note_failure, self._interner, server, now_ms, standing.pause_ms)

    async def hold(self, server: ServerName, pause_ms: int) -> None:
        """The server is in order but wants to be left alone for a while (429)."""
        standing = await self._find(server)
        until_ms = self._clock.now_ms() + min(pause_ms, MAX_HOLD_MS)
        standing.retry_at_ms = max(standing.retry_at_ms, until_ms)

    async def heard_from(self, server: ServerName) -> None:
        """The server spoke to us: it is worth a try now. Cost: nothing unless it was failing."""
        standing = await self._find(server)
        if not standing.is_failing or standing.retry_at_ms == 0:
            return
        standing.retry_at_ms = 0
        await self._db.write(_note_sign_of_life, self._interner, server)
        self._tell(server)

    async def _find(self, server: ServerName) -> _Standing:
        standing = self._servers.get(server)
        if standing is not None:
            self._servers.move_to_end(server)
            return standing
        return await self._flights.fly(server, lambda: self._load(server))

    async def _load(self, server: ServerName) -> _Standing:
        standing = await self._db.read(_read, self._interner, server)
        self._servers[server] = standing
        if len(self._servers) > MAX_SERVERS:
            self._servers.popitem(last=False)
        return standing

    def _tell(self, server: ServerName) -> None:
        for subscriber in self._subscribers:
            subscriber(server)


def _read(txn: ReadTxn, interner: Interner, server: ServerName) -> _Standing:
    nid = find_server_nids(txn, interner, (server,)).get(server)
    row = None if nid is None else destinations.list_destinations(txn, (nid,)).get(nid)
    if row is None or row.failing_since_ms is None:
        return _Standing()
    return _Standing(row.retry_at_ms, max(row.retry_interval_ms, FIRST_PAUSE_MS))


def _note_recovery(txn: WriteTxn, interner: Interner, server: ServerName, now_ms: int) -> None:
    destinations.note_recovery(txn, intern_servers(txn, interner, (server,))[server], now_ms)


def _note_failure(txn: WriteTxn, interner: Interner, server: ServerName, now_ms: int, pause_ms: int) -> None:
    # Names that nothing here is about may be made up, to no end.
    nid = find_server_nids(txn, interner, (server,)).get(server)
    if nid is not None:
        destinations.note_failure(txn, nid, now_ms, pause_ms)


def _note_sign_of_life(txn: WriteTxn, interner: Interner, server: ServerName) -> None:
    destinations.retry_now(txn, intern_servers(txn, interner, (server,))[server])
