"""Protocols of the past: what the configuration enables of them."""

import msgspec

from ranvier.app.compose.appservices import Bridges
from ranvier.app.compose.foundation import Composed, Foundation
from ranvier.app.compose.rooms import lay_aliases
from ranvier.historical.federation_2014.admitting import Admitting
from ranvier.historical.federation_2014.backfilling import Backfilling
from ranvier.historical.federation_2014.bridge import Author, BridgedQueries, BridgedRooms
from ranvier.historical.federation_2014.edus import Edus
from ranvier.historical.federation_2014.endpoints import Federation2014
from ranvier.historical.federation_2014.entering import Entering, Waiting
from ranvier.historical.federation_2014.events import Signer
from ranvier.historical.federation_2014.ledger import Ledger
from ranvier.historical.federation_2014.outgoing import Outgoing, Sending
from ranvier.historical.federation_2014.passing import Passing, Subscriptions
from ranvier.historical.federation_2014.peers import Peers
from ranvier.historical.federation_2014.serving import Serving
from ranvier.historical.federation_2014.showing import Showing
from ranvier.historical.federation_2014.transactions import Transactions, forget_answers
from ranvier.services.accounts.profiles import FetchProfile, Profiles
from ranvier.services.ephemeral.typing import Typing
from ranvier.services.federation.edus import PresenceEdus
from ranvier.services.flows.remote_joining import RoomStore
from ranvier.services.rooms.aliases import FetchAlias
from ranvier.services.rooms.elsewhere import Elsewhere
from ranvier.services.rooms.history import FillGap
from ranvier.services.rooms.remote import RemoteRooms
from ranvier.services.rooms.wholeness import Wholeness
from ranvier.services.sweeping import Sweeper


class OtherServers(msgspec.Struct, frozen=True):
    """By what services reach other servers, and what carries it."""

    rooms: RemoteRooms
    fetch_alias: FetchAlias
    fetch_profile: FetchProfile
    fill_gap: FillGap
    composed: Composed = Composed()


def lay_federation_2014(
    foundation: Foundation,
    rest: OtherServers,
    typing: Typing,
    bridges: Bridges,
) -> OtherServers:
    """`rest`: those of today, which are returned as they are where the protocol is off."""
    ports, interner, nodes = foundation.ports, foundation.interner, foundation.nodes
    config, db, clock, randomness = ports.config, ports.db, ports.clock, ports.randomness
    settings = config.historical.federation_2014
    if not settings.enabled:
        return rest
    peers = Peers(config.name, settings.peers, ports.network.unguarded or ports.network.http)
    signer = Signer(config.name, ports.signing_keys[0])
    ledger = Ledger(config.name, peers.is_peer, interner)
    showing = Showing(db, ledger, foundation.writers, interner, signer, clock, randomness)
    outgoing = Outgoing(db, peers, clock, randomness)
    waiting = Waiting()
    store = RoomStore(db, interner, nodes, foundation.live, Wholeness(db, clock), clock)
    elsewhere = Elsewhere(db, interner, nodes, foundation.live, clock)
    entering = Entering(db, interner, ledger, store, elsewhere, peers, signer)
    admitting = Admitting(db, ledger, peers, showing, entering, waiting)
    subscriptions = Subscriptions(db, interner, outgoing, clock)
    presence = PresenceEdus(db, interner, clock) if config.presence.enabled else None
    edus = Edus(db, interner, typing, presence, subscriptions, outgoing, clock)
    transactions = Transactions(db, peers, admitting, edus, outgoing, clock)
    queries = BridgedQueries(peers, rest.fetch_alias, rest.fetch_profile)
    author = Author(ledger, clock, randomness)
    serving = Serving(
        db,
        clock,
        peers,
        Profiles(config.name, db, clock, queries.profile, bridges.queries.summon_users),
        lay_aliases(foundation, queries.resolve, bridges),
        showing.catch_up,
    )
    return OtherServers(
        BridgedRooms(db, author, peers, outgoing, entering, waiting, foundation.timeline, rest.rooms),
        queries.resolve,
        queries.profile,
        Backfilling(db, interner, nodes, ledger, peers, signer, clock, rest.fill_gap).fill,
        Composed(
            endpoints=[Federation2014(transactions, serving)],
            workers=[
                Sending(outgoing, peers),
                Passing(db, interner, showing, outgoing, subscriptions, peers, clock),
                Sweeper("federation-2014-sweeper", db, clock, forget_answers),
            ],
        ),
    )
