"""Flows: what spans accounts and rooms."""

from ranvier.app.compose.accounts import Accounts
from ranvier.app.compose.foundation import Composed, Foundation
from ranvier.http.client.account_deactivation import AccountDeactivation
from ranvier.services.accounts.profiles import PROPAGATION
from ranvier.services.flows.deactivation import LEAVING, Deactivation, Departure
from ranvier.services.flows.profile_propagation import ProfilePropagation
from ranvier.services.jobs import JobRunner, Run
from ranvier.services.rooms.membership import Membership


def compose_flows(foundation: Foundation, accounts: Accounts, membership: Membership) -> Composed:
    ports = foundation.ports
    runs: dict[str, Run] = {
        PROPAGATION: ProfilePropagation(ports.db, foundation.timeline).run,
        LEAVING: Departure(ports.db, membership.leave).run,
    }
    return Composed(
        endpoints=[AccountDeactivation(Deactivation(ports.db, ports.clock, accounts.uia))],
        workers=[JobRunner(ports.db, ports.clock, ports.randomness, kind, run) for kind, run in runs.items()],
    )
