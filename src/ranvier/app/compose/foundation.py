"""What every area stands on. Only `app.compose` sees it whole; a service gets the few parts that it names."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec
from prometheus_client import CollectorRegistry

from ranvier.app.config import Config, MemoryConfig
from ranvier.app.lifecycle import Worker
from ranvier.core.appservices.registration import Registration
from ranvier.core.room_versions import BRIDGED_2014, ROOM_VERSIONS, RoomVersion
from ranvier.core.signing import SigningKey
from ranvier.io.clock import Clock
from ranvier.io.ports import HttpClient, Mailer, Resolver
from ranvier.io.randomness import Randomness
from ranvier.services.accounts.passwords import DEFAULT_COST, PasswordCost
from ranvier.services.changes import LOG_LENGTH, Changes, Waiters
from ranvier.services.rooms.live import LiveRooms
from ranvier.services.rooms.merging import Merging
from ranvier.services.rooms.presenting import Presenting
from ranvier.services.rooms.sight import MAX_CONTENTS, Sight
from ranvier.services.rooms.timeline import Author, Timeline
from ranvier.services.rooms.writer import Effects, RoomWriters
from ranvier.store.database import Database, Hint, Kind, Subscriber
from ranvier.store.tables.interned import Interner
from ranvier.store.tables.state_nodes import NodeCache

# How the memory for caches is divided.
PAGES_SHARE: Final = 3 / 14
ROOMS_SHARE: Final = 4 / 14
NODES_SHARE: Final = 2 / 14
HEADS_SHARE: Final = 2 / 14
SLICES_SHARE: Final = 3 / 14


class Composed(msgspec.Struct, frozen=True):
    """What an area brings: endpoint classes, and loops for the background."""

    endpoints: Sequence[object] = ()
    workers: Sequence[Worker] = ()


class Network(msgspec.Struct, frozen=True):
    """The ways to other machines."""

    http: HttpClient
    resolver: Resolver
    close: Callable[[], Awaitable[None]]
    unguarded: HttpClient | None = (
        None  # for URLs that the administrator wrote: any address; None: http does it
    )


class Ports(msgspec.Struct, frozen=True):
    """What comes from outside the process."""

    config: Config
    db: Database
    clock: Clock
    randomness: Randomness
    signing_keys: Sequence[SigningKey]  # the first one signs
    registry: CollectorRegistry
    network: Network
    registrations: Sequence[Registration] = ()  # of application services
    mailer: Mailer | None = None  # None: no mail is sent
    password_cost: PasswordCost = DEFAULT_COST

    async def close(self) -> None:
        await self.network.close()
        await self.db.close()


class Foundation(msgspec.Struct, frozen=True):
    """The floor under the areas."""

    ports: Ports
    interner: Interner
    nodes: NodeCache
    changes: Changes
    waiters: Waiters
    live: LiveRooms
    writers: RoomWriters
    timeline: Timeline
    presenting: Presenting
    sight: Sight


def offered_versions(config: Config) -> dict[str, RoomVersion]:
    """The room versions that a user may choose."""
    offered = dict(ROOM_VERSIONS)
    if config.historical.federation_2014.enabled:
        offered[BRIDGED_2014.name] = BRIDGED_2014
    return offered


def cache_bytes(config: Config, share: float) -> int:
    """What one cache may take of the memory that is there for all."""
    return int(share * config.memory.caches_mib * 1024 * 1024)


def cache_entries(config: Config, count: int) -> int:
    """The same for what is bounded by its number; `count`: how many where memory is what it is by default."""
    return count * config.memory.caches_mib // MemoryConfig().caches_mib


def lay_foundation(ports: Ports, interner: Interner, effects: Effects) -> Foundation:
    """Make what every area needs, and begin to listen for changes."""
    config, db, clock = ports.config, ports.db, ports.clock
    nodes = NodeCache(cache_bytes(config, NODES_SHARE))
    live = LiveRooms(db, interner, cache_bytes(config, ROOMS_SHARE))
    writers = RoomWriters(db, live, interner, nodes, effects, clock)
    author = Author(config.name, ports.signing_keys[0], clock, ports.randomness)
    changes = Changes(db.position(), cache_entries(config, LOG_LENGTH))
    waiters = Waiters()
    db.subscribe(_listener(changes, waiters))
    return Foundation(
        ports,
        interner,
        nodes,
        changes,
        waiters,
        live,
        writers,
        Timeline(db, writers, Merging(interner, nodes, writers, clock), author),
        Presenting(nodes, cache_bytes(config, HEADS_SHARE)),
        Sight(interner, nodes, cache_entries(config, MAX_CONTENTS)),
    )


def _listener(changes: Changes, waiters: Waiters) -> Subscriber:
    def hear(hints: Sequence[Hint]) -> None:
        gaps = [hint.position for hint in hints if hint.kind is Kind.GAP]
        if gaps:
            changes.forget(max(gaps))
            waiters.wake_all()
        changes.add(hint for hint in hints if hint.kind is not Kind.GAP)
        waiters.wake(hints)

    return hear
