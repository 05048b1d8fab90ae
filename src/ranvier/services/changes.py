"""What changed lately, and who waits for it.

Rules for this file: it holds no data, only (kind, key, position); and it never asks the database. A `Changes`
that has forgotten something says so (None), and the caller asks the tables. Hints come in the order of their
positions, and only when a read started now would see what they tell of.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from typing import Final

import msgspec

from ranvier.store.database import Hint, Kind

LOG_LENGTH: Final = 200_000
"""How many changes are remembered: at 1,000 a second the last three minutes."""


class Changed(msgspec.Struct, frozen=True):
    """What concerns one user between two positions."""

    rooms: AbstractSet[int]  # room_nids, of those asked about
    user: bool  # the user's own data: account data, to-device messages, memberships, devices
    device_lists: AbstractSet[int]  # user_nids whose device lists changed, whether they share a room or not
    presence: AbstractSet[int] = frozenset()  # user_nids whose presence changed, likewise


class Changes:
    """The newest position of every (kind, key) that changed lately, and the order in which they did."""

    def __init__(self, position: int, log_length: int = LOG_LENGTH) -> None:
        """`position`: what is known begins here; earlier changes are for the tables to tell."""
        self._floor = position
        self._log: deque[Hint] = deque()
        self._log_length = log_length
        self._newest: dict[tuple[Kind, int], int] = {}

    def add(self, hints: Iterable[Hint]) -> None:
        """Remember changes, in the order of their commits."""
        for hint in hints:
            self._log.append(hint)
            self._newest[(hint.kind, hint.key)] = hint.position
        while len(self._log) > self._log_length:
            dropped = self._log.popleft()
            self._floor = max(self._floor, dropped.position)
            if self._newest.get((dropped.kind, dropped.key), 0) <= self._floor:
                self._newest.pop((dropped.kind, dropped.key), None)

    def forget(self, position: int) -> None:
        """Changes up to `position` may have been missed."""
        self._log.clear()
        self._newest.clear()
        self._floor = position

    def since(self, since: int, until: int, user_nid: int, rooms: AbstractSet[int]) -> Changed | None:
        """What changed for a user in `(since, until]`, or None when that is further back than is remembered.

        Cost: the number of changes after `since`, or of `rooms` where that is less.
        """
        if since < self._floor:
            return None
        recent = self._after(since)
        if len(recent) > len(rooms):
            changed_rooms = {room for room in rooms if self._newest.get((Kind.ROOM, room), 0) > since}
        else:
            changed_rooms = {hint.key for hint in recent if hint.kind is Kind.ROOM and hint.key in rooms}
        return Changed(
            changed_rooms,
            self._newest.get((Kind.USER, user_nid), 0) > since,
            {hint.key for hint in recent if hint.kind is Kind.DEVICE_LIST and hint.position <= until},
            {hint.key for hint in recent if hint.kind is Kind.PRESENCE and hint.position <= until},
        )

    def _after(self, since: int) -> Sequence[Hint]:
        """The remembered changes with a position above `since`, newest first."""
        found = []
        for hint in reversed(self._log):
            if hint.position <= since:
                break
            found.append(hint)
        return found


class Subscription:
    """One user who waits now and then: which rooms wake them. Lives across polls."""

    __slots__ = ("rooms", "user_nid", "waiting")

    def __init__(self, user_nid: int) -> None:
        self.user_nid = user_nid
        self.rooms: frozenset[int] = frozenset()
        self.waiting: set[asyncio.Future[None]] = set()

    @contextmanager
    def wakeup(self) -> Iterator[asyncio.Future[None]]:
        """A future that is done when something changes for this user from here on.

        Whoever enters looks once more for changes before awaiting it, so that nothing falls in between.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.add(future)
        try:
            yield future
        finally:
            self.waiting.discard(future)

    def wake(self) -> None:
        for future in self.waiting:
            if not future.done():
                future.set_result(None)


class Waiters:
    """Who waits for what. Waking is by room or by user, and never looks at those who are not concerned."""

    def __init__(self) -> None:
        self._by_user: dict[int, Subscription] = {}
        self._by_room: defaultdict[int, set[Subscription]] = defaultdict(set)
        self.is_closed = False  # the server stops: nobody is to wait any more

    def close(self) -> None:
        """Let everybody answer now."""
        self.is_closed = True
        self.wake_all()

    def subscribe(self, user_nid: int, rooms: frozenset[int]) -> Subscription:
        """The user's subscription, brought to `rooms`. Cost: the rooms that differ."""
        subscription = self._by_user.get(user_nid)
        if subscription is None:
            subscription = self._by_user[user_nid] = Subscription(user_nid)
        if subscription.rooms is not rooms:
            for room in subscription.rooms - rooms:
                self._leave(room, subscription)
            for room in rooms - subscription.rooms:
                self._by_room[room].add(subscription)
            subscription.rooms = rooms
        return subscription

    def unsubscribe(self, user_nid: int) -> None:
        """Forget a user who has not polled for long. Does nothing while one of their requests waits."""
        subscription = self._by_user.get(user_nid)
        if subscription is not None and not subscription.waiting:
            del self._by_user[user_nid]
            for room in subscription.rooms:
                self._leave(room, subscription)

    def wake(self, hints: Iterable[Hint]) -> None:
        """Wake whoever a hint of kind ROOM or USER concerns.

        A changed device list concerns those who share a room with its owner; who that is stands in the
        tables, so whoever can ask them calls `wake_rooms` for it.
        """
        for hint in hints:
            if hint.kind is Kind.ROOM:
                self.wake_rooms((hint.key,))
            elif hint.kind is Kind.USER:
                self.wake_user(hint.key)

    def wake_rooms(self, rooms: Iterable[int]) -> None:
        for room in rooms:
            for subscription in self._by_room.get(room, ()):
                subscription.wake()

    def wake_all(self) -> None:
        """Let everybody look: hints were lost, or the server stops."""
        for subscription in self._by_user.values():
            subscription.wake()

    def wake_user(self, user_nid: int) -> None:
        if (subscription := self._by_user.get(user_nid)) is not None:
            subscription.wake()

    def waiting_count(self) -> int:
        """How many requests wait now; for the metrics."""
        return sum(len(subscription.waiting) for subscription in self._by_user.values())

    def _leave(self, room: int, subscription: Subscription) -> None:
        members = self._by_room[room]
        members.discard(subscription)
        if not members:
            del self._by_room[room]
