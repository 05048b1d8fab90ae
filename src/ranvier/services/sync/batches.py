"""Reading for many requests at once: those that wait while a read is under way are read together by the next."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Final, Generic, Protocol, TypeVar

from ranvier.store.database import Database, ReadTxn

MAX_BATCH: Final = 200
"""Requests that are read together."""

Job = TypeVar("Job")
Find = Callable[[], Job | None]
"""Makes a job when its read begins; None: there is nothing to read."""

Result = TypeVar("Result")
Answer = asyncio.Future[Result | None]
"""What a request awaits; None: there was nothing to read."""

JobIn = TypeVar("JobIn", contravariant=True)
ResultOut = TypeVar("ResultOut", covariant=True)


class Reader(Protocol[JobIn, ResultOut]):
    """Reads in one transaction, on any thread."""

    def read_all(self, txn: ReadTxn, jobs: Sequence[JobIn], /) -> Sequence[ResultOut]: ...


class Batches(Generic[Job, Result]):
    """Reads for many requests: what waits while a read is under way is read together by the next one."""

    def __init__(self, db: Database, reader: Reader[Job, Result]) -> None:
        self._db = db
        self._reader = reader
        self._waiting: dict[Answer[Result], Find[Job]] = {}
        self._task: asyncio.Task[None] | None = None

    async def run_alone(self, job: Job) -> Result:
        """Read for one request that may take long: nobody should wait for it."""
        (result,) = await self._db.read(self._reader.read_all, [job])
        return result

    async def run(self, job: Job) -> Result:
        """Read for a request, together with others."""
        answer: Answer[Result] = asyncio.get_running_loop().create_future()
        self.add(answer, lambda: job)
        result = await answer
        assert result is not None, "there was a job"
        return result

    def add(self, answer: Answer[Result], find: Find[Job]) -> None:
        """Read for who awaits `answer`, together with others. Until it is there, this may be said again."""
        self._waiting[answer] = find
        if self._task is None:
            self._task = asyncio.create_task(self._work())

    async def _work(self) -> None:
        try:
            while self._waiting:
                batch = list(islice(self._waiting, MAX_BATCH))
                await self._read({answer: self._waiting.pop(answer) for answer in batch})
        finally:
            self._task = None

    async def _read(self, batch: Mapping[Answer[Result], Find[Job]]) -> None:
        try:
            jobs = _list_jobs(batch)
            results = await self._db.read(self._reader.read_all, list(jobs.values())) if jobs else ()
        except Exception as error:
            wanted = [answer for answer in batch if not answer.done()]
            if len(wanted) > 1:
                # What is wrong with one of them is no affair of the others.
                for answer in wanted:
                    await self._read({answer: batch[answer]})
            else:
                for answer in wanted:
                    answer.set_exception(error)
            return
        except BaseException:
            for answer in batch:
                answer.cancel()
            raise
        for answer, result in zip(jobs, results, strict=True):
            if not answer.done():
                answer.set_result(result)


def _list_jobs(batch: Mapping[Answer[Result], Find[Job]]) -> dict[Answer[Result], Job]:
    """The jobs of those who still wait. Effects: who has nothing to read for is told so."""
    jobs = {}
    for answer, find in batch.items():
        if not answer.done():
            job = find()
            if job is None:
                answer.set_result(None)
            else:
                jobs[answer] = job
    return jobs
