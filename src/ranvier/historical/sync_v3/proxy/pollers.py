"""Follows the classic sync of the upstream, for each device that somebody uses.

A poller begins with a request of its device, goes on while there are requests, and comes back with the next
one: the token is known only while it runs. What it was told is stored together with the upstream's token for
what comes next, so a process that is killed loses nothing.
"""

import asyncio
import logging
from typing import Final, Protocol

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import ServerFault, Unavailable, UnknownToken
from ranvier.historical.sync_v3.proxy.devices import UpstreamUnavailable
from ranvier.historical.sync_v3.proxy.storing import Heard, stop_typing, store
from ranvier.historical.sync_v3.proxy.upstream import SinceRefused, TokenRefused, UpstreamFault
from ranvier.io.clock import Clock
from ranvier.store.database import Database
from ranvier.store.tables import sync_v3_proxy as table

log = logging.getLogger(__name__)

MAX_POLLERS: Final = 2_000
IDLE_S: Final = 15 * 60.0
"""Longer than the longest long poll."""

SPARE_S: Final = 60.0
"""A poller without a request for so long makes room for another device."""

SWEEP_S: Final = 60.0
MAX_BACKOFF_S: Final = 300.0
TOUCH_MS: Final = 60 * 60 * 1000


class Syncing(Protocol):
    """The upstream's classic sync."""

    async def sync(self, token: str, since: str | None, *, at_once: bool) -> JsonObject: ...


class Poller:
    """Follows for one device."""

    def __init__(self, db: Database, upstream: Syncing, clock: Clock, device_nid: int, token: str) -> None:
        self._db = db
        self._upstream = upstream
        self._clock = clock
        self._device_nid = device_nid
        self._token = token
        self._failures = 0
        self.used_s = clock.monotonic()
        self.tried = asyncio.Event()  # the first answer is stored, or it failed to come
        self.has_told = False  # something is stored
        self.is_refused = False

    async def run(self) -> None:
        """Until the token is refused."""
        try:
            since = await self._db.read(table.find_since, self._device_nid)
            self.has_told = since is not None
            await self._db.write(stop_typing, self._device_nid)
            while True:
                since = await self._poll(since)
                self.tried.set()
        except TokenRefused:
            self.is_refused = True
            log.info("the upstream refuses the token of device %d", self._device_nid)
        except asyncio.CancelledError:
            raise
        except Exception:
            # The next request of the device starts another poller; the others are not concerned.
            log.exception("following for device %d failed", self._device_nid)
        finally:
            self.tried.set()

    async def _poll(self, since: str | None) -> str | None:
        """Ask once; from where to go on. Raises: TokenRefused."""
        # At first, and after a failure, nobody should wait for something to happen.
        at_once = not self.tried.is_set() or self._failures > 0
        try:
            answer = await self._upstream.sync(self._token, since, at_once=at_once)
            await self._db.write(store, Heard(self._device_nid, answer, since is None))
        except SinceRefused:
            log.warning("the upstream refuses its own sync token; starting anew for %d", self._device_nid)
            await self._back_off(0.0)
            return None
        except UpstreamFault as error:
            log.warning("cannot sync for device %d: %s", self._device_nid, error)
            await self._back_off(error.retry_after_s)
            return since
        except ServerFault as error:
            # Not stored: asking on would tell the upstream that we have it.
            log.error("cannot store for device %d: %s", self._device_nid, error)
            await self._back_off(0.0)
            return since
        self._failures = 0
        self.has_told = True
        return str(answer["next_batch"])

    async def _back_off(self, at_least_s: float) -> None:
        self._failures += 1
        self.tried.set()
        await self._clock.sleep(min(MAX_BACKOFF_S, max(at_least_s, 2.0 ** min(self._failures, 10))))


class Pollers:
    """All that follow. Also the worker that ends those which nobody uses."""

    name = "sync v3 pollers"

    def __init__(self, db: Database, upstream: Syncing, clock: Clock, max_pollers: int = MAX_POLLERS) -> None:
        self._db = db
        self._upstream = upstream
        self._clock = clock
        self._max_pollers = max_pollers
        self._running: dict[int, tuple[Poller, asyncio.Task[None]]] = {}
        self._touched_ms: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._running)

    async def follow(self, device_nid: int, token: str) -> None:
        """See to it that the device is followed; returns when there is something to tell.

        Raises: UnknownToken, UpstreamUnavailable, Unavailable.
        """
        await self._touch(device_nid)
        poller = self._find(device_nid, token)
        poller.used_s = self._clock.monotonic()
        await poller.tried.wait()
        if poller.is_refused:
            raise UnknownToken("The homeserver does not know this access token any more.")
        if not poller.has_told:
            raise UpstreamUnavailable("The homeserver does not answer.")

    async def run(self) -> None:
        """Stop what nobody uses, for ever; and everything at the end."""
        try:
            while True:
                await self._clock.sleep(SWEEP_S)
                self.stop_idle()
        finally:
            await self.stop_all()

    def stop_idle(self, idle_s: float = IDLE_S) -> None:
        """End those that nobody asked for lately."""
        before_s = self._clock.monotonic() - idle_s
        for device_nid, (poller, task) in list(self._running.items()):
            if task.done() or poller.used_s < before_s:
                self._stop(device_nid)

    async def stop_all(self) -> None:
        tasks = [task for _, task in self._running.values()]
        for device_nid in list(self._running):
            self._stop(device_nid)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _find(self, device_nid: int, token: str) -> Poller:
        known = self._running.get(device_nid)
        if known is not None and not known[1].done():
            return known[0]
        if known is None and len(self._running) >= self._max_pollers:
            self._make_room()
        poller = Poller(self._db, self._upstream, self._clock, device_nid, token)
        task = asyncio.create_task(poller.run(), name=f"poller {device_nid}")
        self._running[device_nid] = (poller, task)
        return poller

    def _make_room(self) -> None:
        """Raises: Unavailable when every poller is in use."""
        device_nid = min(self._running, key=lambda nid: self._running[nid][0].used_s)
        poller, task = self._running[device_nid]
        if not task.done() and poller.used_s > self._clock.monotonic() - SPARE_S:
            raise Unavailable("Too many devices are followed already. Try again later.")
        self._stop(device_nid)

    def _stop(self, device_nid: int) -> None:
        _, task = self._running.pop(device_nid)
        self._touched_ms.pop(device_nid, None)
        task.cancel()

    async def _touch(self, device_nid: int) -> None:
        """Note now and then that the device is in use."""
        now_ms = self._clock.now_ms()
        if now_ms - self._touched_ms.get(device_nid, 0) >= TOUCH_MS:
            self._touched_ms[device_nid] = now_ms
            await self._db.write(table.touch_device, device_nid, now_ms)
