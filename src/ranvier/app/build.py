"""The composition root: from a checked configuration to a homeserver that can be run."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector

import ranvier
from ranvier.app.compose.accounts import compose_accounts, lay_accounts, registration_policy
from ranvier.app.compose.administration import compose_administration
from ranvier.app.compose.appservices import authenticate, compose_appservices, lay_appservices
from ranvier.app.compose.encryption import compose_encryption
from ranvier.app.compose.ephemeral import compose_ephemeral
from ranvier.app.compose.federation import compose_federation, lay_intake, lay_remote
from ranvier.app.compose.flows import compose_flows
from ranvier.app.compose.foundation import (
    PAGES_SHARE,
    Composed,
    Foundation,
    Network,
    Ports,
    cache_bytes,
    cache_entries,
    lay_foundation,
)
from ranvier.app.compose.historical import OtherServers, lay_federation_2014
from ranvier.app.compose.history import compose_history
from ranvier.app.compose.media import lay_media
from ranvier.app.compose.oauth import compose_oauth
from ranvier.app.compose.public import compose_public
from ranvier.app.compose.push import compose_push
from ranvier.app.compose.remote_rooms import compose_remote_rooms, lay_remote_rooms
from ranvier.app.compose.rooms import compose_rooms, lay_rooms
from ranvier.app.compose.rtc import compose_rtc
from ranvier.app.compose.sliding import compose_sliding
from ranvier.app.compose.sso import compose_sso, lay_providers
from ranvier.app.compose.sync import compose_sync, lay_sync
from ranvier.app.compose.sync_v3 import compose_sync_v3
from ranvier.app.config import Config, FederationConfig, MailConfig
from ranvier.app.lifecycle import Worker
from ranvier.app.outgoing import Outgoing
from ranvier.app.registrations import read_registrations
from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import NotFound, ProtocolFault
from ranvier.core.identifiers import UserID
from ranvier.core.signing import SigningKey, encode_signing_keys, parse_signing_keys
from ranvier.http.asgi import AsgiApp, Guards, build_app
from ranvier.http.endpoint import Api
from ranvier.http.guards import RateLimiter
from ranvier.http.metrics import RequestMetrics
from ranvier.http.ratelimit import DEFAULT_ALLOWANCES, NoLimits, TokenBuckets
from ranvier.io.address_guard import AddressGuard
from ranvier.io.clock import SystemClock
from ranvier.io.mail import SmtpMailer, SmtpSecurity, SmtpServer
from ranvier.io.randomness import Randomness, system_randomness
from ranvier.io.tls import client_context
from ranvier.services.accounts.remote_profiles import RemoteProfiles
from ranvier.services.devices.list_requests import ListRequests, bring_nothing
from ranvier.services.devices.remote import NoRemoteKeyServers
from ranvier.services.devices.remote_requests import RemoteKeyRequests
from ranvier.services.ephemeral.presence import PresenceTracker
from ranvier.services.ephemeral.typing import Typing
from ranvier.services.federation.directories import RemoteDirectories
from ranvier.services.push.effects import PushEffects
from ranvier.services.rooms.history import fill_nothing
from ranvier.services.rooms.remote import (
    NoRemoteRooms,
    RemoteRooms,
    no_remote_alias,
    no_remote_directory,
)
from ranvier.services.rooms.remote_spaces import RemoteSpaces
from ranvier.services.rooms.remote_times import RemoteTimes, fetch_nothing
from ranvier.store.connect import open_database
from ranvier.store.tables.interned import MAX_NAMES, Interner

SEED_BYTES: Final = 32


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
        await self.foundation.ports.close()


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
    registrations, faults = read_registrations(config.appservices.registrations, config.name)
    if faults:
        raise SetupFault("\n".join(faults))
    network = open_network(config.federation)
    try:
        db = await open_database(database_url(config), cache_bytes=cache_bytes(config, PAGES_SHARE))
    except BaseException:
        await network.close()
        raise
    mailer = open_mailer(config.mail)
    return Ports(config, db, SystemClock(), randomness, keys, registry, network, registrations, mailer)


def open_network(federation: FederationConfig) -> Network:
    """The ways to other machines, none of which leads into private networks but those that are allowed.

    Raises: SetupFault.
    """
    try:
        tls = None if federation.ca_file is None else client_context(federation.ca_file)
        guard = AddressGuard(allowed=federation.allow_private_addresses)
    except (OSError, ValueError) as error:
        raise SetupFault(f"cannot set up federation: {error}") from error
    outgoing = Outgoing((guard, AddressGuard(denied=())), f"Ranvier/{ranvier.__version__}", tls)
    return Network(outgoing.client(), outgoing.resolver(), outgoing.close, outgoing.client(1))


def open_mailer(mail: MailConfig) -> SmtpMailer | None:
    """The way to the mail server, if there is one. Nothing is sent yet."""
    if mail.host is None or mail.sender is None:
        return None
    server = SmtpServer(
        host=mail.host,
        port=mail.port,
        security=SmtpSecurity(mail.security),
        username=mail.username,
        password=mail.password,
        sender=mail.sender,
    )
    return SmtpMailer(server, client_context())


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
    interner = Interner(config.name, cache_entries(config, MAX_NAMES))
    foundation = lay_foundation(ports, interner, PushEffects(ports.db, interner))
    accounts = lay_accounts(foundation)
    bridges = lay_appservices(foundation, accounts.creation, accounts.drafts)
    remote = lay_remote(foundation)
    presence = PresenceTracker(ports.db, interner, ports.clock, enabled=config.presence.enabled)
    typing = Typing(ports.db, foundation.live, ports.clock, presence)
    federates = config.federation.enabled
    fetch_profile = RemoteProfiles(remote.requests, ports.clock).fetch if federates else _no_remote_profile
    intake = lay_intake(foundation, remote)
    rooms: RemoteRooms = lay_remote_rooms(foundation, remote, intake) if federates else NoRemoteRooms()
    directories = RemoteDirectories(remote.requests)
    fetch_alias = directories.resolve if federates else no_remote_alias
    fetch_page = directories.list_rooms if federates else no_remote_directory
    spaces = RemoteSpaces(remote.requests, ports.clock) if federates else None
    fetch_near = RemoteTimes(ports.db, interner, remote.requests).fetch if federates else fetch_nothing
    key_servers = RemoteKeyRequests(remote.requests) if federates else NoRemoteKeyServers()
    lists = ListRequests(ports.db, interner, remote.requests, ports.clock)
    bring_lists = lists.bring if federates else bring_nothing
    fill_gap = intake.backfilling.fill if federates else fill_nothing
    today = OtherServers(rooms, fetch_alias, fetch_profile, fill_gap)
    others = lay_federation_2014(foundation, today, typing, bridges)
    in_rooms = lay_rooms(foundation, others.rooms, others.fetch_alias, bridges)
    syncing = lay_sync(foundation)
    providers = lay_providers(config)
    media = lay_media(foundation, remote if federates else None)
    areas: list[Composed] = [
        compose_public(foundation),
        compose_accounts(foundation, accounts, others.fetch_profile, bridges, providers),
        compose_sso(foundation, accounts, providers, registration_policy(ports, bridges)),
        compose_oauth(
            foundation,
            accounts,
            others.fetch_profile,
            bridges,
            providers,
            media,
            registration_policy(ports, bridges),
        ),
        compose_encryption(foundation, accounts.uia, key_servers, bring_lists),
        compose_flows(foundation, accounts, in_rooms.membership),
        compose_rooms(foundation, in_rooms, fetch_page, spaces, presence),
        compose_history(foundation, others.fill_gap, fetch_near),
        compose_sync(foundation, syncing, presence),
        compose_sliding(foundation, syncing, presence),
        compose_push(foundation),
        compose_rtc(foundation, remote.requests if federates else None),
        compose_ephemeral(foundation, presence, typing),
        media.composed,
        compose_appservices(foundation, bridges),
        compose_administration(foundation, accounts, in_rooms, remote if federates else None),
        others.composed,
    ]
    if federates:
        areas.append(compose_federation(foundation, remote, intake, typing))
        areas.append(compose_remote_rooms(foundation, remote, intake, fetch_profile, bridges, lists))
    if config.historical.sync_v3_2021.enabled:
        areas.append(compose_sync_v3(foundation))
    limiter: RateLimiter = (
        TokenBuckets(ports.clock.monotonic, DEFAULT_ALLOWANCES) if config.rate_limits.enabled else NoLimits()
    )
    authentication = authenticate(foundation, bridges, accounts.creation, accounts.last_seen)
    origins = remote.origins if federates else None
    guards = Guards(authentication, origins, limiter, RequestMetrics(ports.registry))
    return Homeserver(
        foundation,
        guards,
        [one for area in areas for one in area.endpoints],
        [worker for area in areas for worker in area.workers],
    )


async def _no_remote_profile(user_id: UserID) -> JsonObject:
    """Where there is no federation, users of other servers are not known."""
    raise NotFound("There is no such user.")
