"""One homeserver that is two processes on one PostgreSQL, and clients whose requests go to either at random."""

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from shutil import copy
from typing import Any

from ranvier.app.config import DatabaseConfig
from ranvier.http.endpoint import Api

from .homeserver import Homeserver, User, eventually, running_homeserver


class Spread:
    """What clients see of it."""

    def __init__(self, data_dir: Path, url: str, chance: random.Random) -> None:
        self._data_dir = data_dir
        self._url = url
        self._chance = chance
        self._stacks: list[AsyncExitStack] = []
        self.processes: list[Homeserver] = []

    async def register(self, name: str) -> User:
        """A user whose requests go to either process."""
        return self.user(await self.processes[0].register(name), self._app)

    def user(self, user: User, app: Any) -> User:
        return User(app, user.token, user.user_id, user.device_id)

    def at(self, number: int, user: User) -> User:
        """The same user, whose requests go to one process."""
        return self.user(user, self.processes[number].app(frozenset(Api)))

    def both(self, user: User) -> Sequence[User]:
        return [self.at(number, user) for number in range(len(self.processes))]

    async def settled(self) -> None:
        """Return when both processes know of the same changes."""

        async def is_settled() -> bool:
            return len({one.foundation.ports.db.position() for one in self.processes}) == 1

        await eventually(is_settled)

    async def start(self, number: int) -> None:
        """Start a process, or start it again."""
        if number < len(self.processes):
            await self._stacks[number].aclose()
        else:
            self._stacks.append(AsyncExitStack())
        data_dir = self._data_dir / str(number)
        data_dir.mkdir(parents=True, exist_ok=True)
        if number:
            copy(self._data_dir / "0" / "signing.key", data_dir / "signing.key")
        running = running_homeserver(data_dir, database=DatabaseConfig(url=self._url))
        self.processes[number : number + 1] = [await self._stacks[number].enter_async_context(running)]

    async def close(self) -> None:
        for stack in self._stacks:
            await stack.aclose()

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        process = self._chance.choice(self.processes)
        await process.app(frozenset(Api))(scope, receive, send)


@asynccontextmanager
async def running_spread(data_dir: Path, url: str, chance: random.Random) -> AsyncIterator[Spread]:
    """Two processes. `chance` decides where requests go."""
    spread = Spread(data_dir, url, chance)
    try:
        for number in range(2):
            await spread.start(number)
        yield spread
    finally:
        await spread.close()
