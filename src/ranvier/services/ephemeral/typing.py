"""Who is typing, and the worker that ends it when nobody said so. Spec: client-server API, "Typing Notifications"."""

import asyncio
from typing import Final

from ranvier.core.errors import Forbidden
from ranvier.core.identifiers import RoomID
from ranvier.io.clock import Clock
from ranvier.services.ephemeral.joined import find_joined_room
from ranvier.services.ephemeral.presence import PresenceTracker
from ranvier.services.recent import Recent
from ranvier.services.requester import Requester
from ranvier.services.rooms.live import LiveRooms
from ranvier.store.database import Database
from ranvier.store.tables import typing

DEFAULT_TIMEOUT_MS: Final = 30_000

MAX_TIMEOUT_MS: Final = 55_000
"""However long a client asks for: one that died is seen typing no longer. Other servers forget after a minute who is
not told to them again."""

RENEWAL_MS: Final = 20_000
"""Who goes on typing is told again so often: other servers are to remember it."""

MIN_TIMEOUT_MS: Final = 1_000


MAX_TYPISTS: Final = 100_000
"""Of whom it is remembered when others were told."""


class Typing:
    """Starts and stops it for users of this server."""

    def __init__(self, db: Database, live: LiveRooms, clock: Clock, presence: PresenceTracker) -> None:
        self._db = db
        self._live = live
        self._clock = clock
        self._presence = presence
        # (room_nid, user_nid) -> when all were told. Another process may end what this one began.
        self._told_ms: Recent[tuple[int, int], int] = Recent(MAX_TYPISTS)
        self._deadline_ms: int | None = None
        self._is_earlier = asyncio.Event()

    async def set_typing(
        self, requester: Requester, room_id: RoomID, user_id: str, timeout_ms: int | None
    ) -> None:
        """`user_id` types in the room for `timeout_ms`, cut to our bounds; None: not any more.

        Raises: Forbidden (another user, or not joined).
        """
        if user_id != requester.user_id:
            raise Forbidden("You can tell only of yourself that you are typing.")
        room = await find_joined_room(self._live, room_id, requester.user_id)
        self._presence.note_activity(requester)
        who = room.nid, requester.user_nid
        if timeout_ms is None:
            self._told_ms.forget(who)
            await self._db.write(typing.stop_typing, *who)
            return
        now_ms = self._clock.now_ms()
        until_ms = now_ms + max(MIN_TIMEOUT_MS, min(timeout_ms, MAX_TIMEOUT_MS))
        told_ms = self._told_ms.get(who)
        is_renewed = told_ms is not None and now_ms - told_ms >= RENEWAL_MS
        if told_ms is None or is_renewed:
            self._told_ms.keep(who, now_ms, 1)
        await self._db.write(typing.start_typing, *who, until_ms, is_renewed=is_renewed)
        self.expect(until_ms)

    def expect(self, until_ms: int) -> None:
        """Somebody types until then: `expire` is to look by that time."""
        if self._deadline_ms is None or until_ms < self._deadline_ms:
            self._deadline_ms = until_ms
            self._is_earlier.set()

    async def expire(self) -> None:
        """End what is past its deadline, for ever. A process ends also what another one began and left behind."""
        self._deadline_ms = await self._db.read(typing.find_next_deadline)
        while True:
            await self._wait()
            now_ms = self._clock.now_ms()
            for who in await self._db.write(typing.stop_expired, now_ms):
                self._told_ms.forget(who)
            self._deadline_ms = None
            deadline_ms = await self._db.read(typing.find_next_deadline)
            if deadline_ms is not None:
                self.expect(deadline_ms)

    async def _wait(self) -> None:
        """Return when the earliest deadline has passed."""
        while (deadline_ms := self._deadline_ms) is None or (left := deadline_ms - self._clock.now_ms()) > 0:
            self._is_earlier.clear()
            try:
                async with self._clock.timeout(None if deadline_ms is None else left / 1000):
                    await self._is_earlier.wait()
            except TimeoutError:
                continue


class TypingExpiry:
    """The worker."""

    name = "typing-expiry"

    def __init__(self, typing: Typing) -> None:
        self._typing = typing

    async def run(self) -> None:
        await self._typing.expire()
