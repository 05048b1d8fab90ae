"""Wakes those who share a room with a user whose devices or presence changed.

Who that is stands in the tables, so it is asked for once for all who changed, and not by each who waits.
"""

import asyncio
from collections.abc import Collection, Sequence

from ranvier.services.changes import Waiters
from ranvier.store.database import Database, Hint, Kind, ReadTxn
from ranvier.store.tables.memberships import list_joined_rooms_of


class CompanyWaker:
    """A worker that turns hints about users into hints about rooms."""

    name = "company waker"

    def __init__(self, db: Database, waiters: Waiters) -> None:
        self._db = db
        self._waiters = waiters
        self._changed: set[int] = set()
        self._some = asyncio.Event()

    def hear(self, hints: Sequence[Hint]) -> None:
        """Take in the hints of a commit. The users themselves are woken at once."""
        for hint in hints:
            if hint.kind in (Kind.DEVICE_LIST, Kind.PRESENCE):
                self._waiters.wake_user(hint.key)
                self._changed.add(hint.key)
                self._some.set()

    async def run(self) -> None:
        """Wake, for ever. A hint that is lost with the process is heard by the next request of each client."""
        while True:
            await self._some.wait()
            self._some.clear()
            changed, self._changed = self._changed, set()
            self._waiters.wake_rooms(await self._db.read(_list_rooms, changed))


def _list_rooms(txn: ReadTxn, user_nids: Collection[int]) -> set[int]:
    return list_joined_rooms_of(txn, user_nids)
