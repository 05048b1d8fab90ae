"""Who waits for which hints. A waiter names what wakes it, and may change its mind between two looks."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ranvier.historical.sync_v3.port import Waker
from ranvier.io.clock import Clock
from ranvier.store.database import Hint, Kind


class Ear:
    """One request that waits now and then."""

    def __init__(self, by_waker: defaultdict[Waker, set["Ear"]]) -> None:
        self._by_waker = by_waker
        self._wakers: frozenset[Waker] = frozenset()
        self._heard = asyncio.Event()

    def listen_to(self, wakers: frozenset[Waker]) -> bool:
        """Listen to these from now on; False: it did so already. If not, one has to look once more."""
        if wakers == self._wakers:
            return False
        for waker in self._wakers - wakers:
            self._forget(waker)
        for waker in wakers - self._wakers:
            self._by_waker[waker].add(self)
        self._wakers = wakers
        return True

    def clear(self) -> None:
        """Call it before a look: what comes during the look is heard."""
        self._heard.clear()

    def wake(self) -> None:
        self._heard.set()

    async def wait(self, clock: Clock, seconds: float) -> None:
        """Until something is heard, at most for a time."""
        try:
            async with clock.timeout(seconds):
                await self._heard.wait()
        except TimeoutError:
            pass

    def _forget(self, waker: Waker) -> None:
        ears = self._by_waker[waker]
        ears.discard(self)
        if not ears:
            del self._by_waker[waker]


class Wakes:
    """All that wait."""

    def __init__(self) -> None:
        self._by_waker: defaultdict[Waker, set[Ear]] = defaultdict(set)
        self._ears: set[Ear] = set()
        self.is_closed = False

    def hear(self, hints: Sequence[Hint]) -> None:
        """Take in the hints of a commit."""
        for hint in hints:
            if hint.kind is Kind.GAP:
                self._wake_all()
            else:
                for ear in self._by_waker.get((hint.kind, hint.key), ()):
                    ear.wake()

    def close(self) -> None:
        """The server stops: let everybody answer now."""
        self.is_closed = True
        self._wake_all()

    @contextmanager
    def ear(self) -> Iterator[Ear]:
        ear = Ear(self._by_waker)
        self._ears.add(ear)
        try:
            yield ear
        finally:
            ear.listen_to(frozenset())
            self._ears.discard(ear)

    def _wake_all(self) -> None:
        for ear in self._ears:
            ear.wake()
