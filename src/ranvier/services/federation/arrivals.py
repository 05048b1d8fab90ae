"""Events of rooms that this server is just coming into: whoever is in a room sends to us as soon as it knows of our
join, and that may be before we have the room ourselves. What comes then is kept, and taken when the room is here.

It is kept in memory: a process that ends meanwhile loses it, and so does another one to which it comes. The room's next
event tells of it.
"""

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import MatrixError, ServerFault
from ranvier.core.identifiers import RoomID, ServerName
from ranvier.core.room_versions import get_room_version
from ranvier.services.federation.gate import Gate
from ranvier.services.federation.room_queues import RoomQueues
from ranvier.services.rooms.checking import RoomRef
from ranvier.store.database import Database

log = logging.getLogger(__name__)

MAX_KEPT: Final = 500
"""Events of one room; what comes beyond that is not taken."""

_Kept = list[tuple[ServerName, Sequence[JsonObject]]]


class Arrivals:
    """The rooms that this process is coming into, and what came for them."""

    def __init__(self, db: Database, gate: Gate, queues: RoomQueues) -> None:
        self._db = db
        self._gate = gate
        self._queues = queues
        self._rooms: dict[RoomID, _Kept] = {}

    def __contains__(self, room_id: RoomID) -> bool:
        return room_id in self._rooms

    @property
    def rooms(self) -> frozenset[RoomID]:
        return frozenset(self._rooms)

    @asynccontextmanager
    async def entering(self, room_id: RoomID) -> AsyncIterator[None]:
        """While this server comes into a room; once for a room at a time. Afterwards what was kept is queued, if the
        room is here."""
        kept: _Kept = []
        self._rooms[room_id] = kept
        try:
            yield
        finally:
            del self._rooms[room_id]
            for origin, events in kept:
                await self._pass_on(origin, room_id, events)

    def keep(self, origin: ServerName, room_id: RoomID, events: Sequence[JsonObject]) -> bool:
        """Whether the events of a room that is not here are kept for later."""
        kept = self._rooms.get(room_id)
        if kept is None or sum(len(sent) for _, sent in kept) + len(events) > MAX_KEPT:
            return False
        kept.append((origin, events))
        return True

    async def _pass_on(self, origin: ServerName, room_id: RoomID, events: Sequence[JsonObject]) -> None:
        try:
            room = await self._db.read(self._gate.approach, origin, room_id)
            ref = RoomRef(room.room_nid, room_id, get_room_version(room.version))
            self._queues.put(origin, ref, events)
        except (MatrixError, ServerFault) as error:
            # Whoever joins has what was asked for all the same.
            log.info("%d events of %s from %s are dropped: %s", len(events), room_id, origin, error)
