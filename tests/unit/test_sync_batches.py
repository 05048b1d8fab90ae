"""Requests that are read together: who shares a read, and who shares a failure."""

import asyncio
from typing import Any

import pytest

from ranvier.services.sync.batches import Batches


class Jobs:
    """Stands for database and reader: runs numbers, of which negative ones fail."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()

    async def read(self, fn: Any, jobs: list[int]) -> list[int]:
        await self.gate.wait()
        return fn(None, jobs)

    def read_all(self, _txn: None, jobs: list[int]) -> list[int]:
        self.batches.append(jobs)
        if any(job < 0 for job in jobs):
            raise ValueError("negative")
        return [10 * job for job in jobs]


@pytest.fixture
async def jobs():
    return Jobs()


async def run_all(jobs, batches, *numbers):
    tasks = [asyncio.create_task(batches.run(number)) for number in numbers]
    await asyncio.sleep(0)
    jobs.gate.set()
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_those_who_ask_at_once_share_a_read(jobs):
    batches = Batches(jobs, jobs)
    assert await run_all(jobs, batches, 1, 2, 3) == [10, 20, 30]
    assert jobs.batches == [[1, 2, 3]]
    assert await batches.run(4) == 40
    assert await batches.run_alone(5) == 50


async def test_a_failure_is_that_of_one_request(jobs):
    batches = Batches(jobs, jobs)
    one, failed, three = await run_all(jobs, batches, 1, -2, 3)
    assert (one, three) == (10, 30)
    assert isinstance(failed, ValueError)
    assert await batches.run(4) == 40


async def test_who_went_away_is_not_read_for(jobs):
    batches = Batches(jobs, jobs)
    first = asyncio.create_task(batches.run(1))
    await asyncio.sleep(0)
    gone, waiting = asyncio.create_task(batches.run(2)), asyncio.create_task(batches.run(3))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    jobs.gate.set()
    assert [await first, await waiting] == [10, 30]
    assert 2 not in [job for batch in jobs.batches[1:] for job in batch]


async def test_what_is_to_be_read_is_asked_when_the_read_begins(jobs):
    batches = Batches(jobs, jobs)
    first = asyncio.create_task(batches.run(1))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    answers = [asyncio.get_running_loop().create_future() for _ in range(3)]
    wanted = [0, 0, 0]
    for _ in range(2):  # as often as something changes
        for number, answer in enumerate(answers):
            batches.add(answer, lambda number=number: wanted[number] or None)
    wanted[:] = 2, 3, 0
    jobs.gate.set()
    assert await asyncio.gather(first, *answers) == [10, 20, 30, None]
    assert jobs.batches == [[1], [2, 3]]


async def test_who_has_nothing_to_read_costs_no_read(jobs):
    batches = Batches(jobs, jobs)
    answer = asyncio.get_running_loop().create_future()
    batches.add(answer, lambda: None)
    assert await answer is None
    assert jobs.batches == []


async def test_a_job_that_cannot_be_made_fails_alone(jobs):
    batches = Batches(jobs, jobs)
    jobs.gate.set()
    good, bad = (asyncio.get_running_loop().create_future() for _ in range(2))
    batches.add(good, lambda: 1)
    batches.add(bad, lambda: 1 // 0)
    one, failed = await asyncio.gather(good, bad, return_exceptions=True)
    assert one == 10
    assert isinstance(failed, ZeroDivisionError)
