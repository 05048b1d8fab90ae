"""One question at a time for each key: who asks what is being asked already gets the same answer."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Flights(Generic[K, V]):
    """The questions under way."""

    def __init__(self) -> None:
        self._tasks: dict[K, asyncio.Task[V]] = {}

    async def fly(self, key: K, ask: Callable[[], Awaitable[V]]) -> V:
        """What `ask` answers, or what was asked for the same key before and is not answered yet.

        A caller that is cancelled does not end the question: others may wait for it. Raises what `ask` raises.
        """
        task = self._tasks.get(key)
        if task is None:
            task = self._tasks[key] = asyncio.ensure_future(_run(ask))
            task.add_done_callback(lambda done: self._land(key, done))
        return await asyncio.shield(task)

    def _land(self, key: K, task: "asyncio.Task[V]") -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key]
        if not task.cancelled():
            task.exception()  # nobody may be left to ask for it


async def _run(ask: Callable[[], Awaitable[V]]) -> V:
    return await ask()
