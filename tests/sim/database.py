"""SQLite as the servers have it, but in line: the event loop runs each transaction when its time has come.

Reads take place after a delay of their own, so they overtake each other; writes stay in order and share commits,
as with the threads. Around a commit the server may die.
"""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Concatenate

from ranvier.store.database import P, ReadTxn, Subscriber, T, Unavailable, WriteTxn
from ranvier.store.dialect import Engine
from ranvier.store.migrate import list_migrations
from ranvier.store.schema_guard import SchemaGuard
from ranvier.store.sqlite import SqliteReader, SqliteWriter
from ranvier.store.threads import MAX_GROUP, Job, News, Newsroom, Outcome

GUARD = SchemaGuard(list_migrations(Engine.SQLITE))

MAX_READ_S = 0.002
MAX_COMMIT_S = 0.004

BEFORE = "before the commit"
AFTER = "after the commit"

Observer = Callable[[str, int, int], bool]
"""Is told of a point in time (BEFORE, AFTER), of how many writes a commit has, and of the newest position; True:
the server dies here."""


class InlineDatabase:
    """See `ranvier.store.database.Database`."""

    def __init__(self, path: Path, rng: random.Random, observer: Observer) -> None:
        self._writer = SqliteWriter(path, GUARD)
        self._reader = SqliteReader(path)
        self._newsroom = Newsroom(self._writer.position)
        self._rng = rng
        self._observer = observer
        self._waiting: list[Job] = []
        self._is_busy = False
        self._is_closed = False
        self._idle = asyncio.Event()
        self._idle.set()

    async def read(self, fn: Callable[Concatenate[ReadTxn, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        self._admit()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        job = Job(future, fn, args, kwargs)
        loop.call_later(self._rng.random() * MAX_READ_S, self._read, job)
        return await future

    async def write(self, fn: Callable[Concatenate[WriteTxn, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        self._admit()
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(Job(future, fn, args, kwargs))
        self._idle.clear()
        self._schedule()
        return await future

    def position(self) -> int:
        return self._newsroom.position

    def subscribe(self, subscriber: Subscriber) -> None:
        self._newsroom.subscribe(subscriber)

    async def close(self) -> None:
        """What was queued is still written."""
        if not self._is_closed:
            await self._idle.wait()
            self.kill()

    def kill(self) -> None:
        """Whatever has not been committed never will be."""
        if not self._is_closed:
            self._is_closed = True
            self._reader.close()
            self._writer.close()

    def _admit(self) -> None:
        if self._is_closed:
            raise Unavailable("the database is closed")

    def _read(self, job: Job) -> None:
        if job.future is None or job.future.done():
            return
        if self._is_closed:
            # Of the server itself nobody waits any more; the forger does, who looks into databases.
            job.future.set_exception(Unavailable("the database is closed"))
        else:
            _resolve(self._reader.read(job))

    def _schedule(self) -> None:
        if self._waiting and not self._is_busy:
            self._is_busy = True
            asyncio.get_running_loop().call_later(self._rng.random() * MAX_COMMIT_S, self._commit)

    def _commit(self) -> None:
        if self._is_closed:
            return
        group, self._waiting = self._waiting[:MAX_GROUP], self._waiting[MAX_GROUP:]
        if self._observer(BEFORE, len(group), self._writer.position):
            return
        outcomes, news = self._writer.commit(group)
        if self._observer(AFTER, len(group), self._writer.position):
            return
        # Readers see what was written a moment before anybody hears of it.
        asyncio.get_running_loop().call_later(self._rng.random() * 0.001, self._written, outcomes, news)

    def _written(self, outcomes: list[Outcome], news: News | None) -> None:
        if self._is_closed:
            return
        self._is_busy = False
        if news is not None:
            self._newsroom.tell(news)
        for outcome in outcomes:
            _resolve(outcome)
        if not self._waiting:
            self._idle.set()
        self._schedule()


def _resolve(outcome: Outcome) -> None:
    future = outcome.job.future
    if future is not None and not future.done():
        outcome.tell()
