"""What changed lately, and who waits for it.

Rules for this file: it holds no data, only (kind, key, position); and it never asks the database. A `Changes`
that has forgotten something says so (None), and the caller asks the tables. Hints come in the order of their
positions, and only when a read started now would see what they tell of.
"""

import asyncio
from array import array
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, TypeVar

import msgspec

from ranvier.io.clock import Clock
from ranvier.store.database import Hint, Kind

T = TypeVar("T")

LOG_LENGTH: Final = 200_000
"""How many changes of a kind are remembered, at least: at 1,000 a second the last three minutes."""

CATCH_UP_S: Final = 5.0
CATCH_UP_STEP_S: Final = 0.02
"""So long, and in such steps, a process may be behind another one of the same database."""

_KINDS: Final = (Kind.ROOM, Kind.USER, Kind.DEVICE_LIST, Kind.PRESENCE)
"""What clients hear of."""


class Changed(msgspec.Struct, frozen=True):
    """What concerns one user between two positions."""

    rooms: AbstractSet[int]  # room_nids, of those asked about
    user: bool  # the user's own data: account data, to-device messages, memberships, devices
    device_lists: AbstractSet[int]  # user_nids whose device lists changed, whether they share a room or not
    presence: AbstractSet[int] = frozenset()  # user_nids whose presence changed, likewise


_NONE: Final[frozenset[int]] = frozenset()
NOTHING: Final = Changed(_NONE, False, _NONE)


class _Log:
    """The changes of one kind, in the order of their positions, and the newest of each key."""

    __slots__ = ("keys", "newest", "positions")

    def __init__(self) -> None:
        # 16 bytes a change instead of 80.
        self.positions = array("q")
        self.keys = array("q")
        self.newest: dict[int, int] = {}

    def add(self, key: int, position: int) -> None:
        if self.positions:
            # Told late, it counts as having come now: that is too much for some, and too little for nobody.
            position = max(position, self.positions[-1])
        self.positions.append(position)
        self.keys.append(key)
        self.newest[key] = position

    def between(self, since: int, until: int) -> AbstractSet[int]:
        """The keys that changed in `(since, until]`."""
        if not self.positions or self.positions[-1] <= since:
            return _NONE
        start = bisect_right(self.positions, since)
        return set(self.keys[start : bisect_right(self.positions, until, start)])

    def of(self, keys: AbstractSet[int], since: int) -> AbstractSet[int]:
        """Those of `keys` that changed after `since`."""
        if not self.positions or self.positions[-1] <= since:
            return _NONE
        start = bisect_right(self.positions, since)
        if len(self.keys) - start < len(keys):
            return {key for key in self.keys[start:] if key in keys}
        newest = self.newest
        return {key for key in keys if newest.get(key, 0) > since}

    def trim(self, length: int) -> int:
        """Forget all but the newest `length`; the position up to which something is forgotten."""
        floor = self.positions[-length - 1]
        del self.positions[:-length], self.keys[:-length]
        self.newest = {key: position for key, position in self.newest.items() if position > floor}
        return floor


class Changes:
    """The newest position of every (kind, key) that changed lately, and the order in which they did."""

    def __init__(self, position: int, log_length: int = LOG_LENGTH) -> None:
        """`position`: what is known begins here; earlier changes are for the tables to tell."""
        self._floor = position
        self._newest = position
        self._log_length = log_length
        self._logs = {kind: _Log() for kind in _KINDS}

    def add(self, hints: Iterable[Hint]) -> None:
        """Remember changes, in the order of their commits."""
        for hint in hints:
            log = self._logs.get(hint.kind)
            if log is None:
                continue
            log.add(hint.key, hint.position)
            self._newest = max(self._newest, log.positions[-1])
            if len(log.keys) > 2 * self._log_length:
                self._floor = max(self._floor, log.trim(self._log_length))

    def forget(self, position: int) -> None:
        """Changes up to `position` may have been missed."""
        self._logs = {kind: _Log() for kind in _KINDS}
        self._floor = position
        self._newest = max(self._newest, position)

    def since(self, since: int, until: int, user_nid: int, rooms: AbstractSet[int]) -> Changed | None:
        """What changed for a user in `(since, until]`, or None when that is further back than is remembered.

        Of rooms and of the user, what changed after `until` may be told as well.
        Cost: nothing if nothing at all changed after `since`; else the number of rooms that did, or of `rooms`
        where that is less; and the users whose device lists or presence changed.
        """
        if since < self._floor:
            return None
        if since >= self._newest:
            return NOTHING
        logs = self._logs
        return Changed(
            logs[Kind.ROOM].of(rooms, since),
            logs[Kind.USER].newest.get(user_nid, 0) > since,
            logs[Kind.DEVICE_LIST].between(since, until),
            logs[Kind.PRESENCE].between(since, until),
        )

    def own_since(self, since: int, user_nid: int) -> bool:
        """Whether anything of a user's own may have changed after `since`."""
        return since < self._floor or self._logs[Kind.USER].newest.get(user_nid, 0) > since


