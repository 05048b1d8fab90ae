"""The worker for jobs: it starts when one is queued, tries again later, and survives what a job raises."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from ranvier.io.clock import VirtualClock
from ranvier.io.randomness import seeded_randomness
from ranvier.services.jobs import FIRST_RETRY_MS, MAX_IDLE_S, MAX_RETRY_MS, JobRunner
from ranvier.store.connect import open_database
from ranvier.store.database import Database
from ranvier.store.tables.jobs import Job, enqueue_job, find_next_run_ms

KIND = "test"


@pytest.fixture
async def db(tmp_path) -> AsyncIterator[Database]:
    database = await open_database(f"sqlite:{tmp_path / 'ranvier.db'}")
    yield database
    await database.close()


class Work:
    """Fails as often as it is told to."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.done = asyncio.Queue[tuple[str, int]]()

    async def run(self, job: Job) -> None:
        await self.done.put((job.key, job.attempts))
        if self.failures:
            self.failures -= 1
            raise RuntimeError("not yet")


async def is_due(db, run_ms):
    return await db.read(find_next_run_ms, KIND) == run_ms


async def waits(clock, wait_ms):
    """Whether the worker has read how long it has to wait, and waits: only then may time go on."""
    due_us = clock._elapsed_us + wait_ms * 1000
    return any(timer.due_us == due_us and timer.callback is not None for timer in clock._timers)


async def until(check):
    async with asyncio.timeout(40):
        while True:
            if await check():
                return
            await asyncio.sleep(0)


@pytest.fixture
async def start(db):
    tasks = []

    def start(work, clock):
        runner = JobRunner(db, clock, seeded_randomness(1), KIND, work.run)
        tasks.append(asyncio.create_task(runner.run()))

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_jobs_of_before_and_after_the_start_are_done(db, start):
    work, clock = Work(), VirtualClock()
    await db.write(enqueue_job, KIND, "before", b"{}", clock.now_ms())
    start(work, clock)
    assert await asyncio.wait_for(work.done.get(), 5) == ("before", 1)
    await db.write(enqueue_job, KIND, "after", b"{}", clock.now_ms())
    assert await asyncio.wait_for(work.done.get(), 5) == ("after", 1)
    await until(lambda: is_due(db, None))


async def test_what_fails_is_tried_again_after_a_while(db, start, caplog):
    work, clock = Work(failures=1), VirtualClock()
    await db.write(enqueue_job, KIND, "job", b"{}", clock.now_ms())
    start(work, clock)
    assert await asyncio.wait_for(work.done.get(), 5) == ("job", 1)
    await until(lambda: waits(clock, FIRST_RETRY_MS))
    assert await is_due(db, clock.now_ms() + FIRST_RETRY_MS)
    assert work.done.empty()
    await clock.advance(FIRST_RETRY_MS / 1000)
    assert await asyncio.wait_for(work.done.get(), 5) == ("job", 2)
    assert "not yet" in caplog.text


async def test_a_clock_that_is_set_back_delays_no_job(db, start, caplog):
    work, clock = Work(failures=1), VirtualClock()
    start(work, clock)
    await db.write(enqueue_job, KIND, "failed", b"{}", clock.now_ms())
    assert await asyncio.wait_for(work.done.get(), 5) == ("failed", 1)
    await db.write(enqueue_job, KIND, "asked for", b"{}", clock.now_ms() + MAX_RETRY_MS)
    await until(lambda: waits(clock, FIRST_RETRY_MS))
    clock._start_ms -= 6 * 3_600_000
    # It is seen when the wait is over that was begun before.
    await clock.advance(FIRST_RETRY_MS / 1000)
    assert {await asyncio.wait_for(work.done.get(), 5) for _ in range(2)} == {("failed", 2), ("asked for", 1)}
    await until(lambda: is_due(db, None))
    # A wait of today is kept.
    await db.write(enqueue_job, KIND, "later", b"{}", clock.now_ms() + MAX_RETRY_MS)
    await until(lambda: waits(clock, 1000 * MAX_IDLE_S))
    assert work.done.empty()


async def test_a_runner_that_is_stopped_leaves_its_jobs_to_the_next(db, start):
    clock = VirtualClock()
    await db.write(enqueue_job, KIND, "long", b"{}", clock.now_ms())
    begun = asyncio.Event()

    async def never_end(_job: Job) -> None:
        begun.set()
        await asyncio.Event().wait()

    stopped = asyncio.create_task(JobRunner(db, clock, seeded_randomness(1), KIND, never_end).run())
    await begun.wait()
    stopped.cancel()
    await asyncio.wait([stopped])
    work = Work()
    start(work, clock)
    assert await asyncio.wait_for(work.done.get(), 5) == ("long", 2)
