"""What is too old goes at once, for a server may be restarted each hour, and then again and again."""

import asyncio
from typing import Any

import pytest

from ranvier.services.sweeping import INTERVAL_S, Sweeper


class Clock:
    """Two hours, then the server stops."""

    def __init__(self) -> None:
        self.hours = 0

    def now_ms(self) -> int:
        return self.hours

    async def sleep(self, seconds: float) -> None:
        assert seconds == INTERVAL_S
        if self.hours == 2:
            raise asyncio.CancelledError
        self.hours += 1


def sweep(txn: Any, now_ms: int) -> None:
    """Not called by this database."""


class Writes:
    def __init__(self, *more: bool) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self._more = iter(more)

    async def write(self, *call: Any) -> bool | None:
        self.calls.append(call)
        return next(self._more, None)


async def test_it_sweeps_at_once_and_each_hour() -> None:
    writes: Any = Writes()
    clock: Any = Clock()
    with pytest.raises(asyncio.CancelledError):
        await Sweeper("rubbish", writes, clock, sweep).run()
    assert writes.calls == [(sweep, 0), (sweep, 1), (sweep, 2)]


async def test_it_goes_on_for_as_long_as_there_is_more() -> None:
    writes: Any = Writes(True, True, False, True, False)
    clock: Any = Clock()
    with pytest.raises(asyncio.CancelledError):
        await Sweeper("rubbish", writes, clock, sweep).run()
    assert [hour for _, hour in writes.calls] == [0, 0, 0, 1, 1, 2]
