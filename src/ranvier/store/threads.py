"""The event loop's side of a database: jobs go to threads, outcomes come back.

One thread writes, in the order of the calls; several read. Whatever waits when the writer becomes free is
one group: it is committed once, and the loop hears of it once. So the cost of a commit, and of waking the
loop, is shared by all who wait, and the more wait the cheaper each becomes.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Concatenate, Final, Protocol

import msgspec

from ranvier.store.database import (
    Hint,
    Kind,
    P,
    ReadTxn,
    SchemaTooNew,
    Subscriber,
    T,
    Unavailable,
    WriteTxn,
)

log = logging.getLogger(__name__)

MAX_WAITING: Final = 10_000
"""Reads that wait, and writes that wait. One more is refused with Unavailable."""

MAX_GROUP: Final = 256
"""Writes that share a commit: what one failed commit can strike, and what one slow disk holds back."""

PATIENCE_S: Final = 1.0
"""How long an answer to a write waits at most until what it wrote is settled: other processes are committing."""

IDLE_S: Final = 1.0
"""How long nothing is written before the writer looks whether another process wrote."""


class Job(msgspec.Struct):
    """A function to run on a transaction, and who waits for its outcome."""

    future: asyncio.Future[Any] | None  # until it is told
    fn: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    @property
    def is_given_up(self) -> bool:
        """Whether nobody waits any more."""
        return self.future is not None and self.future.cancelled()


class Outcome(msgspec.Struct):
    job: Job
    value: Any = None
    error: BaseException | None = None

    def tell(self) -> None:
        """Tell it to who waits. Once, on the event loop."""
        future, error = self.job.future, self.error
        assert future is not None, "it is told once"
        # An error keeps the frames that it came through, and these keep the job, and outcomes. If they kept it in
        # turn, all that the function worked on would stay in memory, however often that happens.
        self.job.future = self.error = None
        if error is None:
            if not future.done():
                future.set_result(self.value)
        elif not future.done():
            future.set_exception(error)
        else:
            log.warning("%s failed after its caller had gone", self.job.fn, exc_info=error)


class News(msgspec.Struct, frozen=True):
    """What subscribers hear: a position up to which everything is settled, and hints up to it."""

    position: int
    hints: Sequence[Hint] = ()
    own: int = 0  # the newest position that the group itself took, which may not be settled yet
    outdated: str = ""  # why this program can use the database no longer: a later one has changed the schema


class Writer(Protocol):
    """An engine's side of writing. Called on the writing thread only."""

    def commit(self, jobs: Sequence[Job]) -> tuple[list[Outcome], News | None]:
        """Run a group in order and commit it; an outcome for each job. Raises nothing."""

    def after_commit(self) -> None:
        """Chores for which nobody should wait. Raises nothing."""

    def look(self) -> News | None:
        """What other processes did, if that is not told some other way. Raises nothing."""

    def close(self) -> None: ...


class Reader(Protocol):
    """An engine's side of reading. Each belongs to one reading thread."""

    def read(self, job: Job) -> Outcome:
        """Run one job. Raises nothing."""

    def close(self) -> None: ...


