"""Jobs: one for each key, taken by one process at a time, and never lost."""

import pytest

from ranvier.store.database import Database, Hint, Kind
from ranvier.store.tables import jobs

LATER = 60_000


@pytest.fixture
async def queued(db: Database) -> Database:
    for key in ("a", "b"):
        await db.write(jobs.enqueue_job, "mail", key, key.encode(), 1000)
    await db.write(jobs.enqueue_job, "other", "a", b"other", 1000)
    return db


async def lease(db: Database, now_ms: int, who: str = "one", limit: int = 10) -> list[jobs.Job]:
    return await db.write(jobs.lease_jobs, "mail", who, now_ms, now_ms + LATER, limit)


async def test_a_job_is_taken_once_until_its_lease_ends(queued: Database) -> None:
    assert await lease(queued, 999) == []
    first = await lease(queued, 1000)
    assert sorted((job.key, job.payload, job.attempts) for job in first) == [("a", b"a", 1), ("b", b"b", 1)]
    assert await lease(queued, 1001, "two") == []
    again = await lease(queued, 1000 + LATER, "two")
    assert {job.attempts for job in again} == {2}


async def test_a_done_job_is_gone(queued: Database) -> None:
    for job in await lease(queued, 1000):
        await queued.write(jobs.complete_job, job.job_nid)
    assert await queued.read(jobs.find_next_run_ms, "mail") is None
    assert await queued.read(jobs.find_next_run_ms, "other") == 1000


async def test_a_job_that_is_asked_for_while_it_runs_runs_again(queued: Database) -> None:
    (job,) = [job for job in await lease(queued, 1000) if job.key == "a"]
    await queued.write(jobs.enqueue_job, "mail", "a", b"newer", 2000)
    await queued.write(jobs.complete_job, job.job_nid)
    await queued.write(jobs.postpone_job, job.job_nid, 9_000, "late")
    (again,) = await lease(queued, 2000)
    assert (again.key, again.payload, again.attempts) == ("a", b"newer", 1)


async def test_a_failed_job_waits(queued: Database) -> None:
    (job,) = await lease(queued, 1000, limit=1)
    await queued.write(jobs.postpone_job, job.job_nid, 5000, "x" * 10_000)
    await lease(queued, 1000)
    assert await queued.read(jobs.find_next_run_ms, "mail") == 5000
    assert [one.job_nid for one in await lease(queued, 5000)] == [job.job_nid]


async def test_asking_tells_the_workers(db: Database) -> None:
    heard: list[Hint] = []
    db.subscribe(heard.extend)
    await db.write(jobs.enqueue_job, "mail", "a", b"{}", 0)
    assert [hint.kind for hint in heard] == [Kind.JOB]
