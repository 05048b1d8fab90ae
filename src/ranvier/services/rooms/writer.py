"""Appends to rooms: one of a room is under way at a time, and takes along all that was queued meanwhile.

So a busy room costs one commit for many events, and on PostgreSQL, where transactions run side by side, the
appends of one room still come in the order in which they were built.
"""

import asyncio
from collections.abc import Sequence
from typing import Final, Protocol

import msgspec

from ranvier.core.events.pdu import Pdu
from ranvier.io.clock import Clock
from ranvier.services.rooms.live import LiveRoom, LiveRooms
from ranvier.services.rooms.summaries import store_summary
from ranvier.store.database import Conflict, Database, WriteTxn
from ranvier.store.tables import rooms
from ranvier.store.tables.append import append, remember_appended
from ranvier.store.tables.interned import Interner
from ranvier.store.tables.prepared import Appended, Batch, PreparedEvent
from ranvier.store.tables.state_nodes import NodeCache

MAX_BATCH: Final = 200
"""Events in one append."""


class Item(msgspec.Struct, frozen=True):
    """An event to append, and what it does besides being in its room."""

    prepared: PreparedEvent
    effect: object


class Effects(Protocol):
    """What events do besides being in their room: whom they notify."""

    async def load(self, room: LiveRoom) -> None:
        """Bring into memory what `of` looks at."""

    def of(self, room: LiveRoom, pdu: Pdu) -> object:
        """What `pdu` does, built on the room's pending head. Never waits, never raises."""

    def store(self, txn: WriteTxn, room_nid: int, effects: Sequence[tuple[int, object]]) -> None:
        """Write what events (by event_nid) do, in the transaction that appends them."""


class RoomWriters:
    """The appends under way."""

    def __init__(
        self,
        db: Database,
        live: LiveRooms,
        interner: Interner,
        nodes: NodeCache,
        effects: Effects,
        clock: Clock,
    ) -> None:
        self._db = db
        self._live = live
        self._interner = interner
        self._nodes = nodes
        self._effects = effects
        self._clock = clock
        self._queues: dict[int, _Queue] = {}

    async def prepare(self, room: LiveRoom) -> None:
        """Make sure that `effect_of` need not wait."""
        await self._effects.load(room)

    def effect_of(self, room: LiveRoom, pdu: Pdu) -> object:
        """What an event built on the room's pending head does besides being there; goes into its `Item`."""
        return self._effects.of(room, pdu)

    async def append(self, room: LiveRoom, items: Sequence[Item]) -> None:
        """Append events that were built on the room's pending head; return when they are on disk.

        The queueing happens before the first await. A cancelled caller does not undo it.

        Raises: Conflict when the room is not what they were built on; StoreFault.
        """
        if room.is_stale:
            raise Conflict("the room was read anew")
        queue = self._queues.get(room.nid)
        if queue is None:
            queue = self._queues[room.nid] = _Queue(room)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.waiting.append((items, done))
        if queue.task is None:
            queue.task = asyncio.create_task(self._work(queue))
        await asyncio.shield(done)

    async def create(self, room: LiveRoom, items: Sequence[Item]) -> None:
        """Make a room of its first events; return when they are on disk.

        Raises: StoreFault.
        """
        room.nid, appended = await self._db.write(self._create, room, items)
        self._remember(room, appended)
        self._live.add(room)

    async def _work(self, queue: "_Queue") -> None:
        """Append what is queued until nothing is. A failure ends it: the rest was built on what failed."""
        while queue.waiting:
            batch = queue.take()
            try:
                appended = await self._db.write(
                    self._append, queue.room, [item for part, _ in batch for item in part]
                )
            except Exception as error:
                # The room in memory is ahead of the database now.
                self._live.drop(queue.room)
                del self._queues[queue.room.nid]
                queue.fail(batch, error)
                return
            self._remember(queue.room, appended)
            for _, done in batch:
                if not done.done():
                    done.set_result(None)
        del self._queues[queue.room.nid]

    def _remember(self, room: LiveRoom, appended: Appended) -> None:
        room.revision = appended.revision
        remember_appended(self._interner, self._nodes, appended)

    def _create(self, txn: WriteTxn, room: LiveRoom, items: Sequence[Item]) -> tuple[int, Appended]:
        row = rooms.insert_room(txn, room.room_id, room.version.name)
        if row.extremities:
            raise Conflict("the room exists")
        return row.room_nid, self._append_to(txn, row.room_nid, row.revision, items)

    def _append(self, txn: WriteTxn, room: LiveRoom, items: Sequence[Item]) -> Appended:
        return self._append_to(txn, room.nid, room.revision, items)

    def _append_to(self, txn: WriteTxn, room_nid: int, revision: int, items: Sequence[Item]) -> Appended:
        prepared = tuple([item.prepared for item in items])
        batch = Batch(room_nid=room_nid, events=prepared, now_ms=self._clock.now_ms(), revision=revision)
        appended = append(txn, self._interner, self._nodes, batch)
        effects = [
            (nid, item.effect)
            for nid, item in zip(appended.event_nids, items, strict=True)
            if item.effect is not None
        ]
        if effects:
            self._effects.store(txn, room_nid, effects)
        store_summary(txn, room_nid, [event.pdu for event in prepared])
        return appended


class _Queue:
    """What waits to be appended to one room."""

    __slots__ = ("room", "task", "waiting")

    def __init__(self, room: LiveRoom) -> None:
        self.room = room
        self.waiting: list[tuple[Sequence[Item], asyncio.Future[None]]] = []
        self.task: asyncio.Task[None] | None = None

    def take(self) -> list[tuple[Sequence[Item], asyncio.Future[None]]]:
        """The next requests, oldest first, with at most MAX_BATCH events unless the first alone has more."""
        count = 0
        for index, (items, _) in enumerate(self.waiting):
            count += len(items)
            if count > MAX_BATCH and index:
                taken, self.waiting = self.waiting[:index], self.waiting[index:]
                return taken
        taken, self.waiting = self.waiting, []
        return taken

    def fail(self, batch: Sequence[tuple[Sequence[Item], asyncio.Future[None]]], error: Exception) -> None:
        """Tell those of `batch` what went wrong, and those behind it that they are to build anew."""
        for _, done in batch:
            if not done.done():
                done.set_exception(error)
        for _, done in self.waiting:
            if not done.done():
                done.set_exception(Conflict("what this was built on was not appended"))
