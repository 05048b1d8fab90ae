"""Which settled positions a process may tell of on PostgreSQL, where hints of others take their time.

Whoever follows changes by hints takes a position for what it says: nothing up to it is left to hear of. But a
transaction of another process can be seen a moment before its notification is here. So after each observation the
observer notifies itself: with a *mark*. PostgreSQL delivers notifications in the order of their commits. When the
listener hears the mark, it has heard every hint of every transaction that had ended when the observation was made.

The hints of a transaction that took several positions go with the last of them. Until that is settled, positions
between its first and its last are not told either.

The writer and the listener both find out what may be told. It is told under the lock: else one of them could tell a
position while the other, which has taken the hints below it, is on its way.
"""

from collections.abc import Callable, Iterable
from itertools import count
from threading import Lock
from typing import Final

from ranvier.store.database import Hint, Kind
from ranvier.store.positions import Observation, Settlement
from ranvier.store.threads import News

MAX_HINTS: Final = 10_000
"""Kept while they are not told. Beyond that they are dropped, and a gap is told."""

MAX_MARKS: Final = 1_000
"""Kept while they are not heard. One that is missing costs latency only, until the next."""


class Telling:
    """Safe to use from several threads."""

    def __init__(self, settlement: Settlement, tell: Callable[[News], None]) -> None:
        """`tell` is called on any thread, in the order of positions; it must not block."""
        self._settlement = settlement
        self._tell = tell
        self._lock = Lock()
        self._numbers = count(1)
        self._observed: dict[int, int] = {}  # mark -> what was settled; it is not heard yet
        self._heard: dict[int, int] = {}  # marks whose observation is not here yet
        self._hints: list[tuple[int, Hint]] = []  # with the first position of the transaction
        self._overflowed = False
        self.position = 0

    @property
    def is_waiting(self) -> bool:
        """Whether another observation would help somebody."""
        with self._lock:
            is_held = (self._hints or self._overflowed) and not self._observed
            return bool(is_held or self._settlement.is_waiting)

    def next_mark(self) -> int:
        """For an observation that is about to be made."""
        return next(self._numbers)

    def hold(self, hints: Iterable[Hint], first: int) -> None:
        """Keep the hints of a transaction until they may be told. `first`: the first position that it took, if it did.

        The process's own are held before the transaction ends, so that no mark overtakes them.
        """
        with self._lock:
            self._hints.extend((first, hint) for hint in hints)
            if len(self._hints) > MAX_HINTS:
                self._hints.clear()
                self._overflowed = True

    def observed(self, mark: int, seen: Observation) -> None:
        """Take in an observation; tell the news, if its mark was heard before."""
        settled = self._settlement.observe(seen)
        with self._lock:
            if mark in self._heard:
                del self._heard[mark]
                self._release(settled)
            else:
                _add(self._observed, mark, settled)

    def heard(self, mark: int) -> None:
        """The listener has heard a mark; tell the news, if its observation is here."""
        with self._lock:
            settled = self._observed.pop(mark, None)
            if settled is not None:
                self._release(settled)
            else:
                _add(self._heard, mark, 0)

    def end(self, why: str) -> None:
        """Tell that this program can use the database no longer."""
        self._tell(News(self.position, outdated=why))

    def lose_marks(self) -> None:
        """Those that are not heard yet will never be: the listener was cut off."""
        with self._lock:
            self._observed.clear()

    def _release(self, settled: int) -> None:
        position = settled
        for first, hint in sorted(self._hints, key=lambda held: held[0], reverse=True):
            if first <= position < hint.position:
                position = first - 1
        self.position = position = max(self.position, position)
        ready = [hint for _, hint in self._hints if hint.position <= position]
        self._hints = [held for held in self._hints if held[1].position > position]
        if self._overflowed:
            ready.append(Hint(Kind.GAP, 0, position))
            self._overflowed = self._settlement.is_waiting
        self._tell(News(position, ready))


def _add(kept: dict[int, int], mark: int, settled: int) -> None:
    kept[mark] = settled
    if len(kept) > MAX_MARKS:
        del kept[next(iter(kept))]
