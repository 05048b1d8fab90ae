"""Sliding sync: one engine, and the two forms in which clients ask it."""

from ranvier.app.compose.foundation import Composed, Foundation
from ranvier.app.compose.sync import SyncParts
from ranvier.http.client.sliding_sync.final import FinalSlidingSync
from ranvier.http.client.sliding_sync.simplified import SimplifiedSlidingSync
from ranvier.services.ephemeral.presence import PresenceTracker
from ranvier.services.sliding.connections import Connections
from ranvier.services.sliding.extensions import ExtensionsReader
from ranvier.services.sliding.handover import Handover
from ranvier.services.sliding.keeping import Keeper
from ranvier.services.sliding.reading import Job, Result, SlidingReader
from ranvier.services.sliding.room_state import RoomStates
from ranvier.services.sliding.rooms import RoomsReader
from ranvier.services.sliding.rosters import Rosters
from ranvier.services.sliding.sync import SlidingSync
from ranvier.services.sliding.warm_rooms import WarmRooms
from ranvier.services.sync.batches import Batches


def compose_sliding(foundation: Foundation, parts: SyncParts, presence: PresenceTracker) -> Composed:
    """`presence` hears of every request."""
    ports, interner = foundation.ports, foundation.interner
    db, clock = ports.db, ports.clock
    states = RoomStates(interner, foundation.nodes, foundation.presenting)
    rooms = RoomsReader(interner, parts.slices, states, parts.aggregations)
    reader = SlidingReader(
        interner, parts.slices, rooms, ExtensionsReader(interner, parts.slices, clock), clock
    )
    keeper = Keeper(db, clock)
    # SQLite has one process; a database server may have several.
    handover = Handover(db, clock, is_shared=ports.config.database.is_shared)
    connections = Connections(parts.standings, keeper, handover, clock, ports.randomness)
    db.subscribe(connections.hear)
    sync = SlidingSync(
        db,
        parts.standings,
        foundation.waiters,
        Batches[Job, Result](db, reader),
        connections,
        Rosters(foundation.changes),
        WarmRooms(parts.cache, rooms.profiles),
        clock,
    )
    return Composed(
        endpoints=[SimplifiedSlidingSync(sync, presence), FinalSlidingSync(sync, presence)],
        workers=[keeper],
    )
