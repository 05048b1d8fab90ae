"""A queue for each room: its events are taken one batch after the other, and no room waits for another."""

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import LimitExceeded, ServerFault
from ranvier.core.identifiers import RoomID, ServerName
from ranvier.io.clock import Clock
from ranvier.services.rooms.admission import Reasons
from ranvier.services.rooms.checking import RoomRef
from ranvier.services.rooms.receiving import Receiving

log = logging.getLogger(__name__)

MAX_WAITING: Final = 2_000
"""Events of one room that wait; a server that sends more is told to come again."""

MAX_SETTLE_S: Final = 1.0
"""How long a user's request waits for events that have come before it."""

_BUSY: Final = "This room has more events than it takes at the moment."


class _Batch(msgspec.Struct, eq=False):
    origin: ServerName
    room: RoomRef
    events: Sequence[JsonObject]
    done: asyncio.Future[Reasons]


class _Queue:
    __slots__ = ("batches", "count", "last", "task")

    def __init__(self) -> None:
        self.batches: list[_Batch] = []
        self.count = 0
        self.last: asyncio.Future[Reasons] | None = None  # of the newest batch
        self.task: asyncio.Task[None] | None = None


class RoomQueues:
    """The queues of rooms in which something waits."""

    def __init__(self, receiving: Receiving, clock: Clock) -> None:
        self._receiving = receiving
        self._clock = clock
        self._queues: dict[RoomID, _Queue] = {}

    async def receive(self, origin: ServerName, room: RoomRef, events: Sequence[JsonObject]) -> Reasons:
        """Take events of a room when those before them are done: see `Receiving.receive`.

        Raises: LimitExceeded; StoreFault.
        """
        return await asyncio.shield(self.put(origin, room, events))

    def put(self, origin: ServerName, room: RoomRef, events: Sequence[JsonObject]) -> asyncio.Future[Reasons]:
        """The same, without waiting; nobody need wait for what becomes of them. Raises: LimitExceeded."""
        queue = self._queues.setdefault(room.room_id, _Queue())
        if queue.count + len(events) > MAX_WAITING:
            raise LimitExceeded(_BUSY, retry_after_ms=5_000)
        done: asyncio.Future[Reasons] = asyncio.get_running_loop().create_future()
        queue.batches.append(_Batch(origin, room, events, done))
        queue.last = done
        queue.count += len(events)
        if queue.task is None:
            queue.task = asyncio.create_task(self._work(room.room_id, queue))
        return done

    async def settle(self, room_id: RoomID) -> bool:
        """Wait a moment until what has come for a room is taken. False: there was nothing."""
        queue = self._queues.get(room_id)
        if queue is None or queue.last is None:
            return False
        try:
            async with self._clock.timeout(MAX_SETTLE_S):
                await asyncio.wait([queue.last])
        except TimeoutError:
            log.info("events of %s take long", room_id)
        return True

    def waiting_count(self) -> int:
        """How many events wait or are being taken; for the metrics."""
        return sum(queue.count for queue in self._queues.values())

    def room_count(self) -> int:
        """How many rooms have events that wait; for the metrics."""
        return len(self._queues)

    async def _work(self, room_id: RoomID, queue: _Queue) -> None:
        while queue.batches:
            batch = queue.batches.pop(0)
            reasons = await self._take(batch)
            queue.count -= len(batch.events)
            if batch.done.cancelled():
                continue
            if isinstance(reasons, Exception):
                batch.done.set_exception(reasons)
                batch.done.exception()  # nobody may be left to ask for it
            else:
                batch.done.set_result(reasons)
        del self._queues[room_id]

    async def _take(self, batch: _Batch) -> Reasons | Exception:
        """What becomes of a batch. A fault that one event brings about must not take the others along."""
        try:
            return await self._receiving.receive(batch.origin, batch.room, batch.events)
        except ServerFault as fault:
            return fault
        except Exception:
            log.exception("events of %s from %s", batch.room.room_id, batch.origin)
        reasons: Reasons = {}
        for event in batch.events if len(batch.events) > 1 else ():
            try:
                reasons |= await self._receiving.receive(batch.origin, batch.room, (event,))
            except ServerFault as fault:
                return fault
            except Exception:
                log.exception("an event of %s from %s", batch.room.room_id, batch.origin)
        return reasons
