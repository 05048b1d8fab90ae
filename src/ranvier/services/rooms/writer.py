"""Appends to rooms: one of a room is under way at a time, and takes along all that was queued meanwhile.

So a busy room costs one commit for many events, and on PostgreSQL, where transactions run side by side, the
appends of one room still come in the order in which they were built.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import Final, Protocol

import msgspec

from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import RoomID, StateKey, UserID
from ranvier.core.room_versions import get_room_version
from ranvier.io.clock import Clock
from ranvier.services.rooms.live import LiveRoom, LiveRooms, pdu_of
from ranvier.services.rooms.summaries import refresh_summary, store_summary
from ranvier.store.database import Conflict, Database, Integrity, WriteTxn
from ranvier.store.tables import events, rooms, state
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


Also = Callable[[WriteTxn, int], None]
"""What is to be written together with a new room, given its room_nid. What it raises undoes the room."""


class Merge(msgspec.Struct, frozen=True):
    """Events that change a room otherwise than by standing behind its head, and the revision at which they
    do."""

    revision: int
    items: Sequence[Item]
    slots: Collection[StateKey] = ()  # of the room's state now that they change


class Effects(Protocol):
    """What events do besides being in their room: whom they notify."""

    async def load(self, room: LiveRoom) -> bool:
        """Bring into memory what `of` looks at. Whether that took waiting, in which the room may have changed."""

    def of(self, room: LiveRoom, pdu: Pdu) -> object:
        """What `pdu` does, built on the room's pending head. Never waits, never raises."""

    def without(self, effect: object, user_ids: Collection[UserID]) -> object:
        """What `of` said, but for users who may not see the event."""

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

    async def find_ready(self, room_id: RoomID, slots: Collection[StateKey]) -> LiveRoom | None:
        """The room with all that building on it takes: `slots` are loaded, and `effect_of` need not wait. None
        if it is not known here. From the return on, until the caller awaits, nothing else changes it."""
        prepared: LiveRoom | None = None
        while True:
            room = await self._live.find(room_id, slots)
            if room is None or room is prepared or not await self._effects.load(room):
                return room
            prepared = room

    def effect_of(self, room: LiveRoom, pdu: Pdu) -> object:
        """What an event built on the room's pending head does besides being there; goes into its `Item`."""
        return self._effects.of(room, pdu)

    def effect_without(self, effect: object, user_ids: Collection[UserID]) -> object:
        """An effect, but for users who may not see the event."""
        return self._effects.without(effect, user_ids) if user_ids else effect

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
        if queue.room is not room:
            # Its pending head has moved on to events that will not be appended.
            self._live.drop(room)
            if queue.task is not None:
                await asyncio.wait({queue.task})
            raise Conflict("the room was in memory twice")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.waiting.append(_Request(items, done))
        room.queued_count += 1
        if queue.task is None:
            queue.task = asyncio.create_task(self._work(queue))
        await asyncio.shield(done)

    async def append_merging(self, room: LiveRoom, merge: Callable[[WriteTxn], Merge]) -> None:
        """Append events that stand beside the head of a room. `merge` says in the transaction what they do.

        What of the room is in memory is forgotten, and what is being built on it meets a Conflict.

        Raises: Conflict when the room moved on from the revision of `merge`; what `merge` raises; StoreFault.
        """
        await self.rewrite(room.nid, room.room_id, lambda txn: self._merge(txn, room, merge))

    async def rewrite(self, room_nid: int, room_id: RoomID, write: Callable[[WriteTxn], Appended]) -> None:
        """Change a room by a transaction that ends in an append, with nothing of ours under way.

        What of the room is in memory is forgotten, and what is being built on it meets a Conflict.

        Raises: what `write` raises; StoreFault.
        """
        # Nothing more is queued behind what is under way, which ends therefore.
        self._live.forget(room_id)
        while (queue := self._queues.get(room_nid)) is not None and queue.task is not None:
            await asyncio.wait({queue.task})
        # RACE: no await between this and the queueing of the write, so nothing is appended in between.
        self._live.forget(room_id)
        appended = await self._db.write(write)
        # Who read the room meanwhile may have read it as it was before.
        self._live.forget(room_id, below=appended.revision)
        remember_appended(self._interner, self._nodes, appended)

    async def is_current(self, room: LiveRoom) -> bool:
        """Whether what was decided about a room in memory was decided on the truth: another process may have
        changed the room. If so, it is dropped, to be read again.

        Cost: 1 query, or the wait for the appends that are under way, which tells as well.
        """
        queue = self._queues.get(room.nid)
        if queue is not None and queue.task is not None:
            await asyncio.wait({queue.task})
            return not room.is_stale
        stored = await self._db.read(rooms.find_room, room.room_id)
        is_current = not room.is_stale and (
            room.queued_count > 0 or (stored is not None and stored.revision <= room.revision)
        )
        if not is_current:
            self._live.drop(room)
        return is_current

    async def create(self, room: LiveRoom, items: Sequence[Item], also: Also | None = None) -> None:
        """Make a room of its first events; return when they are on disk.

        Raises: StoreFault; what `also` raises.
        """
        room.nid, appended = await self._db.write(self._create, room, items, also)
        self._remember(room, items, appended)
        self._live.add(room)

    async def _work(self, queue: "_Queue") -> None:
        """Append what is queued until nothing is. A failure ends it: the rest was built on what failed."""
        while queue.waiting:
            batch = queue.take()
            try:
                await self._append_all(queue.room, batch)
            except Exception as error:
                # The room in memory is ahead of the database now.
                self._live.drop(queue.room)
                del self._queues[queue.room.nid]
                queue.fail(batch, error)
                return
        del self._queues[queue.room.nid]

    async def _append_all(self, room: LiveRoom, batch: Sequence["_Request"]) -> None:
        """Append requests in one transaction; one by one if that is against a constraint, so that only the
        one whose fault it is learns of it. Those that were not appended are not done then."""
        try:
            await self._append_once(room, batch)
        except Integrity:
            if len(batch) == 1:
                raise
            for request in batch:
                await self._append_once(room, [request])

    async def _append_once(self, room: LiveRoom, batch: Sequence["_Request"]) -> None:
        items = [item for request in batch for item in request.items]
        appended = await self._db.write(self._append, room, items)
        self._remember(room, items, appended)
        for request in batch:
            request.finish(room)

    def _remember(self, room: LiveRoom, items: Sequence[Item], appended: Appended) -> None:
        room.revision = appended.revision
        room.settle(item.prepared.pdu for item in items)
        remember_appended(self._interner, self._nodes, appended)

    def _create(
        self, txn: WriteTxn, room: LiveRoom, items: Sequence[Item], also: Also | None
    ) -> tuple[int, Appended]:
        row = rooms.insert_room(txn, room.room_id, room.version.name)
        if row.extremities:
            raise Conflict("the room exists")
        appended = self._append_to(txn, row.room_nid, row.revision, items)
        if also is not None:
            also(txn, row.room_nid)
        return row.room_nid, appended

    def _append(self, txn: WriteTxn, room: LiveRoom, items: Sequence[Item]) -> Appended:
        return self._append_to(txn, room.nid, room.revision, items)

    def _merge(self, txn: WriteTxn, room: LiveRoom, merge: Callable[[WriteTxn], Merge]) -> Appended:
        merged = merge(txn)
        appended = self._append_items(txn, room.nid, merged.revision, merged.items)
        refresh_summary(txn, self._interner, room, merged.slots)
        return appended

    def _append_to(self, txn: WriteTxn, room_nid: int, revision: int, items: Sequence[Item]) -> Appended:
        appended = self._append_items(txn, room_nid, revision, items)
        prepared = [item.prepared for item in items]
        store_summary(
            txn, room_nid, [*_redacted_state(txn, room_nid, prepared), *(one.pdu for one in prepared)]
        )
        return appended

    def _append_items(self, txn: WriteTxn, room_nid: int, revision: int, items: Sequence[Item]) -> Appended:
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
        return appended


