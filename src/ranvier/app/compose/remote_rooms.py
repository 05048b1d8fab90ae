"""Rooms that span servers: entering those of others, letting others into ours, and answering for them."""

import asyncio
from typing import Final

from ranvier.app.compose.appservices import Bridges
from ranvier.app.compose.federation import Intake, Remote
from ranvier.app.compose.federation_metrics import watch_outbound
from ranvier.app.compose.foundation import Composed, Foundation
from ranvier.app.compose.rooms import lay_aliases
from ranvier.app.lifecycle import Worker
from ranvier.historical.federation_2015.endpoints import Federation2015
from ranvier.http.federation.backfill import Backfill
from ranvier.http.federation.events import Events
from ranvier.http.federation.hierarchy import SpacesOfThisServer
from ranvier.http.federation.invites import Invites
from ranvier.http.federation.joins import Joins
from ranvier.http.federation.knocks import Knocks
from ranvier.http.federation.leaves import Leaves
from ranvier.http.federation.public_rooms import PublicRoomsOfThisServer
from ranvier.http.federation.queries import Queries
from ranvier.http.federation.third_party_invites import ThirdPartyInvitesOfServers
from ranvier.http.federation.user_keys import UserKeys
from ranvier.services.accounts.profiles import FetchProfile, Profiles
from ranvier.services.devices.claims import KeyClaims
from ranvier.services.devices.for_servers import KeysForServers
from ranvier.services.devices.list_requests import ListRequests
from ranvier.services.devices.remote_requests import RemoteKeyRequests
from ranvier.services.devices.resync import DeviceListResync
from ranvier.services.federation.admissions import Admissions, Doorkeeper
from ranvier.services.federation.destination import Wires
from ranvier.services.federation.device_updates import DeviceUpdates
from ranvier.services.federation.directories import RemoteDirectories
from ranvier.services.federation.invitations import Invitations
from ranvier.services.federation.leases import Leases
from ranvier.services.federation.offers import Offers
from ranvier.services.federation.outbound import Outbound
from ranvier.services.federation.passing import PassingReader
from ranvier.services.federation.relaying import Relaying
from ranvier.services.federation.serving import Serving
from ranvier.services.federation.sight import ServerSights
from ranvier.services.federation.spaces import Spaces
from ranvier.services.federation.third_party_invites import ThirdPartyInvites
from ranvier.services.flows.handshake import Handshake
from ranvier.services.flows.remote_inviting import RemoteInviting
from ranvier.services.flows.remote_joining import RemoteJoining, RoomStore
from ranvier.services.flows.remote_knocking import RemoteKnocking
from ranvier.services.flows.remote_leaving import RemoteLeaving
from ranvier.services.flows.remote_rooms import FederatedRooms
from ranvier.services.jobs import JobRunner
from ranvier.services.rooms.completing import COMPLETION, RUNNERS, Completing
from ranvier.services.rooms.doubts import Doubts
from ranvier.services.rooms.elsewhere import Elsewhere
from ranvier.services.rooms.public_rooms import PublicRooms
from ranvier.services.rooms.rechecking import Rechecking
from ranvier.services.rooms.rechecks import RECHECK
from ranvier.services.rooms.timeline import Author
from ranvier.services.rooms.wholeness import Wholeness

MAX_UNDER_WAY: Final = 200
"""Transactions to all servers together."""


def lay_remote_rooms(foundation: Foundation, remote: Remote, intake: Intake) -> FederatedRooms:
    """What users of this server do in rooms of others."""
    ports = foundation.ports
    db, clock, interner, nodes = ports.db, ports.clock, foundation.interner, foundation.nodes
    author = Author(ports.config.name, ports.signing_keys[0], clock, ports.randomness)
    handshake = Handshake(remote.requests, author)
    elsewhere = Elsewhere(db, interner, nodes, foundation.live, clock)
    store = RoomStore(db, interner, nodes, foundation.live, Wholeness(db, clock), clock)
    relaying = Relaying(db, intake.checking, intake.admission, intake.policies)
    return FederatedRooms(
        RemoteJoining(
            handshake,
            intake.checking,
            store,
            intake.admission,
            intake.outliers,
            intake.receiving.receive_checked,
            intake.arrivals.entering,
            omits_members=ports.config.federation.partial_joins,
        ),
        RemoteKnocking(handshake, elsewhere, intake.checking),
        RemoteLeaving(handshake, elsewhere, author),
        RemoteInviting(db, interner, foundation.timeline, remote.requests, relaying),
        intake.queues.settle,
    )