class Mailbox:
    """Carries calls from threads to the event loop, waking it once for however many came together."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._calls: deque[Callable[[], None]] = deque()
        self._woken = False

    def post(self, call: Callable[[], None]) -> None:
        """From any thread. After the loop is closed nobody is left to hear it, and the call is dropped."""
        # RACE: the call is queued before the flag is read, and the loop clears the flag before it empties the
        # queue. So whoever finds the flag set leaves its call to a loop that has yet to look.
        self._calls.append(call)
        if not self._woken:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:
                if not self._loop.is_closed():
                    raise

    def _deliver(self) -> None:
        self._woken = False
        while self._calls:
            self._calls.popleft()()


class Newsroom:
    """The newest settled position, and whom to tell. Lives on the event loop."""

    def __init__(self, position: int) -> None:
        self.position = position
        self.outdated = ""
        self._subscribers: list[Subscriber] = []
        self._waiting: list[tuple[int, asyncio.TimerHandle, Callable[[], None]]] = []

    def subscribe(self, subscriber: Subscriber) -> None:
        self._subscribers.append(subscriber)

    def tell(self, news: News) -> None:
        self.position = max(self.position, news.position)
        self.outdated = self.outdated or news.outdated
        # Whoever waits for changes has to find out that no more are coming.
        hints = news.hints if not news.outdated else (Hint(Kind.GAP, 0, self.position),)
        for subscriber in self._subscribers if hints else ():
            try:
                subscriber(hints)
            except Exception:
                log.exception("a subscriber failed on %d hints", len(hints))
        if self._waiting:
            self._call_due(lambda position, _: position <= self.position)

    def when_settled(self, position: int, call: Callable[[], None]) -> None:
        """Call once `position` is settled, or when that takes too long."""
        if position <= self.position:
            call()
            return
        loop = asyncio.get_running_loop()
        timer = loop.call_later(PATIENCE_S, lambda: self._call_due(lambda _, one: one is call))
        self._waiting.append((position, timer, call))

    def _call_due(self, is_due: Callable[[int, Callable[[], None]], bool]) -> None:
        due = [entry for entry in self._waiting if is_due(entry[0], entry[2])]
        self._waiting = [entry for entry in self._waiting if entry not in due]
        for _, timer, call in due:
            timer.cancel()
            call()


class ThreadedDatabase:
    """A `Database` on top of an engine's writer and readers. Made on the loop that it serves."""

    def __init__(
        self, writer: Writer, readers: Sequence[Reader], newsroom: Newsroom, mailbox: Mailbox
    ) -> None:
        self._writer = writer
        self._newsroom = newsroom
        self._mailbox = mailbox
        self._loop = asyncio.get_running_loop()
        self._reads: SimpleQueue[Job | None] = SimpleQueue()
        self._writes: SimpleQueue[list[Job] | None] = SimpleQueue()
        self._to_hand_over: list[Job] = []
        self._reads_waiting = 0
        self._writes_waiting = 0
        self._closing: asyncio.Future[None] | None = None
        self._threads = [
            threading.Thread(target=self._write_loop, name="store-writer", daemon=True),
            *(
                threading.Thread(target=self._read_loop, args=(reader,), name="store-reader", daemon=True)
                for reader in readers
            ),
        ]
        for thread in self._threads:
            thread.start()

    async def read(self, fn: Callable[Concatenate[ReadTxn, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        self._admit(self._reads_waiting)
        self._reads_waiting += 1
        future: asyncio.Future[T] = self._loop.create_future()
        self._reads.put(Job(future, fn, args, kwargs))
        try:
            return await future
        finally:
            del future  # for what it raises keeps this frame

    async def write(self, fn: Callable[Concatenate[WriteTxn, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        self._admit(self._writes_waiting)
        self._writes_waiting += 1
        future: asyncio.Future[T] = self._loop.create_future()
        # Those that are called in one turn of the loop go over together: fewer wakings, larger groups.
        if not self._to_hand_over:
            self._loop.call_soon(self._hand_over)
        self._to_hand_over.append(Job(future, fn, args, kwargs))
        try:
            return await future
        finally:
            del future  # for what it raises keeps this frame

    def position(self) -> int:
        return self._newsroom.position

    def subscribe(self, subscriber: Subscriber) -> None:
        self._newsroom.subscribe(subscriber)

    async def close(self) -> None:
        if self._closing is None:
            self._closing = self._loop.create_future()
            self._hand_over()
            watcher = threading.Thread(target=self._join, args=(self._closing,), daemon=True)
            watcher.start()
        await asyncio.shield(self._closing)

    def _join(self, closing: asyncio.Future[None]) -> None:
        writer, *readers = self._threads
        for _ in readers:
            self._reads.put(None)
        for reader in readers:
            reader.join()
        # The writer's connection is the last one: then SQLite tidies its log away.
        self._writes.put(None)
        writer.join()
        self._mailbox.post(partial(closing.set_result, None))

    def _admit(self, waiting: int) -> None:
        if self._closing is not None:
            raise Unavailable("the database is closed")
        if self._newsroom.outdated:
            raise SchemaTooNew(self._newsroom.outdated)
        if waiting >= MAX_WAITING:
            raise Unavailable(f"{waiting} jobs wait for the database")

    def _hand_over(self) -> None:
        if self._to_hand_over:
            self._writes.put(self._to_hand_over)
            self._to_hand_over = []

    def _read_loop(self, reader: Reader) -> None:
        while (job := self._reads.get()) is not None:
            if job.is_given_up:
                self._mailbox.post(self._forget_read)
            else:
                self._mailbox.post(partial(self._read_done, reader.read(job)))
            del job  # else it is kept until there is another one
        reader.close()

    def _forget_read(self) -> None:
        self._reads_waiting -= 1

    def _read_done(self, outcome: Outcome) -> None:
        self._reads_waiting -= 1
        outcome.tell()

    def _write_loop(self) -> None:
        waiting: deque[Job] = deque()
        open_ = True
        while open_ or waiting:
            try:
                # Everything that has been handed over by now; wait only when there is nothing to do.
                while open_ and (not waiting or not self._writes.empty()):
                    jobs = self._writes.get(timeout=IDLE_S)
                    if jobs is None:
                        open_ = False
                    else:
                        waiting.extend(jobs)
                    del jobs  # else they are kept until there are others
            except Empty:
                if news := self._writer.look():
                    self._mailbox.post(partial(self._newsroom.tell, news))
                continue
            if waiting:
                self._commit([waiting.popleft() for _ in range(min(MAX_GROUP, len(waiting)))])
                self._writer.after_commit()
        self._writer.close()

    def _commit(self, group: Sequence[Job]) -> None:
        outcomes, told = self._writer.commit(group)
        self._mailbox.post(partial(self._written, outcomes, told))

    def _written(self, outcomes: Sequence[Outcome], news: News | None) -> None:
        # The position first: whoever is answered has to find what it wrote.
        if news is not None:
            self._newsroom.tell(news)
        self._writes_waiting -= len(outcomes)
        self._newsroom.when_settled(0 if news is None else news.own, partial(_tell_all, outcomes))


def _tell_all(outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
        outcome.tell()


def failed(job: Job, error: BaseException) -> Outcome:
    """An outcome with an error. A future refuses StopIteration, so that one is told as what it is: a bug."""
    if isinstance(error, StopIteration):
        bug = RuntimeError(f"{job.fn} raised StopIteration")
        bug.__cause__ = error
        return Outcome(job, error=bug)
    return Outcome(job, error=error)
