"""Runs the jobs that transactions queued: soon after the commit, and again later when they fail."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from ranvier.io.clock import Clock
from ranvier.io.randomness import Randomness
from ranvier.store.database import Database, Hint, Kind
from ranvier.store.tables.jobs import (
    Job,
    complete_job,
    extend_jobs,
    find_next_run_ms,
    lease_jobs,
    postpone_job,
    release_jobs,
)

log = logging.getLogger(__name__)

Run = Callable[[Job], Awaitable[None]]
"""Does a job. Doing it twice must do no harm. Whatever it raises postpones the job."""

LEASE_MS: Final = 120_000
"""What a process was doing when it died is done by another one, or by its next life, after this time."""
EXTEND_S: Final = 40.0
"""How often a process that goes on says so."""
AT_ONCE: Final = 10
"""Jobs that a runner leases together, and does one after another."""

MAX_IDLE_S: Final = 600.0
FIRST_RETRY_MS: Final = 5_000
MAX_RETRY_MS: Final = 3_600_000
MAX_SKEW_MS: Final = 300_000
"""By so much the clocks of several processes may differ."""


class NotYet(Exception):
    """What a job waits for is not there: it is done again later, and nothing is wrong."""


class JobRunner:
    """The worker for one kind of job."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        randomness: Randomness,
        kind: str,
        run: Run,
        *,
        at_once: int = AT_ONCE,
        max_wait_ms: int = MAX_RETRY_MS,
    ) -> None:
        """`max_wait_ms`: no job of the kind is asked for longer ahead."""
        self.name = f"jobs: {kind}"
        self._at_once = at_once
        self._longest_ms = max_wait_ms + MAX_SKEW_MS
        self._db = db
        self._clock = clock
        self._kind = kind
        self._run_job = run
        self._lease = randomness.token(12)
        self._queued = asyncio.Event()
        db.subscribe(self._hear)

    async def run(self) -> None:
        while True:
            self._queued.clear()
            # Most of what is queued is for other runners: reading is cheap, leasing is a commit.
            # How long a job may wait counts, too: times of before the clock was set back are far ahead.
            now_ms = self._clock.now_ms()
            next_ms = await self._db.read(find_next_run_ms, self._kind, now_ms + self._longest_ms)
            idle_s = MAX_IDLE_S if next_ms is None else (next_ms - now_ms) / 1000
            if idle_s > 0:
                await self._wait(min(idle_s, MAX_IDLE_S))
            else:
                await self._do_some()

    async def _do_some(self) -> None:
        now_ms = self._clock.now_ms()
        jobs = await self._db.write(
            lease_jobs,
            self._kind,
            self._lease,
            now_ms,
            now_ms + LEASE_MS,
            self._at_once,
            now_ms + self._longest_ms,
        )
        try:
            async with asyncio.TaskGroup() as group:
                extending = group.create_task(self._extend())
                for job in jobs:
                    await self._do(job)
                extending.cancel()
        except asyncio.CancelledError:
            # The process stops: who runs them next need not wait until the lease ends.
            await self._db.write(release_jobs, self._lease, self._clock.now_ms())
            raise

    async def _extend(self) -> None:
        """Keep the jobs while they are being done."""
        while True:
            await self._clock.sleep(EXTEND_S)
            await self._db.write(extend_jobs, self._lease, self._clock.now_ms() + LEASE_MS)

    async def _do(self, job: Job) -> None:
        try:
            await self._run_job(job)
        except Exception as error:  # the job is kept, and the others go on
            if isinstance(error, NotYet):
                log.info("%s %s waits: %s", self.name, job.key, error)
            else:
                log.exception("%s %s failed", self.name, job.key)
            delay_ms = min(FIRST_RETRY_MS * 2 ** min(job.attempts - 1, 20), MAX_RETRY_MS)
            await self._db.write(postpone_job, job.job_nid, self._clock.now_ms() + delay_ms, repr(error))
        else:
            await self._db.write(complete_job, job.job_nid)

    async def _wait(self, seconds: float) -> None:
        """Until a job is queued, or for as long."""
        try:
            async with self._clock.timeout(seconds):
                await self._queued.wait()
        except TimeoutError:
            return

    def _hear(self, hints: Sequence[Hint]) -> None:
        if any(hint.kind in (Kind.JOB, Kind.GAP) for hint in hints):
            self._queued.set()
