"""Other servers: what we ask of them, and what they send and ask of us."""

import msgspec

from ranvier.app.compose.federation_metrics import watch_inbound
from ranvier.app.compose.foundation import Composed, Foundation
from ranvier.core.federation.edus import (
    DeviceListUpdate,
    DirectToDevice,
    Presence,
    Receipts,
    SigningKeyUpdate,
    Typing,
)
from ranvier.core.identifiers import ServerName
from ranvier.http.federation.guard import Origins
from ranvier.http.federation.keys import Keys
from ranvier.http.federation.transactions import Transactions
from ranvier.http.federation.version import Version
from ranvier.services.devices.remote_lists import RemoteDeviceLists
from ranvier.services.devices.to_device import ToDevice
from ranvier.services.ephemeral.typing import Typing as LocalTyping
from ranvier.services.federation.arrivals import Arrivals
from ranvier.services.federation.edus import DeviceEdus, PresenceEdus, RoomEdus
from ranvier.services.federation.gate import Gate
from ranvier.services.federation.inbound import (
    EduHandlers,
    Inbound,
    TransactionAnswers,
    forget_answers,
)
from ranvier.services.federation.own_keys import Notary, OwnKeys
from ranvier.services.federation.room_queues import RoomQueues
from ranvier.services.federation.withdrawals import Withdrawals
from ranvier.services.remote.finder import Finder
from ranvier.services.remote.keyring import Keyring
from ranvier.services.remote.requests import Requests
from ranvier.services.remote.standing import Standings
from ranvier.services.remote.verification import Verification
from ranvier.services.rooms.admission import Admission
from ranvier.services.rooms.backfilling import Backfilling
from ranvier.services.rooms.checking import Checking
from ranvier.services.rooms.claimed_state import ClaimedStates
from ranvier.services.rooms.elsewhere import Elsewhere
from ranvier.services.rooms.missing import Missing
from ranvier.services.rooms.outliers import Outliers
from ranvier.services.rooms.past import Past
from ranvier.services.rooms.policy_servers import PolicyServers
from ranvier.services.rooms.receiving import Receiving
from ranvier.services.sweeping import Sweeper


class Remote(msgspec.Struct, frozen=True):
    """The ways to other servers."""

    standings: Standings
    requests: Requests
    keyring: Keyring
    origins: Origins


class Intake(msgspec.Struct, frozen=True):
    """How events of other servers come in."""

    checking: Checking
    missing: Missing
    outliers: Outliers
    admission: Admission
    policies: PolicyServers
    gate: Gate
    queues: RoomQueues
    arrivals: Arrivals
    backfilling: Backfilling
    claimed: ClaimedStates
    receiving: Receiving


def lay_remote(foundation: Foundation) -> Remote:
    ports, interner = foundation.ports, foundation.interner
    config, db, clock = ports.config, ports.db, ports.clock
    network, key = ports.network, ports.signing_keys[0]
    finder = Finder(network.http, network.resolver, clock, ports.randomness, config.federation.addresses)
    standings = Standings(db, interner, clock, ports.randomness)
    requests = Requests(config.name, key, finder, standings, network.http, clock)
    own_keys = {key.key_id: key.verify_key for key in ports.signing_keys}
    notaries = [ServerName(name) for name in config.federation.trusted_notaries]
    past_notaries = [ServerName(name) for name in config.federation.past_notaries]
    keyring = Keyring(db, interner, requests, clock, own_keys, notaries, past_notaries)
    return Remote(standings, requests, keyring, Origins(Verification(config.name, keyring, standings)))


def lay_intake(foundation: Foundation, remote: Remote) -> Intake:
    db, interner, nodes = foundation.ports.db, foundation.interner, foundation.nodes
    checking = Checking(remote.keyring)
    missing = Missing(remote.requests, checking)
    clock = foundation.ports.clock
    outliers = Outliers(db, interner, nodes, clock)
    claimed = ClaimedStates(db, interner, nodes, missing, outliers)
    policies = PolicyServers(db, interner, foundation.live, remote.requests)
    foundation.timeline.heed(policies)
    admission = Admission(db, interner, nodes, foundation.writers, outliers, policies)
    receiving = Receiving(db, checking, missing, outliers, claimed, admission, clock)
    past = Past(db, interner, nodes, outliers, clock)
    backfilling = Backfilling(db, interner, missing, receiving, past, clock)
    gate, queues = Gate(interner), RoomQueues(receiving, clock)
    return Intake(
        checking,
        missing,
        outliers,
        admission,
        policies,
        gate,
        queues,
        Arrivals(db, gate, queues),
        backfilling,
        claimed,
        receiving,
    )


def compose_federation(
    foundation: Foundation, remote: Remote, intake: Intake, typing: LocalTyping
) -> Composed:
    ports, interner = foundation.ports, foundation.interner
    server, db, clock = ports.config.name, ports.db, ports.clock
    own_keys = OwnKeys(server, ports.signing_keys, clock)
    notary = Notary(server, ports.signing_keys[0], own_keys, remote.keyring)
    answers = TransactionAnswers(db, interner, clock)
    elsewhere = Elsewhere(db, interner, foundation.nodes, foundation.live, clock)
    watch_inbound(ports.registry, intake.queues)
    withdrawals = Withdrawals(server, elsewhere, intake.checking)
    handlers = _edu_handlers(foundation, intake.gate, typing)
    inbound = Inbound(db, answers, intake.gate, intake.queues, intake.arrivals, withdrawals, handlers)
    return Composed(
        endpoints=[Keys(own_keys, notary, clock), Version(), Transactions(inbound)],
        workers=[Sweeper("transaction-sweeper", db, clock, forget_answers)],
    )


def _edu_handlers(foundation: Foundation, gate: Gate, typing: LocalTyping) -> EduHandlers:
    ports, interner = foundation.ports, foundation.interner
    db, clock = ports.db, ports.clock
    of_rooms = RoomEdus(db, interner, clock, gate, typing)
    of_devices = DeviceEdus(ToDevice(db, interner, clock, ports.randomness))
    of_lists = RemoteDeviceLists(db, interner)
    handlers: EduHandlers = {
        Typing: of_rooms.typing,
        Receipts: of_rooms.receipts,
        DirectToDevice: of_devices.direct_to_device,
        DeviceListUpdate: of_lists.device_list_update,
        SigningKeyUpdate: of_lists.signing_key_update,
    }
    if ports.config.presence.enabled:
        return {**handlers, Presence: PresenceEdus(db, interner, clock).presence}
    return handlers