def compose_remote_rooms(
    foundation: Foundation,
    remote: Remote,
    intake: Intake,
    fetch_profile: FetchProfile,
    bridges: Bridges,
    lists: ListRequests,
) -> Composed:
    """What other servers ask of our rooms, and what they are told."""
    ports = foundation.ports
    db, clock, interner, nodes = ports.db, ports.clock, foundation.interner, foundation.nodes
    wholeness = Wholeness(db, clock)
    doubts = Doubts(db, remote.keyring, wholeness, clock)
    sights = ServerSights(interner, nodes)
    serving = Serving(ports.config.name, db, clock, nodes, intake.gate, sights, wholeness, doubts)
    return Composed(
        endpoints=[
            Events(serving),
            Backfill(serving),
            Federation2015(serving),
            SpacesOfThisServer(Spaces(db, interner)),
            *_handshakes(foundation, remote, intake, doubts, bridges),
            *_queries(foundation, remote, fetch_profile, bridges),
        ],
        workers=[
            *_tellers(foundation, remote, sights),
            *_list_keepers(foundation, remote, lists),
            *_completers(foundation, remote, intake),
        ],
    )


def _handshakes(
    foundation: Foundation, remote: Remote, intake: Intake, doubts: Doubts, bridges: Bridges
) -> list[object]:
    """How users of other servers come into our rooms and leave them, and how ours are invited."""
    ports, gate, live = foundation.ports, intake.gate, foundation.live
    db, clock, interner, nodes = ports.db, ports.clock, foundation.interner, foundation.nodes
    doorkeeper = Doorkeeper(ports.config.name, ports.signing_keys[0])
    relaying = Relaying(db, intake.checking, intake.admission, intake.policies)
    offers = Offers(db, interner, live, gate, doubts, clock)
    admissions = Admissions(db, interner, nodes, gate, offers, relaying, doorkeeper)
    elsewhere = Elsewhere(db, interner, nodes, live, clock)
    inviting = RemoteInviting(db, interner, foundation.timeline, remote.requests, relaying)
    third_party = ThirdPartyInvites(db, interner, live, foundation.timeline, remote.requests, inviting, gate)
    return [
        Joins(offers, admissions),
        Leaves(offers, admissions),
        Knocks(offers, admissions),
        Invites(
            Invitations(db, interner, elsewhere, intake.checking, doorkeeper, bridges.queries.summon_users)
        ),
        ThirdPartyInvitesOfServers(third_party),
    ]


def _queries(
    foundation: Foundation, remote: Remote, fetch_profile: FetchProfile, bridges: Bridges
) -> list[object]:
    """What is asked of users and of the directory."""
    ports, interner = foundation.ports, foundation.interner
    server, db, clock = ports.config.name, ports.db, ports.clock
    directories = RemoteDirectories(remote.requests)
    aliases = lay_aliases(foundation, directories.resolve, bridges)
    profiles = Profiles(server, db, clock, fetch_profile, bridges.queries.summon_users)
    claims = KeyClaims(db, interner, clock, RemoteKeyRequests(remote.requests))
    tells_names = ports.config.federation.share_device_names
    return [
        Queries(server, aliases, profiles),
        PublicRoomsOfThisServer(PublicRooms(db, interner, directories.list_rooms)),
        UserKeys(KeysForServers(db, interner, claims, tells_names=tells_names)),
    ]


def _tellers(foundation: Foundation, remote: Remote, sights: ServerSights) -> list[Worker]:
    """Who tells other servers what is new."""
    ports, interner = foundation.ports, foundation.interner
    config, db, clock = ports.config, ports.db, ports.clock
    slots = asyncio.Semaphore(MAX_UNDER_WAY)
    leases = Leases(db, clock, ports.randomness.token(12), is_shared=config.database.is_shared)
    wires = Wires(config.name, db, remote.requests, sights, clock, slots, leases)
    passing = PassingReader(interner, clock, tells_presence=config.presence.enabled)
    outbound = Outbound(wires, interner, passing, f"{clock.now_ms()}-{ports.randomness.text(6)}-")
    remote.standings.subscribe(outbound.wake)
    watch_outbound(ports.registry, outbound)
    return [
        outbound,
        DeviceUpdates(db, interner, clock, tells_names=config.federation.share_device_names),
    ]


def _list_keepers(foundation: Foundation, remote: Remote, lists: ListRequests) -> list[Worker]:
    """Who keeps the lists of devices of other servers' users."""
    resync = DeviceListResync(foundation.ports.db, foundation.interner, lists, foundation.ports.clock)
    remote.standings.subscribe(resync.wake)
    return [resync]


def _completers(foundation: Foundation, remote: Remote, intake: Intake) -> list[Worker]:
    """Who brings what is missing of rooms that were joined without their members, or with keys missing."""
    ports, interner, nodes = foundation.ports, foundation.interner, foundation.nodes
    db, clock, writers, claimed = ports.db, ports.clock, foundation.writers, intake.claimed
    completing = Completing(db, interner, nodes, writers, claimed, clock)
    rechecking = Rechecking(db, interner, nodes, writers, claimed, remote.keyring, clock)
    return [
        *(
            JobRunner(db, clock, ports.randomness, COMPLETION, completing.run, at_once=1)
            for _ in range(RUNNERS)
        ),
        JobRunner(db, clock, ports.randomness, RECHECK, rechecking.run, at_once=1),
    ]
