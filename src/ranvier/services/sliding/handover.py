"""What other processes of this homeserver know of a client: asked for when one comes that another answered before.

Whoever gave an answer keeps in memory what the client that has it knows, and stores it when somebody asks; so a client
that stays with one process costs nobody a write, and one that wanders finds what it knows wherever it comes to.
Asked and answered with hints, for the tables carry what is to be told.
"""

import asyncio
from collections import defaultdict
from functools import partial
from typing import Final

from ranvier.core.tokens import SlidingToken
from ranvier.io.clock import Clock
from ranvier.services.changes import settle
from ranvier.store.database import Database, Kind, WriteTxn

WAIT_S: Final = 1.0
"""So long one waits for another process. Who knew it may have ended; then the client is told more than it has to be."""

_SHIFT: Final = 63
"""Bits of the name of an answer."""


class Handover:
    """Asks, and hears when what it asked for is stored. Event loop only."""

    def __init__(self, db: Database, clock: Clock, *, is_shared: bool) -> None:
        """`is_shared`: whether there may be other processes on the database."""
        self._db = db
        self._clock = clock
        self._is_shared = is_shared
        self._awaited: defaultdict[int, set[asyncio.Future[None]]] = defaultdict(set)

    async def ask(self, token: SlidingToken) -> None:
        """Return when somebody has stored what the client knows that has this position, or nobody will."""
        if not self._is_shared:
            return
        name = name_of(token.life, token.answer)
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._awaited[name].add(stored)
        timer = self._clock.call_later(WAIT_S, partial(settle, stored))
        try:
            await self._db.write(_want, name)
            await stored
        finally:
            timer.cancel()
            self._awaited[name].discard(stored)
            if not self._awaited[name]:
                del self._awaited[name]

    def hear_stored(self, name: int) -> None:
        """Somebody has stored it."""
        for future in self._awaited.get(name, ()):
            settle(future)


def name_of(life: int, answer: int) -> int:
    """One number for the answer of a connection: the key of hints."""
    return life << _SHIFT | answer


def read_name(name: int) -> tuple[int, int]:
    """The connection's life and the answer."""
    return name >> _SHIFT, name & ((1 << _SHIFT) - 1)


def _want(txn: WriteTxn, name: int) -> None:
    txn.hint(Kind.ANSWER_WANTED, name)
