"""Flows: what spans accounts and rooms."""

from ranvier.app.compose.accounts import Accounts
from ranvier.app.compose.appservices import Bridges
from ranvier.app.compose.foundation import Composed, Foundation
from ranvier.http.client.account_deactivation import AccountDeactivation
from ranvier.services.accounts.profiles import PROPAGATION
from ranvier.services.flows.deactivation import LEAVING, Deactivation, Departure
from ranvier.services.flows.profile_propagation import ProfilePropagation
from ranvier.services.jobs import JobRunner, Run
from ranvier.services.rooms.inviting import Inviting
from ranvier.services.rooms.membership import Membership
from ranvier.services.rooms.remote import RemoteRooms


def compose_flows(
    foundation: Foundation, accounts: Accounts, remote: RemoteRooms, bridges: Bridges
) -> Composed:
    ports = foundation.ports
    summon = bridges.queries.summon_users
    inviting = Inviting(ports.db, foundation.interner, foundation.timeline, remote, summon)
    membership = Membership(ports.db, foundation.timeline, inviting, remote)
    runs: dict[str, Run] = {
        PROPAGATION: ProfilePropagation(ports.db, foundation.timeline).run,
        LEAVING: Departure(ports.db, membership.leave).run,
    }
    return Composed(
        endpoints=[AccountDeactivation(Deactivation(ports.db, ports.clock, accounts.uia))],
        workers=[JobRunner(ports.db, ports.clock, ports.randomness, kind, run) for kind, run in runs.items()],
    )
