"""The homeserver that HTTP tests talk to."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from .administrators import register_admin
from .homeserver import Homeserver, User, running_homeserver


@pytest.fixture
async def homeserver(tmp_path: Path) -> AsyncIterator[Homeserver]:
    """Open registration, no rate limits."""
    async with running_homeserver(tmp_path / "data") as running:
        yield running


@pytest.fixture
async def start_homeserver(tmp_path: Path) -> AsyncIterator[Callable]:
    """Starts a homeserver with settings of the test's own: `await start_homeserver(registration=…)`."""
    async with AsyncExitStack() as stack:
        started = 0

        async def start(**settings: object) -> Homeserver:
            nonlocal started
            started += 1
            return await stack.enter_async_context(
                running_homeserver(tmp_path / f"data{started}", **settings)
            )

        yield start


@pytest.fixture
async def alice(homeserver: Homeserver) -> User:
    return await homeserver.register("alice")


@pytest.fixture
async def bob(homeserver: Homeserver) -> User:
    return await homeserver.register("bob")


@pytest.fixture
async def carol(homeserver: Homeserver) -> User:
    return await homeserver.register("carol")


@pytest.fixture
async def admin(homeserver: Homeserver) -> User:
    return await register_admin(homeserver)
