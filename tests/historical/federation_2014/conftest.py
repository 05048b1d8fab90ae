"""Peers by the protocol of 2014."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ...http.homeserver import Homeserver
from .network import Peers, Played, historical


@pytest.fixture
async def peers(tmp_path: Path) -> AsyncIterator[Peers]:
    """`await peers.pair()` starts one.test and two.test."""
    network = Peers(tmp_path)
    yield network
    await network.close()


@pytest.fixture
async def green(peers: Peers) -> Played:
    """A peer of blue.test, played by hand."""
    return Played(peers, "green")


@pytest.fixture
async def blue(peers: Peers, green: Played) -> Homeserver:
    """A homeserver whose only peer is green.test."""
    return await peers.server("blue", historical=historical("green"))
