"""Application services: what they may do, what they are told and asked."""

import msgspec

from ranvier.app.compose.foundation import Composed, Foundation
from ranvier.http.client.appservice_ping import AppservicePing
from ranvier.http.client.appservice_room_directory import AppserviceRoomDirectory
from ranvier.http.client.third_party_lookup import ThirdPartyLookup
from ranvier.services.accounts.authentication import Authentication
from ranvier.services.accounts.creation import AccountCreation
from ranvier.services.accounts.last_seen import LastSeen
from ranvier.services.accounts.sessions import SessionDrafts
from ranvier.services.appservices.accounts import AppserviceAccounts
from ranvier.services.appservices.authentication import AppserviceAuthentication
from ranvier.services.appservices.delivery import Deliveries, Wires
from ranvier.services.appservices.directory import NetworkDirectories
from ranvier.services.appservices.news import NewsReader
from ranvier.services.appservices.pinging import Pinging
from ranvier.services.appservices.queries import Queries
from ranvier.services.appservices.registry import Appservices
from ranvier.services.appservices.requests import AppserviceRequests
from ranvier.services.appservices.third_party import ThirdPartyNetworks


class Bridges(msgspec.Struct, frozen=True):
    """What other areas use of this one."""

    registry: Appservices
    requests: AppserviceRequests
    queries: Queries
    accounts: AppserviceAccounts


def lay_appservices(foundation: Foundation, creation: AccountCreation, drafts: SessionDrafts) -> Bridges:
    ports = foundation.ports
    registry = Appservices(ports.registrations)
    requests = AppserviceRequests(ports.network.unguarded or ports.network.http, ports.clock)
    return Bridges(
        registry,
        requests,
        Queries(ports.db, registry, requests),
        AppserviceAccounts(ports.config.name, ports.db, registry, creation, drafts),
    )


def authenticate(
    foundation: Foundation, bridges: Bridges, creation: AccountCreation, last_seen: LastSeen
) -> Authentication | AppserviceAuthentication:
    """Who knows access tokens: those of users, and where there are application services, theirs."""
    ports = foundation.ports
    users = Authentication(ports.db, ports.clock, last_seen)
    if not bridges.registry:
        return users
    return AppserviceAuthentication(ports.db, bridges.registry, users, creation)


def compose_appservices(foundation: Foundation, bridges: Bridges) -> Composed:
    ports, clock = foundation.ports, foundation.ports.clock
    wires = Wires(
        ports.db,
        clock,
        bridges.requests,
        holder=ports.randomness.token(12),
        is_shared=ports.config.database.is_shared,
    )
    readers = [
        (service, NewsReader(foundation.interner, foundation.presenting, clock, service))
        for service in bridges.registry
    ]
    deliveries = Deliveries(wires, readers)
    return Composed(
        endpoints=[
            AppservicePing(Pinging(bridges.registry, bridges.requests, clock, deliveries.note_reached)),
            AppserviceRoomDirectory(NetworkDirectories(ports.db)),
            ThirdPartyLookup(ThirdPartyNetworks(bridges.registry, bridges.requests, clock)),
        ],
        workers=[deliveries],
    )