def _redacted_state(txn: WriteTxn, room_nid: int, prepared: Sequence[PreparedEvent]) -> list[Pdu]:
    """State of now that these events redacted, as that left it. No query where nothing is redacted."""
    targets = [one.pdu.redacts for one in prepared if one.redacts_target and one.pdu.redacts is not None]
    if not targets:
        return []
    records = events.list_events_by_id(txn, targets).values()
    slots = [record.state_key_nid for record in records if record.state_key_nid is not None]
    current = state.list_current_slots(txn, room_nid, slots).values()
    room = rooms.list_rooms(txn, (room_nid,))[room_nid]
    version = get_room_version(room.version)
    return [pdu_of(record, room.room_id, version) for record in records if record.event_nid in current]


class _Request(msgspec.Struct, eq=False):
    """Events that one caller appends together, and waits for."""

    items: Sequence[Item]
    done: asyncio.Future[None]

    def finish(self, room: LiveRoom, error: Exception | None = None) -> None:
        """Tell the caller; nothing if that has happened, or if nobody waits."""
        room.queued_count -= 1
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
            self.done.exception()  # a cancelled caller does not ask for it


class _Queue:
    """What waits to be appended to one room."""

    __slots__ = ("room", "task", "waiting")

    def __init__(self, room: LiveRoom) -> None:
        self.room = room
        self.waiting: list[_Request] = []
        self.task: asyncio.Task[None] | None = None

    def take(self) -> list[_Request]:
        """The next requests, oldest first, with at most MAX_BATCH events unless the first alone has more."""
        count = 0
        for index, request in enumerate(self.waiting):
            count += len(request.items)
            if count > MAX_BATCH and index:
                taken, self.waiting = self.waiting[:index], self.waiting[index:]
                return taken
        taken, self.waiting = self.waiting, []
        return taken

    def fail(self, batch: Sequence[_Request], error: Exception) -> None:
        """Tell the first of `batch` that is not appended what went wrong (all of them if that is no fault of
        its events), and those behind it that they are to build anew."""
        unappended = [request for request in batch if not request.done.done()]
        faulty = unappended[:1] if isinstance(error, Integrity) else unappended
        for request in faulty:
            request.finish(self.room, error)
        for request in (*unappended[len(faulty) :], *self.waiting):
            request.finish(self.room, Conflict("what this was built on was not appended"))
