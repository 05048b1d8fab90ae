"""What the bodies of requests may take in memory while they come and are worked on.

A signature of another server covers the body, so it is here before anybody knows who sends it; and it may come slowly.
"""

from collections import Counter
from typing import Final

from ranvier.core.errors import LimitExceeded

MAX_BYTES: Final = 256 * 1024 * 1024
MAX_OF_ONE: Final = MAX_BYTES // 2
"""Those of one network."""

UNCOUNTED_BYTES: Final = 65_536
"""Smaller bodies do not count: nearly all are."""

RETRY_MS: Final = 5_000


class BodyBudget:
    """Who has taken how much. Event loop only."""

    def __init__(self, max_bytes: int = MAX_BYTES, max_of_one: int = MAX_OF_ONE) -> None:
        self._max_bytes = max_bytes
        self._max_of_one = max_of_one
        self._taken: Counter[str] = Counter()
        self._total = 0

    def take(self, network: str, count: int) -> None:
        """So many bytes more are here. Raises: LimitExceeded, and then nothing is taken."""
        if self._total + count > self._max_bytes or self._taken[network] + count > self._max_of_one:
            raise LimitExceeded("There are too many large requests.", retry_after_ms=RETRY_MS)
        self._taken[network] += count
        self._total += count

    def give_back(self, network: str, count: int) -> None:
        self._total -= count
        self._taken[network] -= count
        if not self._taken[network]:
            del self._taken[network]


class Share:
    """What one request has of the budget."""

    __slots__ = ("_budget", "_count", "_network")

    def __init__(self, budget: BodyBudget, network: str) -> None:
        self._budget = budget
        self._network = network
        self._count = 0

    def grow_to(self, count: int) -> None:
        """The body has so many bytes by now. Raises: LimitExceeded."""
        if count > UNCOUNTED_BYTES:
            self._budget.take(self._network, count - self._count)
            self._count = count

    def end(self) -> None:
        """The request is answered."""
        if self._count:
            self._budget.give_back(self._network, self._count)
            self._count = 0
