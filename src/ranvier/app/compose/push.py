"""Push: rules, what notified, pushers and their delivery. What events do to counts: `services.push.effects`."""

from ranvier.app.compose.foundation import Composed, Foundation
from ranvier.http.client.notifications import NotificationEndpoints
from ranvier.http.client.push_rules import PushRuleEndpoints
from ranvier.http.client.pushers import PusherEndpoints
from ranvier.services.push.delivery import PushDelivery
from ranvier.services.push.history import NotificationHistory
from ranvier.services.push.pushers import Pushers
from ranvier.services.push.rules import PushRules


def compose_push(foundation: Foundation) -> Composed:
    ports = foundation.ports
    return Composed(
        endpoints=[
            NotificationEndpoints(NotificationHistory(ports.db, ports.clock, foundation.presenting)),
            PushRuleEndpoints(PushRules(ports.db)),
            PusherEndpoints(Pushers(ports.db, ports.clock)),
        ],
        workers=[PushDelivery(ports.db, foundation.interner, ports.clock, ports.network.http)],
    )
