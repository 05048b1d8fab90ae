"""A fresh server process for each test; nothing unexpected may stand in its log afterwards."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from .js_script import find_node
from .process import ServerProcess


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    process = ServerProcess(tmp_path)
    process.start()
    try:
        yield process
        process.stop()
        assert "Traceback" not in process.log(), process.log()[-5000:]
    finally:
        process.kill()


@pytest.fixture(scope="session")
def node() -> str:
    """The Node program."""
    return find_node()
