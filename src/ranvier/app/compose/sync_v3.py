"""Sync v3 of 2021 on this homeserver, where the configuration asks for it."""

from ranvier.app.compose.foundation import Composed, Foundation
from ranvier.historical.sync_v3.endpoint import SyncV3Endpoint
from ranvier.historical.sync_v3.engine import SyncV3
from ranvier.historical.sync_v3.native import NativeSource, viewer_of
from ranvier.historical.sync_v3.sessions import SessionSweeper
from ranvier.historical.sync_v3.wakes import Wakes


def compose_sync_v3(foundation: Foundation) -> Composed:
    """The engine over this homeserver's own rooms."""
    db, clock = foundation.ports.db, foundation.ports.clock
    wakes = Wakes()
    db.subscribe(wakes.hear)
    foundation.waiters.when_closed(wakes.close)
    source = NativeSource(foundation.interner, foundation.nodes, foundation.presenting, clock)
    engine = SyncV3(db, source, wakes, clock)
    return Composed(endpoints=[SyncV3Endpoint(engine, viewer_of)], workers=[SessionSweeper(db, clock)])
