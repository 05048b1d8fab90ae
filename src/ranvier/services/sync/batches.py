"""Reading for many requests at once: those that wait while a read is under way are read together by the next."""

import asyncio
from collections.abc import Sequence
from typing import Final, Generic, Protocol, TypeVar

from ranvier.store.database import Database, ReadTxn

MAX_BATCH: Final = 200
"""Requests that are read together."""


Job = TypeVar("Job")
Result = TypeVar("Result")
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
        self._waiting: list[tuple[Job, asyncio.Future[Result]]] = []
        self._task: asyncio.Task[None] | None = None

    async def run_alone(self, job: Job) -> Result:
        """Read for one request that may take long: nobody should wait for it."""
        (result,) = await self._db.read(self._reader.read_all, [job])
        return result

    async def run(self, job: Job) -> Result:
        """Read for a request, together with others."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((job, future))
        if self._task is None:
            self._task = asyncio.create_task(self._work())
        return await future

    async def _work(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
                await self._read(batch)
        finally:
            self._task = None

    async def _read(self, batch: Sequence[tuple[Job, asyncio.Future[Result]]]) -> None:
        wanted = [(job, future) for job, future in batch if not future.done()]
        try:
            results = await self._db.read(self._reader.read_all, [job for job, _ in wanted])
        except Exception as error:
            if len(wanted) > 1:
                # What is wrong with one of them is no affair of the others.
                for pair in wanted:
                    await self._read([pair])
            else:
                for _, future in wanted:
                    if not future.done():
                        future.set_exception(error)
            return
        except BaseException:
            for _, future in wanted:
                future.cancel()
            raise
        for (_, future), result in zip(wanted, results, strict=True):
            if not future.done():
                future.set_result(result)
