"""Start and stop, in one place and in one order.

Start: database, services, workers, listeners. Stop: listeners (accepted requests finish), workers, database.
"""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Final, Protocol

import msgspec

from ranvier.app.listeners import Listener
from ranvier.store.database import SchemaTooNew, Unavailable

log = logging.getLogger(__name__)


END_S: Final = 3.0
"""How long a worker may take to end when the process stops."""

FIRST_PAUSE_S: Final = 1.0
MAX_PAUSE_S: Final = 60.0
"""How long a worker that fails pauses before it begins anew: longer each time, up to this."""


class Worker(Protocol):
    """A loop in the background. Its work is resumable: it may be cancelled at any await, and run again."""

    @property
    def name(self) -> str: ...

    async def run(self) -> None: ...


class Running(msgspec.Struct, frozen=True):
    """What a built homeserver consists of, for whoever starts and stops it."""

    workers: Sequence[Worker]
    listeners: Sequence[Listener]
    wake_waiters: Callable[[], None]  # lets long polls answer at once
    close: Callable[[], Awaitable[None]]  # the database, clients and pools


async def run_until_signal(running: Running, on_ready: Callable[[], None]) -> None:
    """Run until SIGTERM or SIGINT, then stop cleanly. `on_ready` is called when every listener is bound.

    Raises: SchemaTooNew when a later version has brought the database up to date meanwhile.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    workers = [asyncio.create_task(_watch(worker), name=worker.name) for worker in running.workers]
    for worker in workers:
        worker.add_done_callback(lambda ended: stop.set() if _fault(ended) else None)
    try:
        async with asyncio.TaskGroup() as tasks:
            listeners = [tasks.create_task(listener.run()) for listener in running.listeners]
            on_ready()
            await stop.wait()
            log.info("stopping")
            for listener in running.listeners:
                listener.stop()
            running.wake_waiters()
            await asyncio.wait(listeners)
    finally:
        faults = [fault for worker in workers if worker.done() and (fault := _fault(worker))]
        await _end(workers)
        await running.close()
    if faults:
        raise faults[0]


def _fault(worker: asyncio.Task[None]) -> BaseException | None:
    """Why a worker ended, if it was for good."""
    return None if worker.cancelled() else worker.exception()


async def _end(workers: Collection[asyncio.Task[None]]) -> None:
    """Cancel the workers. One that does not end is left behind: its work is resumable, and people wait."""
    for worker in workers:
        worker.cancel()
    if workers:
        _, left = await asyncio.wait(workers, timeout=END_S)
        for worker in left:
            log.warning("worker %s does not end, and is left behind", worker.get_name())


async def _watch(worker: Worker) -> None:
    """Run a worker, and begin anew when it fails: people can still talk while one piece of work is stuck.

    A database that is away is told in a line, a bug with all that is known of it, each time.

    Raises: SchemaTooNew: nothing will work any more.
    """
    loop = asyncio.get_running_loop()
    pause_s = FIRST_PAUSE_S
    while True:
        started = loop.time()
        try:
            await worker.run()
            return
        except Exception as error:
            if (outdated := _find_outdated(error)) is not None:
                raise outdated from error
            if _is_away(error):
                log.warning("worker %s waits for the database: %s", worker.name, _first(error))
            else:
                log.exception("worker %s failed, and begins anew in %.0f s", worker.name, pause_s)
        pause_s = FIRST_PAUSE_S if loop.time() - started > MAX_PAUSE_S else min(2 * pause_s, MAX_PAUSE_S)
        await asyncio.sleep(pause_s)


def _is_away(error: Exception) -> bool:
    """Whether all that went wrong is that the database cannot be had."""
    if isinstance(error, ExceptionGroup):
        return all(_is_away(one) for one in error.exceptions)
    return isinstance(error, Unavailable)


def _find_outdated(error: Exception) -> SchemaTooNew | None:
    if isinstance(error, ExceptionGroup):
        return next(filter(None, map(_find_outdated, error.exceptions)), None)
    return error if isinstance(error, SchemaTooNew) else None


def _first(error: Exception) -> Exception:
    return _first(error.exceptions[0]) if isinstance(error, ExceptionGroup) else error
