"""Start and stop, in one place and in one order.

Start: database, services, workers, listeners. Stop: listeners (accepted requests finish), workers, database.
"""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec

from ranvier.app.listeners import Listener

log = logging.getLogger(__name__)


class Worker(Protocol):
    """A loop in the background. Its work is resumable: it may be cancelled at any await."""

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
    """Run until SIGTERM or SIGINT, then stop cleanly. `on_ready` is called when every listener is bound."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        async with asyncio.TaskGroup() as tasks:
            workers = [tasks.create_task(_watch(worker), name=worker.name) for worker in running.workers]
            listeners = [tasks.create_task(listener.run()) for listener in running.listeners]
            on_ready()
            await stop.wait()
            log.info("stopping")
            for listener in running.listeners:
                listener.stop()
            running.wake_waiters()
            await asyncio.wait(listeners)
            for worker in workers:
                worker.cancel()
    finally:
        await running.close()


async def _watch(worker: Worker) -> None:
    """A worker that fails takes the process down: that is seen and mended, a missing worker is not."""
    try:
        await worker.run()
    except Exception:
        log.exception("worker %s failed", worker.name)
        raise
