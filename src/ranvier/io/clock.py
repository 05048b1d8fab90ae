"""Time enters here and nowhere else. `SystemClock` is the real one; `VirtualClock` stands still until a test
or a simulation moves it, and wakes sleepers in one reproducible order.
"""

import asyncio
import heapq
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Final, Protocol, TypeVar

T = TypeVar("T")

_START_MS: Final = 1_700_000_000_000
_TIMER_LIMIT: Final = 1_000_000
"""How many timers `run` fires before it takes the awaited thing for one that never ends."""


class Timer(Protocol):
    """What is to happen at a time."""

    def cancel(self) -> None:
        """Let it not happen, if it has not yet."""
        ...


class Clock(Protocol):
    """What a service needs of time."""

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch. May jump when an administrator sets the machine's clock."""
        ...

    def monotonic(self) -> float:
        """Seconds since an arbitrary start; never goes back. For durations and deadlines."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`; zero or less yields to other tasks once."""
        ...

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        """Cancel the body after `seconds` (None: never) and raise TimeoutError in its place."""
        ...

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` on the event loop after `seconds`. A tenth of what `timeout` costs."""
        ...


class SystemClock:
    """The time of this machine and of the running event loop."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def timeout(self, seconds: float | None) -> AbstractAsyncContextManager[object]:
        return asyncio.timeout(seconds)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        return asyncio.get_running_loop().call_later(seconds, callback)


class _Timer:
    """A callback due at a time; timers due together fire in the order in which they were set."""

    __slots__ = ("callback", "due_us", "number")

    def __init__(self, due_us: int, number: int, callback: Callable[[], object] | None) -> None:
        self.due_us = due_us
        self.number = number
        self.callback = callback

    def __lt__(self, other: "_Timer") -> bool:
        return (self.due_us, self.number) < (other.due_us, other.number)

    def cancel(self) -> None:
        self.callback = None


class VirtualClock:
    """A clock that moves only when told to, for one event loop of the standard library (not uvloop).

    Time is kept in whole microseconds, so that sums of durations do not depend on rounding.
    """

    def __init__(self, start_ms: int = _START_MS) -> None:
        self._start_ms = start_ms
        self._elapsed_us = 0
        self._timers: list[_Timer] = []
        self._timers_set = 0
        self._holds = 0
        self._released = asyncio.Event()

    def now_ms(self) -> int:
        return self._start_ms + self._elapsed_us // 1000

    def monotonic(self) -> float:
        return self._elapsed_us / 1_000_000

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self._set_timer(seconds, lambda: None if woken.done() else woken.set_result(None))
        try:
            await woken
        finally:
            timer.cancel()

    @asynccontextmanager
    async def timeout(self, seconds: float | None) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(None) as scope:
            if seconds is None:
                yield
                return
            timer = self._set_timer(seconds, lambda: scope.reschedule(loop.time()))
            try:
                yield
            finally:
                timer.cancel()

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        return self._set_timer(seconds, callback)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Keep time from moving while work runs that the event loop cannot see, such as a thread's."""
        self._holds += 1
        self._released.clear()
        try:
            yield
        finally:
            self._holds -= 1
            if not self._holds:
                self._released.set()

    async def advance(self, seconds: float) -> None:
        """Move on by `seconds`; whatever falls due on the way runs at its own time, up to its next wait."""
        target_us = self._elapsed_us + _to_us(seconds)
        await self._settle()
        while self._fire_next(target_us):
            await self._settle()
        self._elapsed_us = target_us

    async def run(self, work: Awaitable[T]) -> T:
        """The result of `work`; whenever every task waits, time jumps to what is due next.

        Raises: RuntimeError when nothing is due and `work` still waits, or when it seems to wait for ever.
        """
        task = asyncio.ensure_future(work)
        try:
            for _ in range(_TIMER_LIMIT):
                await self._settle()
                if task.done():
                    return task.result()
                if not self._fire_next(None):
                    raise RuntimeError("deadlock: every task waits and no timer is set")
            raise RuntimeError(f"no result after {_TIMER_LIMIT} timers")
        finally:
            task.cancel()

    def _set_timer(self, seconds: float, callback: Callable[[], object]) -> _Timer:
        self._timers_set += 1
        timer = _Timer(self._elapsed_us + _to_us(seconds), self._timers_set, callback)
        heapq.heappush(self._timers, timer)
        return timer

    def _fire_next(self, until_us: int | None) -> bool:
        """Jump to the next timer that is due by `until_us` and fire it; False if there is none."""
        while self._timers and (until_us is None or self._timers[0].due_us <= until_us):
            timer = heapq.heappop(self._timers)
            if timer.callback is not None:
                self._elapsed_us = max(self._elapsed_us, timer.due_us)
                timer.callback()
                return True
        return False

    async def _settle(self) -> None:
        """Let every task run until it waits for time, for I/O or for nothing that will come."""
        ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]  # no public way to see idleness
        while ready or self._holds:
            if ready:
                await asyncio.sleep(0)
            else:
                await self._released.wait()


def _to_us(seconds: float) -> int:
    return max(0, round(seconds * 1_000_000))
