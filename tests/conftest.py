"""What every test has around it."""

from collections.abc import Iterator

import pytest

from .postgres import POOL


@pytest.fixture(autouse=True)
def databases_of_this_test() -> Iterator[None]:
    """Set up before every other fixture, so that whoever uses the databases has ended when they are emptied."""
    yield
    if POOL is not None:
        POOL.end_test()


def pytest_sessionfinish() -> None:
    if POOL is not None:
        POOL.close()
