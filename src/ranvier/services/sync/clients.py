"""The clients that sync: where each stands, what it was told of its keys, and which messages it has got.

All of it is kept in memory, can be read or found out again, and is forgotten when a client stays away.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from ranvier.io.clock import Clock
from ranvier.services.changes import Changed, Changes, Subscription, Waiters, has_reached
from ranvier.services.requester import Requester
from ranvier.services.sync.answers import encode_answer
from ranvier.services.sync.reading import Result
from ranvier.services.sync.standing import Standing, read_standing
from ranvier.store.database import Database, WriteTxn

MAX_CLIENTS: Final = 20_000
IDLE_S: Final = 300.0
"""Who does not sync for so long is forgotten."""

SWEEP_S: Final = 60.0

RENOTED_S: Final = 24 * 3600.0
"""How often an acknowledgement is repeated, though nothing new was delivered: it shows that somebody syncs."""

Delete = Callable[[WriteTxn, int, int], int]
"""Deletes the messages of a device that it has got up to a position, some at a time; how many."""


class Acknowledged:
    """Messages to devices that have arrived there: to be deleted, soon."""

    name = "to-device acknowledgements"

    def __init__(self, db: Database, delete: Delete, *, notes_beginnings: bool = False) -> None:
        """`notes_beginnings`: `delete` wants to hear of devices, too, that have got nothing yet."""
        self._db = db
        self._delete = delete
        self._notes_beginnings = notes_beginnings
        self._positions: dict[int, int] = {}  # device_nid -> up to where
        self._some = asyncio.Event()

    def note(self, device_nid: int, position: int) -> None:
        """The device has got everything up to a position; nothing at all is up to 0."""
        if not position and not self._notes_beginnings:
            return
        self._positions[device_nid] = position
        self._some.set()

    async def run(self) -> None:
        """Delete them. What is lost with the process is noted again by the device's next request."""
        while True:
            await self._some.wait()
            self._some.clear()
            while self._positions:
                device_nid, position = self._positions.popitem()
                while await self._db.write(self._delete, device_nid, position):
                    pass


class Client:
    """One device of a user."""

    __slots__ = ("_acknowledged", "_delivered", "_noted_s", "keys_told", "requester", "seen_s", "standing")

    def __init__(self, requester: Requester, acknowledged: Acknowledged) -> None:
        self.requester = requester
        self.standing: Standing | None = None
        self.seen_s = 0.0
        self.keys_told: bytes | None = None
        self._acknowledged = acknowledged
        self._noted_s = 0.0
        self._delivered: int | None = 0  # position of the last message; None: nothing to acknowledge

    def acknowledge(self, since: int) -> None:
        """The device has got all up to `since`."""
        device_nid = self.requester.device_nid
        if device_nid is None:
            return
        is_due = self._delivered is None and self.seen_s - self._noted_s > RENOTED_S
        if is_due or (self._delivered is not None and since >= self._delivered):
            self._delivered = None
            self._noted_s = self.seen_s
            self._acknowledged.note(device_nid, since)

    def may_have_got(self, position: int) -> None:
        """Another process may have given messages up to a position to the device."""
        self._delivered = max(position, self._delivered or 0)

    def answered(self, result: Result) -> bytes:
        """The body of the response to a result, noting what it brings."""
        if result.delivered is not None:
            self._delivered = result.delivered
        self.keys_told = result.standing.keys
        return encode_answer(result.now, (), self.keys_told) if result.body is None else result.body


class Standings:
    """Where clients stand, kept while they poll."""

    name = "idle clients"

    def __init__(
        self,
        db: Database,
        changes: Changes,
        waiters: Waiters,
        clock: Clock,
        acknowledged: Acknowledged,
        *,
        is_shared: bool,
    ) -> None:
        """`is_shared`: whether there may be other processes on the database."""
        self._db = db
        self._changes = changes
        self._waiters = waiters
        self._clock = clock
        self.acknowledged = acknowledged
        self._is_shared = is_shared
        self._clients: OrderedDict[tuple[int, int | None], Client] = OrderedDict()

    def client(self, requester: Requester) -> Client:
        """The requester's client."""
        key = (requester.user_nid, requester.device_nid)
        client = self._clients.get(key)
        if client is None:
            client = self._clients[key] = Client(requester, self.acknowledged)
            if len(self._clients) > MAX_CLIENTS:
                self._forget_oldest()
        else:
            self._clients.move_to_end(key)
        client.requester = requester
        client.seen_s = self._clock.monotonic()
        return client

    async def read(self, client: Client) -> Standing:
        """Where the client stands now, or stood a moment ago.

        Cost: nothing if nothing of the user's own changed; else 4 or 5 queries.
        """
        known = self.recall(client)
        if known is not None:
            return known
        now, requester = self._db.position(), client.requester
        standing = await self._db.read(
            read_standing, requester.user_nid, requester.device_nid, now, client.standing
        )
        client.standing = standing
        if self._is_shared:
            client.may_have_got(now)
        return standing

    def recall(self, client: Client) -> Standing | None:
        """Where the client stands now, if nothing of the user's own changed since that was read."""
        now, old = self._db.position(), client.standing
        if old is None or old.position == now:
            return old
        if self._changes.own_since(old.position, client.requester.user_nid):
            return None
        client.standing = old.at(now)
        return client.standing

    async def has_reached(self, position: int) -> bool:
        """As `changes.has_reached`."""
        return await has_reached(self._db.position, position, self._clock, lambda: self._waiters.is_closed)

    def changed(self, client: Client, since: int) -> Changed | None:
        """What changed for the client since a position; None: it cannot be told from memory."""
        standing = client.standing
        assert standing is not None, "it was read just now"
        return self._changes.since(since, standing.position, client.requester.user_nid, standing.rooms)

    def subscription(self, client: Client) -> Subscription:
        """What wakes the client."""
        assert client.standing is not None, "it was read just now"
        return self._waiters.subscribe(client.requester.user_nid, client.standing.rooms)

    async def run(self) -> None:
        """Forget those who stay away, for ever."""
        while True:
            await self._clock.sleep(SWEEP_S)
            while self._clients:
                oldest = next(iter(self._clients.values()))
                if oldest.seen_s > self._clock.monotonic() - IDLE_S:
                    break
                self._forget_oldest()

    def _forget_oldest(self) -> None:
        _, client = self._clients.popitem(last=False)
        self._waiters.unsubscribe(client.requester.user_nid)
