"""The virtual clock: nothing moves by itself, and the same steps give the same story."""

import asyncio
import threading

import pytest

from ranvier.io.clock import Clock, SystemClock, VirtualClock
from ranvier.io.randomness import seeded_randomness


async def test_time_stands_still_until_it_is_advanced() -> None:
    clock, woken = VirtualClock(start_ms=5000), []

    async def sleeper(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((seconds, clock.now_ms(), clock.monotonic()))

    async with asyncio.TaskGroup() as group:
        for seconds in (3, 1, 2):
            group.create_task(sleeper(seconds))
        await clock.advance(0.999)
        assert woken == []
        await clock.advance(1.001)
        assert woken == [(1, 6000, 1.0), (2, 7000, 2.0)]
        assert clock.now_ms() == 7000
        await clock.advance(10)
    assert woken[2:] == [(3, 8000, 3.0)]
    assert clock.now_ms() == 17_000


async def test_what_is_due_together_wakes_in_the_order_in_which_it_slept() -> None:
    clock, woken = VirtualClock(0), []

    async def sleeper(number: int) -> None:
        await clock.sleep(1)
        woken.append(number)

    await clock.run(asyncio.wait([asyncio.ensure_future(sleeper(number)) for number in range(50)]))
    assert woken == list(range(50))


async def test_what_wakes_may_sleep_again_within_one_advance() -> None:
    clock, ticks = VirtualClock(0), []

    async def ticker() -> None:
        for _ in range(5):
            await clock.sleep(1)
            ticks.append(clock.now_ms())

    task = asyncio.ensure_future(ticker())
    await clock.advance(10)
    assert ticks == [1000, 2000, 3000, 4000, 5000]
    await task


async def test_a_timeout_cancels_its_body_at_its_time() -> None:
    clock, cleaned = VirtualClock(0), []

    async def work() -> str:
        try:
            async with clock.timeout(5):
                try:
                    await clock.sleep(60)
                finally:
                    cleaned.append(clock.now_ms())
        except TimeoutError:
            return "late"
        return "done"

    assert await clock.run(work()) == "late"
    assert cleaned == [5000]


async def test_a_timeout_that_is_not_reached_leaves_no_trace() -> None:
    clock = VirtualClock(0)

    async def work() -> None:
        async with clock.timeout(5):
            await clock.sleep(1)
        async with clock.timeout(None):
            await clock.sleep(60)

    await clock.run(work())
    assert clock.now_ms() == 61_000


async def test_run_jumps_from_timer_to_timer_and_names_a_deadlock() -> None:
    clock = VirtualClock(0)

    async def week() -> int:
        for _ in range(7 * 24):
            await clock.sleep(3600)
        return clock.now_ms()

    assert await clock.run(week()) == 7 * 24 * 3_600_000
    with pytest.raises(RuntimeError, match="deadlock"):
        await clock.run(asyncio.Event().wait())
    with pytest.raises(ZeroDivisionError):
        await clock.run(_divide())


async def _divide() -> float:
    return 1 / 0


async def test_a_cancelled_sleeper_does_not_fire() -> None:
    clock = VirtualClock(0)
    task = asyncio.ensure_future(clock.sleep(1))
    await clock.advance(0.5)
    task.cancel()
    await clock.advance(5)
    assert task.cancelled()


async def test_time_waits_for_work_that_is_held() -> None:
    """A thread is at work: the timeout around it must not strike just because no task is ready."""
    clock, may_go = VirtualClock(0), threading.Event()

    async def work() -> str:
        async with clock.timeout(1):
            with clock.hold():
                await asyncio.to_thread(may_go.wait)
        return "done"

    task = asyncio.ensure_future(clock.run(work()))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not task.done()
    may_go.set()
    assert await task == "done"
    assert clock.now_ms() == 0


async def _story(seed: int) -> list[tuple[int, int]]:
    clock, rng, story = VirtualClock(0), seeded_randomness(seed), []

    async def actor(number: int) -> None:
        for _ in range(10):
            await clock.sleep(rng.below(5) / 10)
            story.append((clock.now_ms(), number))

    async def all_actors() -> None:
        await asyncio.gather(*(actor(number) for number in range(10)))

    await clock.run(all_actors())
    return story


async def test_one_seed_is_one_story() -> None:
    first = await _story(7)
    assert first == await _story(7)
    assert first != await _story(8)
    assert [at for at, _ in first] == sorted(at for at, _ in first)


async def test_the_system_clock_keeps_real_time() -> None:
    clock: Clock = SystemClock()
    before = clock.monotonic()
    await clock.sleep(0)
    with pytest.raises(TimeoutError):
        async with clock.timeout(0.001):
            await asyncio.Event().wait()
    assert clock.monotonic() - before >= 0.001
    assert clock.now_ms() > 1_700_000_000_000


async def test_a_call_comes_at_its_time_unless_it_is_taken_back() -> None:
    clock = VirtualClock()
    called: list[tuple[str, float]] = []
    clock.call_later(2.0, lambda: called.append(("late", clock.monotonic())))
    clock.call_later(1.0, lambda: called.append(("early", clock.monotonic())))
    clock.call_later(1.5, lambda: called.append(("never", clock.monotonic()))).cancel()
    await clock.advance(1.0)
    assert called == [("early", 1.0)]
    await clock.advance(5.0)
    assert called == [("early", 1.0), ("late", 2.0)]
