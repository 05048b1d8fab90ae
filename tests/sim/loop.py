"""An event loop whose time is virtual: whenever every task waits, it jumps to what is due next.

So a day passes in a moment, and what happens depends on nothing but the order in which things were asked for.
"""

import asyncio
import contextvars
import selectors
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")

START_MS = 1_700_000_000_000


class Stuck(Exception):
    """Every task waits, and nothing will ever wake one."""


class _Selector(selectors.SelectSelector):
    """Waits for no socket: it takes the time that it should wait for as passed."""

    def __init__(self) -> None:
        super().__init__()
        self.elapsed_s = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise Stuck("every task waits and no timer is set")
        self.elapsed_s += max(timeout, 0.0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs what is given to threads in line, too: a thread would bring the machine's own order in."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)
        self._clock_resolution = 1e-6  # sums of floats must not make it wait once more for the same timer
        self.set_task_factory(_make_task)  # type: ignore[arg-type]  # the context is asked for by name

    def time(self) -> float:
        return self._virtual.elapsed_s

    def run_in_executor(  # type: ignore[override]  # of whatever type
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        future = self.create_future()
        try:
            value = func(*args)
        except Exception as error:
            self.call_soon(_settle, future, None, error)
        else:
            self.call_soon(_settle, future, value, None)
        return future


def _settle(future: asyncio.Future[Any], value: Any, error: Exception | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run to the end on a loop of its own."""
    with asyncio.Runner(loop_factory=VirtualLoop, debug=False) as runner:
        return runner.run(main())


class LoopClock:
    """See `ranvier.io.clock.Clock`: the loop's time, with an error in the time of day."""

    def __init__(self, skew_ms: int = 0) -> None:
        self._start_ms = START_MS + skew_ms

    def now_ms(self) -> int:
        return self._start_ms + round(self.monotonic() * 1000)

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    @asynccontextmanager
    async def timeout(self, seconds: float | None) -> AsyncIterator[None]:
        async with asyncio.timeout(seconds):
            yield

    def call_later(self, seconds: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(seconds, callback)


class ConnectionLost(Exception):
    """The server died before it answered."""


class Life:
    """From one start of a server to its end: all tasks that it began, and those who wait for its answers."""

    def __init__(self) -> None:
        self.is_over = False
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self._asked: dict[asyncio.Future[Any], None] = {}

    def start(self, work: Coroutine[Any, Any, T], name: str | None = None) -> asyncio.Task[T]:
        """Begin a task of the server; what it begins is the server's, too."""
        context = contextvars.Context()
        context.run(_life.set, self)
        return asyncio.get_running_loop().create_task(work, name=name, context=context)

    async def ask(self, work: Coroutine[Any, Any, T]) -> T:
        """Let the server do something on behalf of somebody else, who may go away meanwhile.

        Raises: what `work` raises; ConnectionLost when the server dies.
        """
        if self.is_over:
            work.close()
            raise ConnectionLost
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._asked[answer] = None
        task = self.start(work)
        task.add_done_callback(lambda done: _pass_on(done, answer))
        try:
            return await answer
        finally:
            self._asked.pop(answer, None)

    def end(self) -> None:
        """Nothing of it goes on."""
        self.is_over = True
        for answer in list(self._asked):
            if not answer.done():
                answer.set_exception(ConnectionLost())
        for task in list(self.tasks):
            task.cancel()

    async def wait_over(self) -> bool:
        """Whether no task held on to life."""
        for _ in range(100):
            if not self.tasks:
                return True
            for task in list(self.tasks):
                task.cancel()
            await asyncio.sleep(0)
        return False


_life: contextvars.ContextVar[Life | None] = contextvars.ContextVar("life", default=None)


def current_life() -> Life | None:
    """Whose work runs; None: the simulator's own."""
    return _life.get()


def _make_task(
    loop: asyncio.AbstractEventLoop,
    work: Coroutine[Any, Any, Any],
    *,
    context: contextvars.Context | None = None,
    **more: Any,
) -> asyncio.Task[Any]:
    task = asyncio.Task(work, loop=loop, context=context, **more)
    life = _life.get() if context is None else context.get(_life)
    if life is not None:
        life.tasks[task] = None
        task.add_done_callback(lambda done: life.tasks.pop(done, None))
    return task


def _pass_on(done: asyncio.Task[Any], answer: asyncio.Future[Any]) -> None:
    if done.cancelled():
        if not answer.done():
            answer.set_exception(ConnectionLost())
        return
    error = done.exception()
    if answer.done():
        return
    if error is None:
        answer.set_result(done.result())
    else:
        answer.set_exception(error)
