"""Push: rules, what notified, pushers and their delivery. What events do to counts: `services.push.effects`."""

from ranvier.app.compose.foundation import Composed, Foundation
from ranvier.http.client.mail_unsubscribe import MailUnsubscribe
from ranvier.http.client.notifications import NotificationEndpoints
from ranvier.http.client.push_rules import PushRuleEndpoints
from ranvier.http.client.pushers import PusherEndpoints
from ranvier.services.mail_texts import MailTexts
from ranvier.services.push.delivery import PushDelivery
from ranvier.services.push.gateway_teller import GatewayTeller
from ranvier.services.push.history import NotificationHistory
from ranvier.services.push.mail_teller import MailTeller
from ranvier.services.push.pushers import EMAIL, HTTP, Pushers
from ranvier.services.push.rules import PushRules
from ranvier.services.push.telling import Teller
from ranvier.services.push.unsubscribing import Unsubscribing


def compose_push(foundation: Foundation) -> Composed:
    ports = foundation.ports
    tellers: dict[str, Teller] = {HTTP: GatewayTeller(ports.network.http)}
    pages: list[object] = []
    url = ports.config.public_base_url
    if ports.mailer is not None and url is not None:
        unsubscribing = Unsubscribing(ports.db, ports.signing_keys, url)
        texts = MailTexts(ports.config.name, ports.config.mail.templates)
        tellers[EMAIL] = MailTeller(ports.mailer, texts, unsubscribing)
        pages.append(MailUnsubscribe(unsubscribing))
    return Composed(
        endpoints=[
            NotificationEndpoints(NotificationHistory(ports.db, ports.clock, foundation.presenting)),
            PushRuleEndpoints(PushRules(ports.db)),
            PusherEndpoints(Pushers(ports.db, ports.clock, sends_mail=EMAIL in tellers)),
            *pages,
        ],
        workers=[PushDelivery(ports.db, foundation.interner, ports.clock, tellers)],
    )
