"""Waiting for a room's state to be whole, where it was entered with a part of it."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from ranvier.core.errors import LimitExceeded
from ranvier.core.identifiers import RoomID
from ranvier.io.clock import Clock
from ranvier.store.database import Database, Hint, Kind, ReadTxn
from ranvier.store.tables import rooms

MAX_WAIT_S: Final = 60.0
"""How long a client waits for the members of a room; it may ask again then."""

_RETRY_MS: Final = 10_000

Find = Callable[[ReadTxn, RoomID], int | None]
"""The number of the room, while it is to be waited for."""


class Wholeness:
    """Tells when rooms are whole."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._waiting: dict[int, set[asyncio.Event]] = {}
        db.subscribe(self._hear)

    async def require(self, room_id: RoomID) -> None:
        """Return when all members of the room are known here; at once if the room is not known at all.

        Raises: LimitExceeded: the client is to come again.
        """
        if not await self.wait(room_id, MAX_WAIT_S):
            raise LimitExceeded("Not all members of this room are known here yet.", retry_after_ms=_RETRY_MS)

    async def wait(self, room_id: RoomID, seconds: float, find: Find | None = None) -> bool:
        """Wait until the room is whole, but no longer than `seconds`; whether it is. `find` tells of something else
        that is waited for.

        Cost: 1 query where there is nothing to wait for.
        """
        find = _find_partial if find is None else find
        nid = await self._db.read(find, room_id)
        if nid is None:
            return True
        changed = asyncio.Event()
        self._waiting.setdefault(nid, set()).add(changed)
        try:
            async with self._clock.timeout(seconds):
                while await self._db.read(find, room_id) is not None:
                    await changed.wait()
                    changed.clear()
        except TimeoutError:
            return False
        finally:
            self._waiting[nid].discard(changed)
            if not self._waiting[nid]:
                del self._waiting[nid]
        return True

    def _hear(self, hints: Sequence[Hint]) -> None:
        if not self._waiting:
            return
        all_rooms = any(hint.kind is Kind.GAP for hint in hints)
        changed = {hint.key for hint in hints if hint.kind is Kind.ROOM}
        for nid, waiting in self._waiting.items():
            if all_rooms or nid in changed:
                for one in waiting:
                    one.set()


def _find_partial(txn: ReadTxn, room_id: RoomID) -> int | None:
    """The number of the room, if its state is not whole."""
    room = rooms.find_room(txn, room_id)
    return None if room is None or not room.is_partial else room.room_nid
