"""Sync: what clients are told, by one endpoint that reads what all the other areas wrote."""

from ranvier.app.compose.foundation import Composed, Foundation
from ranvier.http.client.sync import SyncEndpoint
from ranvier.services.ephemeral.presence import PresenceTracker
from ranvier.services.rooms.aggregations import Aggregations
from ranvier.services.rooms.showing import Showing
from ranvier.services.sync.batches import Batches
from ranvier.services.sync.clients import Standings
from ranvier.services.sync.filters import SyncFilters
from ranvier.services.sync.reading import SyncReader
from ranvier.services.sync.rooms import RoomsReader
from ranvier.services.sync.slice_cache import SliceCache
from ranvier.services.sync.slices import Slices
from ranvier.services.sync.state_changes import StateChanges
from ranvier.services.sync.sync import Sync
from ranvier.services.sync.waking import CompanyWaker


def compose_sync(foundation: Foundation, presence: PresenceTracker) -> Composed:
    """`presence` hears of every request."""
    ports, interner, waiters = foundation.ports, foundation.interner, foundation.waiters
    db, clock = ports.db, ports.clock
    changes = StateChanges(interner, foundation.nodes)
    slices = Slices(interner, foundation.presenting, foundation.sight, changes)
    aggregations = Aggregations(Showing(foundation.presenting, foundation.sight))
    rooms = RoomsReader(interner, slices, aggregations, clock)
    standings = Standings(db, foundation.changes, waiters, clock)
    cache = SliceCache(foundation.changes)
    db.subscribe(cache.hear)
    batches = Batches(db, SyncReader(interner, rooms, clock))
    sync = Sync(db, standings, waiters, batches, cache, clock)
    waker = CompanyWaker(db, waiters)
    db.subscribe(waker.hear)
    return Composed(
        endpoints=[SyncEndpoint(sync, SyncFilters(db), presence)],
        workers=[waker, standings, standings.acknowledged],
    )
