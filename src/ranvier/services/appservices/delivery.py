"""The worker that delivers to application services: a puller for each.

What a service is to get is fixed under a transaction id, in the write that moves its position, before it is sent;
then it is sent until the service takes it. See docs/adr/0006-application-services.md.

Spec: application service API, "Pushing events".
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import msgspec

from ranvier.core.appservices.registration import Registration
from ranvier.core.errors import ServerFault
from ranvier.io.clock import Clock
from ranvier.io.ports import RemoteFault
from ranvier.services.appservices.news import News, NewsReader, Told
from ranvier.services.appservices.requests import AppserviceRequests, Ask, path_of
from ranvier.store.database import Conflict, Database, Hint, Kind
from ranvier.store.tables import appservices
from ranvier.store.tables.appservices import Lease, PendingTransaction, Progress

log = logging.getLogger(__name__)

TIMEOUT_S: Final = 60.0
"""A service may take its time: mautrix handles events before it answers."""
LEASE_MS: Final = 150_000
"""Longer than an attempt on both paths can take …"""
MARGIN_MS: Final = 20_000
"""… by more than this: with a younger lease there is no need to take it anew."""

GATHER_S: Final = 0.02
"""Between a hint and reading: what is sent in quick succession goes out together."""
STAND_BY_S: Final = 20.0
"""How long a process that another one was faster than leaves the field to it, until it looks again."""
FINISH_S: Final = 2.0
"""How long a process that stops waits for the answer to what it has sent: less than a worker may take to end."""
IDLE_S: Final = 60.0
"""How long a position that only moved over what concerns nobody stands in memory alone."""

MIN_RETRY_MS: Final = 1_000
MAX_RETRY_MS: Final = 300_000

MAX_TOLD: Final = 10_000
"""Rooms and users that hints named; with more, all are looked at."""


class Wires(msgspec.Struct, frozen=True):
    """What deliveries need."""

    db: Database
    clock: Clock
    requests: AppserviceRequests
    holder: str  # the name of this process in leases
    is_shared: bool  # whether there may be other processes on the database


class Deliveries:
    """The worker."""

    name = "application services"

    def __init__(self, wires: Wires, readers: Sequence[tuple[Registration, NewsReader]]) -> None:
        self._wires = wires
        self._all = {
            service.id: Delivery(wires, service, reader)
            for service, reader in readers
            if service.url is not None
        }
        if self._all:
            wires.db.subscribe(self._hear)

    def note_reached(self, appservice_id: str) -> None:
        """The service answers: what waits for it need not wait longer."""
        delivery = self._all.get(appservice_id)
        if delivery is not None:
            delivery.wake()

    async def run(self) -> None:
        """Deliver for ever."""
        if self._all and not self._wires.is_shared:
            await self._wires.db.write(appservices.free_leases)
        async with asyncio.TaskGroup() as tasks:
            for delivery in self._all.values():
                tasks.create_task(delivery.run(), name=f"deliver to {delivery.service.id}")

    def _hear(self, hints: Sequence[Hint]) -> None:
        for delivery in self._all.values():
            delivery.hear(hints)


class Delivery:
    """Delivers to one service."""

    def __init__(self, wires: Wires, service: Registration, reader: NewsReader) -> None:
        self.service = service
        self._wires = wires
        self._reader = reader
        self._rooms: set[int] = set()
        self._users: set[int] = set()
        self._is_all = True
        self._news = asyncio.Event()
        self._news.set()
        self._answers = asyncio.Event()
        self._progress: Progress | None = None
        self._position = 0  # up to where nothing is left to be told; at or ahead of what the row says
        self._keys: dict[tuple[str, str], dict[str, int]] = {}  # (user, device) -> what was told

    def hear(self, hints: Sequence[Hint]) -> None:
        """What a commit changed."""
        for hint in hints:
            if hint.kind is Kind.ROOM:
                self._rooms.add(hint.key)
            elif hint.kind is Kind.USER:
                self._users.add(hint.key)
            elif hint.kind is Kind.GAP:
                self._is_all = True
            elif hint.kind not in (Kind.DEVICE_LIST, Kind.PRESENCE):
                continue
            self._news.set()
        if len(self._rooms) + len(self._users) > MAX_TOLD:
            self._rooms.clear()
            self._users.clear()
            self._is_all = True

    def wake(self) -> None:
        """Try again now."""
        self._answers.set()

    async def run(self) -> None:
        """Never raises for what the service or the database does."""
        while True:
            try:
                progress = self._progress
                if progress is None:
                    progress = await self._begin()
                if progress.pending is not None:
                    await self._deliver(progress, progress.pending)
                else:
                    await self._pull(progress)
            except Conflict:
                self._progress = None
                await self._wires.clock.sleep(STAND_BY_S)
            except ServerFault as fault:
                log.warning("cannot deliver to %s: %s", self.service.id, fault)
                self._progress = None
                await self._wires.clock.sleep(MIN_RETRY_MS / 1000)

    async def _begin(self) -> Progress:
        """Go on where the last process stopped; a service that is new gets what happens from now on."""
        db, service_id = self._wires.db, self.service.id
        progress = await db.read(appservices.find_progress, service_id)
        if progress is None:
            await db.write(appservices.begin_progress, service_id, db.position())
            progress = await db.read(appservices.find_progress, service_id)
        assert progress is not None, "the row was written"
        self._position = progress.position
        self._progress = progress
        self._is_all = True
        self._news.set()
        return progress

    async def _pull(self, progress: Progress) -> None:
        """Read on; fix what there is to send."""
        await self._wait_for_news(progress)
        # Every hint up to this position has been heard. A read sees more by now; that is for the next time. Where
        # another process has got further, this one waits until it has heard as much.
        upto = max(self._position, self._wires.db.position())
        told = self._take_told()
        try:
            news = await self._wires.db.read(self._reader.read, self._position, upto, told, self._keys)
            if news.body is None:
                self._position = news.upto
            else:
                await self._prepare(progress, news, news.body)
        except BaseException:
            self._put_back(told)
            raise
        if news.has_more:
            self._put_back(told)

    async def _wait_for_news(self, progress: Progress) -> None:
        """Until there may be some; a position that has moved alone is written now and then."""
        is_noted = self._position == progress.position
        try:
            async with self._wires.clock.timeout(None if is_noted else IDLE_S):
                await self._news.wait()
        except TimeoutError:
            await self._wires.db.write(appservices.advance, self._lease(), progress.position, self._position)
            self._progress = msgspec.structs.replace(progress, position=self._position)
            return
        await self._wires.clock.sleep(GATHER_S)

    async def _prepare(self, progress: Progress, news: News, body: bytes) -> None:
        lease = self._lease()
        pending = await self._wires.db.write(
            appservices.prepare_transaction,
            lease,
            progress.position,
            news.upto,
            body,
            has_messages=news.has_messages,
        )
        self._position = news.upto
        self._progress = Progress(
            news.upto, progress.failing_since_ms, 0, lease.holder, lease.until_ms, pending
        )
        if news.keys is not None:
            for user_id, devices in news.keys.counts.items():
                self._keys |= {(user_id, device_id): dict(counts) for device_id, counts in devices.items()}

    async def _deliver(self, progress: Progress, pending: PendingTransaction) -> None:
        """Send what is pending once more, when it is time."""
        await self._wait_for_turn(progress)
        lease = self._lease()
        if progress.lease not in (None, lease.holder) and progress.lease_until_ms > lease.now_ms:
            raise Conflict(f"another process delivers to {self.service.id}")
        is_claimed = progress.lease == lease.holder and progress.lease_until_ms > lease.until_ms - MARGIN_MS
        if not is_claimed and not await self._wires.db.write(
            appservices.claim_delivery, lease, pending.txn_id
        ):
            raise Conflict(f"another process delivers to {self.service.id}")
        # From here on: a service that shows itself while this attempt fails is tried again at once.
        self._answers.clear()
        attempt = asyncio.ensure_future(self._attempt(progress, pending))
        try:
            await asyncio.shield(attempt)
        except asyncio.CancelledError:
            # The service may have taken it already. With its answer no other process has to send it again.
            with suppress(TimeoutError, ServerFault):
                async with self._wires.clock.timeout(FINISH_S):
                    await attempt
            raise

    async def _attempt(self, progress: Progress, pending: PendingTransaction) -> None:
        ask = Ask(
            method="PUT",
            path=path_of("transactions", pending.txn_id),
            legacy_path=path_of("transactions", pending.txn_id),
            body=pending.body,
            timeout_s=TIMEOUT_S,
        )
        try:
            await self._wires.requests.fetch(self.service, ask)
        except RemoteFault as fault:
            await self._note_failure(progress, fault)
            return
        except asyncio.CancelledError:
            await self._wires.db.write(appservices.release_delivery, self.service.id, self._wires.holder)
            raise
        await self._acknowledge(progress, pending)

    async def _acknowledge(self, progress: Progress, pending: PendingTransaction) -> None:
        """Note that the service has it. While the database cannot, nothing else is sent, and this not again."""
        while True:
            try:
                await self._wires.db.write(
                    appservices.acknowledge, self.service.id, pending, progress.position
                )
            except ServerFault as fault:
                log.warning("cannot note what %s took: %s", self.service.id, fault)
                await self._wires.clock.sleep(MIN_RETRY_MS / 1000)
            else:
                self._progress = Progress(progress.position, None, 0, None, 0, None)
                return

    async def _wait_for_turn(self, progress: Progress) -> None:
        """Until the next attempt is due, or the service shows that it is there."""
        clock = self._wires.clock
        seconds = min(progress.retry_ms - clock.now_ms(), MAX_RETRY_MS) / 1000
        if seconds > 0:
            with suppress(TimeoutError):
                async with clock.timeout(seconds):
                    await self._answers.wait()

    async def _note_failure(self, progress: Progress, fault: RemoteFault) -> None:
        """Wait as long again as the service has been failing: twice as long each time."""
        now_ms = self._wires.clock.now_ms()
        since_ms = progress.failing_since_ms or now_ms
        retry_ms = now_ms + min(MAX_RETRY_MS, max(MIN_RETRY_MS, now_ms - since_ms))
        log.warning("cannot deliver to the application service %s: %s", self.service.id, fault)
        await self._wires.db.write(appservices.note_failure, self._lease(), retry_ms)
        self._progress = msgspec.structs.replace(
            progress, failing_since_ms=since_ms, retry_ms=retry_ms, lease=None
        )

    def _lease(self) -> Lease:
        now_ms = self._wires.clock.now_ms()
        return Lease(self.service.id, self._wires.holder, now_ms, now_ms + LEASE_MS)

    def _take_told(self) -> Told:
        told = Told(frozenset(self._rooms), frozenset(self._users), self._is_all)
        self._rooms, self._users, self._is_all = set(), set(), False
        self._news.clear()
        return told

    def _put_back(self, told: Told) -> None:
        """Not all of what these hints told was read."""
        self._rooms |= told.rooms
        self._users |= told.users
        self._is_all = self._is_all or told.is_all
        self._news.set()
