"""One piece of background work that fails stops nothing else, and begins anew."""

import asyncio
import logging

import pytest

from ranvier.app import lifecycle
from ranvier.app.lifecycle import Running, run_until_signal
from ranvier.store.database import Unavailable


class Stumbling:
    """A worker that fails as often as it has errors, and then works."""

    name = "stumbling"

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.works = asyncio.Event()

    async def run(self) -> None:
        if self._errors:
            raise self._errors.pop(0)
        self.works.set()
        await asyncio.Event().wait()


async def run(worker: Stumbling) -> None:
    """A process with that worker, until the worker works."""
    closed = asyncio.Event()

    async def close() -> None:
        closed.set()

    running = Running([worker], [], lambda: None, close)
    process = asyncio.create_task(run_until_signal(running, lambda: None))
    await asyncio.wait_for(worker.works.wait(), 5)
    assert not process.done()
    process.cancel()
    await asyncio.wait([process])
    assert closed.is_set()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(lifecycle, "FIRST_PAUSE_S", 0.01)


async def test_a_bug_is_told_whole_and_the_work_begins_anew(caplog):
    await run(Stumbling(ValueError("a bug"), ValueError("again")))
    told = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == 2
    assert all(record.exc_info for record in told)


async def test_a_database_that_is_away_is_told_in_a_line(caplog):
    away = Unavailable("the connection is gone")
    await run(Stumbling(ExceptionGroup("tasks", [away, ExceptionGroup("more", [away])])))
    (told,) = caplog.records
    assert told.levelno == logging.WARNING
    assert told.exc_info is None
    assert "the connection is gone" in told.message


async def test_a_bug_beside_it_is_not_overlooked(caplog):
    await run(Stumbling(ExceptionGroup("tasks", [Unavailable("gone"), KeyError("a bug")])))
    (told,) = caplog.records
    assert told.levelno == logging.ERROR


async def test_a_worker_that_does_not_end_holds_up_nobody(caplog, monkeypatch):
    monkeypatch.setattr(lifecycle, "END_S", 0.05)
    worker, ends = Stumbling(), asyncio.Event()

    async def stay() -> None:
        worker.works.set()
        while not ends.is_set():
            try:
                await ends.wait()
            except asyncio.CancelledError:
                continue  # overlooked

    worker.run = stay
    await asyncio.wait_for(run(worker), 5)
    assert "does not end" in caplog.text
    ends.set()
