"""What was used lately, kept in memory up to a bound that counts what it takes and not only how much of it there is.

Where somebody else says what is kept, few large ones must cost no more than many small ones.
"""

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Values by key, as far as their weights together allow; the least recently used go first. Any thread."""

    def __init__(self, max_weight: int) -> None:
        self._max_weight = max_weight
        self._weight = 0
        self._kept: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def weight(self) -> int:
        """Of all that is kept."""
        return self._weight

    def get(self, key: K) -> V | None:
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None
            self._kept.move_to_end(key)
            return found[0]

    def keep(self, key: K, value: V, weight: int) -> None:
        """Keep a value, or the same one with another weight. One that is too heavy by itself is not kept."""
        with self._lock:
            self._drop(key)
            if weight > self._max_weight:
                return
            self._kept[key] = value, weight
            self._weight += weight
            while self._weight > self._max_weight:
                _, (_, gone) = self._kept.popitem(last=False)
                self._weight -= gone

    def forget(self, key: K) -> None:
        with self._lock:
            self._drop(key)

    def _drop(self, key: K) -> None:
        known = self._kept.pop(key, None)
        if known is not None:
            self._weight -= known[1]