Hear = Callable[["asyncio.Future[Any]"], object]
"""Called on the event loop, with what somebody awaits, each time when something changes. Must not block, and nobody
begins or ends to wait in it."""


class Wakeup:
    """One who waits: inside it, a future that is done when something changes."""

    __slots__ = ("_future", "_hear", "_waiting")

    def __init__(self, waiting: dict[asyncio.Future[Any], Hear], hear: Hear) -> None:
        self._waiting = waiting
        self._hear = hear
        self._future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def __enter__(self) -> asyncio.Future[Any]:
        self._waiting[self._future] = self._hear
        return self._future

    def __exit__(self, *_raised: object) -> None:
        self._waiting.pop(self._future, None)


class Subscription:
    """One user who waits now and then: which rooms wake them. Lives across polls."""

    __slots__ = ("rooms", "user_nid", "waiting")

    def __init__(self, user_nid: int) -> None:
        self.user_nid = user_nid
        self.rooms: frozenset[int] = frozenset()
        # In the order in which they came, as all of the kind below: a simulation must not depend on addresses.
        self.waiting: dict[asyncio.Future[Any], Hear] = {}

    def wakeup(self, hear: Hear | None = None) -> Wakeup:
        """A future that is done when something changes for this user from here on; or, with `hear`, when that
        has made it so.

        Whoever enters looks once more for changes before awaiting it, so that nothing falls in between.
        """
        return Wakeup(self.waiting, hear or settle)

    def wake(self) -> None:
        for future, hear in self.waiting.items():
            hear(future)


def settle(future: asyncio.Future[Any]) -> None:
    """Wake who awaits it, if nobody has yet."""
    if not future.done():
        future.set_result(None)


async def wait_for_news(woken: asyncio.Future[T | None], clock: Clock, seconds: float) -> T | None:
    """What somebody is woken with; None, too, if so many seconds have passed. A tenth of what a timeout around it
    costs.
    """
    timer = clock.call_later(seconds, partial(settle, woken))
    try:
        return await woken
    finally:
        timer.cancel()


async def has_reached(
    find_position: Callable[[], int], position: int, clock: Clock, is_closed: Callable[[], bool]
) -> bool:
    """Whether this process knows of `position`, after waiting a moment for it if need be: another process that
    answered the client before may have heard of its own changes, and of all others', sooner.

    `is_closed`: whether the server stops.
    """
    deadline = clock.monotonic() + CATCH_UP_S
    while find_position() < position:
        if clock.monotonic() >= deadline or is_closed():
            return False
        await clock.sleep(CATCH_UP_STEP_S)
    return True


class Waiters:
    """Who waits for what. Waking is by room or by user, and never looks at those who are not concerned."""

    def __init__(self) -> None:
        self._by_user: dict[int, Subscription] = {}
        self._by_room: defaultdict[int, dict[Subscription, None]] = defaultdict(dict)
        self._watchers: dict[Subscription, None] = {}
        self._on_close: list[Callable[[], None]] = []
        self.is_closed = False  # the server stops: nobody is to wait any more

    def close(self) -> None:
        """Let everybody answer now."""
        self.is_closed = True
        self.wake_all()
        for tell in self._on_close:
            tell()

    def when_closed(self, tell: Callable[[], None]) -> None:
        """Call `tell` when the server stops: for those who wait in other places."""
        self._on_close.append(tell)

    def subscribe(self, user_nid: int, rooms: frozenset[int]) -> Subscription:
        """The user's subscription, brought to `rooms`. Cost: the rooms that differ."""
        subscription = self._by_user.get(user_nid)
        if subscription is None:
            subscription = self._by_user[user_nid] = Subscription(user_nid)
        if subscription.rooms is not rooms:
            for room in subscription.rooms - rooms:
                self._leave(room, subscription)
            for room in rooms - subscription.rooms:
                self._by_room[room][subscription] = None
            subscription.rooms = rooms
        return subscription

    @contextmanager
    def watch_room(self, room_nid: int) -> Iterator[asyncio.Future[None]]:
        """A future as of `Subscription.wakeup`, for somebody who listens to one room from outside."""
        watcher = Subscription(0)
        self._by_room[room_nid][watcher] = self._watchers[watcher] = None
        try:
            with watcher.wakeup() as woken:
                yield woken
        finally:
            self._watchers.pop(watcher, None)
            self._leave(room_nid, watcher)

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
        for subscription in (*self._by_user.values(), *self._watchers):
            subscription.wake()

    def wake_user(self, user_nid: int) -> None:
        if (subscription := self._by_user.get(user_nid)) is not None:
            subscription.wake()

    def waiting_count(self) -> int:
        """How many requests wait now; for the metrics."""
        return sum(len(subscription.waiting) for subscription in self._by_user.values())

    def _leave(self, room: int, subscription: Subscription) -> None:
        members = self._by_room[room]
        members.pop(subscription, None)
        if not members:
            del self._by_room[room]
