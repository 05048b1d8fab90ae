"""Homeservers that federate."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ..store.conftest import postgres_database, postgres_server
from .network import Network

__all__ = ["network", "postgres_database", "postgres_server"]


@pytest.fixture
async def network(tmp_path: Path) -> AsyncIterator[Network]:
    """`await network.server("one")` starts the homeserver one.test, with open registration."""
    network = Network(tmp_path)
    yield network
    await network.close()
