"""The composition root: from a checked configuration to a homeserver that can be run."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector

from ranvier.app.compose.accounts import compose_accounts
from ranvier.app.compose.foundation import Composed, Foundation, Ports, lay_foundation
from ranvier.app.compose.public import compose_public
from ranvier.app.compose.rooms import compose_rooms
from ranvier.app.config import Config
from ranvier.app.lifecycle import Worker
from ranvier.core.errors import ProtocolFault
from ranvier.core.events.pdu import Pdu
from ranvier.core.signing import SigningKey, encode_signing_keys, parse_signing_keys
from ranvier.http.asgi import AsgiApp, Guards, build_app
from ranvier.http.endpoint import Api
from ranvier.http.guards import RateLimiter
from ranvier.http.metrics import RequestMetrics
from ranvier.http.ratelimit import DEFAULT_ALLOWANCES, NoLimits, TokenBuckets
from ranvier.io.clock import SystemClock
from ranvier.io.randomness import Randomness, system_randomness
from ranvier.services.accounts.authentication import Authentication
from ranvier.services.rooms.live import LiveRoom
from ranvier.store.connect import open_database
from ranvier.store.database import WriteTxn
from ranvier.store.tables.interned import Interner

SEED_BYTES: Final = 32


class NoEffects:
    async def load(self, room: LiveRoom) -> None: ...
    def of(self, room: LiveRoom, pdu: Pdu) -> object: ...
    def store(self, txn: WriteTxn, room_nid: int, effects: Sequence[tuple[int, object]]) -> None: ...


class SetupFault(Exception):
    """Something that the administrator can mend, in one sentence."""


class Homeserver(msgspec.Struct, frozen=True):
    """Everything that was made, ready to be served."""

    foundation: Foundation
    guards: Guards
    endpoints: Sequence[object]
    workers: Sequence[Worker]

    def app(self, apis: frozenset[Api]) -> AsgiApp:
        """The ASGI application of a listener that serves `apis`."""
        return build_app(self.endpoints, self.guards, apis)

    async def close(self) -> None:
        await self.foundation.ports.db.close()


async def open_ports(config: Config) -> Ports:
    """Open what lies outside the process: database, keys, clock, randomness.

    Raises: SetupFault; StoreFault.
    """
    randomness = system_randomness()
    try:
        config.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise SetupFault(f"cannot make {config.data_dir}: {error.strerror}") from error
    keys = load_signing_keys(config.signing_key_file, randomness)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    db = await open_database(database_url(config))
    return Ports(config, db, SystemClock(), randomness, keys, registry)


def database_url(config: Config) -> str:
    """The URL with a relative SQLite file put into the data directory."""
    scheme, _, path = config.database.url.partition(":")
    return f"sqlite:{config.data_dir / path}" if scheme == "sqlite" else config.database.url


def load_signing_keys(file: Path, randomness: Randomness) -> Sequence[SigningKey]:
    """The keys in the file; where there is none, a new key in a new file that only its owner may read.

    Raises: SetupFault.
    """
    try:
        if not file.exists():
            write_signing_key(file, randomness)
    except OSError as error:
        raise SetupFault(f"cannot write the signing key {file}: {error.strerror}") from error
    return read_signing_keys(file)


def read_signing_keys(file: Path) -> Sequence[SigningKey]:
    """Raises: SetupFault."""
    try:
        keys = parse_signing_keys(file.read_text(encoding="ascii"))
    except (OSError, UnicodeDecodeError, ProtocolFault) as error:
        raise SetupFault(f"cannot use the signing key in {file}: {error}") from error
    if not keys:
        raise SetupFault(f"there is no signing key in {file}")
    return keys


def write_signing_key(file: Path, randomness: Randomness) -> SigningKey:
    """Make a key and write it. Raises: OSError, also when the file is there already."""
    key = SigningKey(randomness.octets(SEED_BYTES), f"a_{randomness.text(4)}")
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as stream:
        stream.write(encode_signing_keys([key]))
        stream.flush()
        os.fsync(descriptor)
    return key


def assemble(ports: Ports) -> Homeserver:
    """Wire everything together. Nothing runs yet."""
    config = ports.config
    interner = Interner(config.name)
    foundation = lay_foundation(ports, interner, NoEffects())
    areas: list[Composed] = [
        compose_public(foundation),
        compose_accounts(foundation),
        compose_rooms(foundation),
    ]
    limiter: RateLimiter = (
        TokenBuckets(ports.clock.monotonic, DEFAULT_ALLOWANCES) if config.rate_limits.enabled else NoLimits()
    )
    authentication = Authentication(ports.db, ports.clock)
    guards = Guards(authentication, None, limiter, RequestMetrics(ports.registry))
    return Homeserver(
        foundation,
        guards,
        [one for area in areas for one in area.endpoints],
        [worker for area in areas for worker in area.workers],
    )
