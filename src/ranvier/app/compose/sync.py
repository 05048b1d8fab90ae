"""Sync: what clients are told, by one endpoint that reads what all the other areas wrote."""

import msgspec

from ranvier.app.compose.foundation import SLICES_SHARE, Composed, Foundation, cache_bytes
from ranvier.historical.sync_v3.sessions import ClassicSync
from ranvier.http.client.old_sync import OldSync
from ranvier.http.client.sync import SyncEndpoint
from ranvier.services.ephemeral.presence import PresenceTracker
from ranvier.services.rooms.aggregations import Aggregations
from ranvier.services.rooms.history import History, fill_nothing
from ranvier.services.rooms.pages import Pages
from ranvier.services.rooms.peeking import Peeking
from ranvier.services.rooms.showing import Showing
from ranvier.services.sync.batches import Batches
from ranvier.services.sync.clients import Acknowledged, Standings
from ranvier.services.sync.event_stream import EventStream
from ranvier.services.sync.filters import SyncFilters
from ranvier.services.sync.reading import SyncReader
from ranvier.services.sync.rooms import RoomsReader
from ranvier.services.sync.slice_cache import SliceCache
from ranvier.services.sync.slices import Slices
from ranvier.services.sync.state_changes import StateChanges
from ranvier.services.sync.sync import Sync
from ranvier.services.sync.waking import CompanyWaker
from ranvier.store.tables.to_device import delete_acknowledged


class SyncParts(msgspec.Struct, frozen=True):
    """What classic and sliding sync have in common."""

    standings: Standings
    slices: Slices
    cache: SliceCache
    showing: Showing
    aggregations: Aggregations


def lay_sync(foundation: Foundation) -> SyncParts:
    """Make it, and begin to listen for changes."""
    ports, interner = foundation.ports, foundation.interner
    changes = StateChanges(interner, foundation.nodes)
    showing = Showing(foundation.presenting, foundation.sight)
    # Where there is sync v3, what classic sync has got may still be wanted by another session of the device.
    acknowledged = (
        Acknowledged(ports.db, ClassicSync(ports.clock).acknowledge, notes_beginnings=True)
        if ports.config.historical.sync_v3_2021.enabled
        else Acknowledged(ports.db, delete_acknowledged)
    )
    # SQLite has one process; a database server may have several.
    is_shared = ports.config.database.is_shared
    standings = Standings(
        ports.db, foundation.changes, foundation.waiters, ports.clock, acknowledged, is_shared=is_shared
    )
    cache = SliceCache(foundation.changes, cache_bytes(ports.config, SLICES_SHARE))
    ports.db.subscribe(cache.hear)
    slices = Slices(interner, foundation.presenting, foundation.sight, changes)
    return SyncParts(standings, slices, cache, showing, Aggregations(showing))


def compose_sync(foundation: Foundation, parts: SyncParts, presence: PresenceTracker) -> Composed:
    """`presence` hears of every request."""
    ports, interner, waiters = foundation.ports, foundation.interner, foundation.waiters
    db, clock, standings = ports.db, ports.clock, parts.standings
    rooms = RoomsReader(interner, parts.slices, parts.aggregations, clock)
    batches = Batches(db, SyncReader(interner, rooms, clock))
    sync = Sync(db, standings, waiters, batches, parts.cache, clock)
    filters = SyncFilters(db)
    history = History(
        db,
        clock,
        parts.showing,
        Pages(interner, foundation.nodes, parts.showing, parts.aggregations),
        fill_nothing,
    )
    waker = CompanyWaker(db, waiters)
    db.subscribe(waker.hear)
    return Composed(
        endpoints=[
            SyncEndpoint(sync, filters, presence),
            OldSync(EventStream(db, sync, filters), Peeking(db, history, waiters, clock), presence),
        ],
        workers=[waker, standings, standings.acknowledged],
    )
