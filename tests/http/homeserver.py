"""A whole homeserver in the process of the test: the real build, its workers, and its clients."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from ranvier.app.build import Homeserver as Built
from ranvier.app.build import assemble, open_ports
from ranvier.app.compose.foundation import Foundation
from ranvier.app.config import Config, DatabaseConfig, RateLimitsConfig, RegistrationConfig
from ranvier.http.endpoint import Api
from ranvier.io.clock import SystemClock
from ranvier.services.accounts.passwords import PasswordCost

from ..postgres import POOL
from .client import Client

PASSWORD: Final = "correct horse battery"
CHEAP: Final = PasswordCost(memory_kib=8, iterations=1)


class AheadClock(SystemClock):
    """The time of this machine, and as much more as a test wants. Durations are real."""

    def __init__(self) -> None:
        self.ahead_ms = 0

    def now_ms(self) -> int:
        return super().now_ms() + self.ahead_ms


class User(Client):
    """A client that is logged in."""

    def __init__(self, app: Any, token: str, user_id: str, device_id: str) -> None:
        super().__init__(app, token)
        self.user_id = user_id
        self.device_id = device_id


class Homeserver:
    """What tests see of it."""

    def __init__(self, built: Built) -> None:
        self._built = built
        self.clock = built.foundation.ports.clock  # an AheadClock, unless the test brought another
        self._app = built.app(frozenset(Api))
        self.server_name = built.foundation.ports.config.server_name
        self.endpoints = built.endpoints
        self.workers = built.workers
        self.client = Client(self._app)

    def app(self, apis: frozenset[Api]) -> Any:
        """What a listener for some of the APIs serves."""
        return self._built.app(apis)

    @property
    def foundation(self) -> Foundation:
        """For what no client can see or do."""
        return self._built.foundation

    async def register(self, name: str, **more: Any) -> User:
        """Register with PASSWORD; `more` goes into the body, too."""
        body = {"username": name, "password": PASSWORD, "auth": {"type": "m.login.dummy"}} | more
        answer = await self.client.post("/_matrix/client/v3/register", body)
        assert answer.status == 200, answer.body
        return self.user(answer.json)

    async def login(self, name: str, password: str = PASSWORD, **more: Any) -> User:
        """Log in on a new device, or on the one that `device_id` names."""
        identifier = {"type": "m.id.user", "user": name}
        body = {"type": "m.login.password", "identifier": identifier, "password": password} | more
        answer = await self.client.post("/_matrix/client/v3/login", body)
        assert answer.status == 200, answer.body
        return self.user(answer.json)

    def user(self, session: dict[str, Any]) -> User:
        """The client for what a registration or a login answered."""
        return User(self._app, session["access_token"], session["user_id"], session["device_id"])


@asynccontextmanager
async def running_homeserver(
    data_dir: Path, *, replaced: Mapping[str, Any] | None = None, **settings: Any
) -> AsyncIterator[Homeserver]:
    """A homeserver named "test", with open registration unless `settings` (fields of Config) say otherwise.
    `replaced`: fields of Ports that the test brings itself.

    A worker that fails makes the test fail.
    """
    defaults: dict[str, Any] = {
        "server_name": "test",
        "data_dir": data_dir,
        "database": DatabaseConfig() if POOL is None else DatabaseConfig(url=POOL.url_of(data_dir)),
        "registration": RegistrationConfig(mode="open"),
        "rate_limits": RateLimitsConfig(enabled=False),
    }
    ports = await open_ports(Config(**(defaults | settings)))
    own = {"password_cost": CHEAP, "clock": AheadClock()} | dict(replaced or {})
    built = assemble(msgspec.structs.replace(ports, **own))
    workers = [asyncio.create_task(worker.run(), name=worker.name) for worker in built.workers]
    try:
        yield Homeserver(built)
    finally:
        built.foundation.waiters.close()
        for task in workers:
            task.cancel()
        ends = await asyncio.gather(*workers, return_exceptions=True)
        await built.close()
    for end in ends:
        if isinstance(end, Exception):
            raise end


async def eventually(check: Callable[[], Awaitable[bool]]) -> None:
    """Wait until the background has brought about what `check` looks for. Raises: TimeoutError."""
    async with asyncio.timeout(60):
        while True:
            if await check():
                return
            await asyncio.sleep(0.01)
