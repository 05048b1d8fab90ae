"""What everybody may ask without an account: what runs here, and how it is found."""

from ranvier.app.compose.addresses import oauth_addresses
from ranvier.app.compose.foundation import Composed, Foundation
from ranvier.app.compose.rtc import rtc_transports
from ranvier.app.compose.sso import can_meet_by_text
from ranvier.app.config import SupportConfig
from ranvier.http.client.versions import Versions
from ranvier.http.health import Health
from ranvier.http.landing import Landing
from ranvier.http.metrics import MetricsEndpoint
from ranvier.http.well_known import WellKnown, support_document
from ranvier.services.oauth.addresses import ACCOUNT
from ranvier.store.probe import probe

# Every operation of these is served or stands in docs/endpoints.md with the reason why not.
VERSIONS = tuple(f"v1.{minor}" for minor in range(1, 20))

# What is no part of those versions, and what clients ask for by its old name although it is.
UNSTABLE_FEATURES = {
    "org.matrix.simplified_msc3575": True,  # MSC4186: sliding sync
    "org.matrix.msc4140": True,  # delayed events
    "org.matrix.msc4143": True,  # transports of calls
    "org.matrix.msc4222": True,  # state after the timeline, in /sync
    "org.matrix.msc4306": True,  # thread subscriptions
    "org.matrix.msc4354": True,  # sticky events
    "org.matrix.msc3391": True,  # deleting account data
    "org.matrix.msc3814": True,  # dehydrated devices
    "org.matrix.msc2285.stable": True,  # private receipts
    "org.matrix.msc3030": True,  # events by their time
    "org.matrix.msc3440.stable": True,  # threads
    "org.matrix.msc3715.stable": True,  # the direction of /relations
    "org.matrix.msc3827.stable": True,  # the directory by room type
    "org.matrix.msc3856.stable": True,  # lists of threads
    "org.matrix.msc3874": True,  # messages by relation
    "org.matrix.msc3916.stable": True,  # authenticated media
    "uk.half-shot.msc2666.query_mutual_rooms": True,
    "uk.tcpip.msc4133": True,  # profile fields
    "uk.tcpip.msc4133.stable": True,
}


def compose_public(foundation: Foundation) -> Composed:
    config, db = foundation.ports.config, foundation.ports.db

    oauth = oauth_addresses(config)

    async def answer() -> None:
        await db.read(probe)

    return Composed(
        endpoints=[
            Health(answer),
            Landing(
                config.name,
                registration_is_open=config.registration.mode == "open",
                account_url=None if oauth is None else oauth.url(ACCOUNT),
            ),
            MetricsEndpoint(foundation.ports.registry),
            Versions(VERSIONS, UNSTABLE_FEATURES | {"org.matrix.msc4108": can_meet_by_text(config)}),
            WellKnown(config.name, config.public_base_url, _support(config.support), rtc_transports(config)),
        ]
    )


def _support(support: SupportConfig) -> dict[str, object]:
    contacts = (
        ("m.role.admin", support.admin_matrix_id, support.admin_email),
        ("m.role.security", support.security_matrix_id, support.security_email),
    )
    return support_document(support.page, contacts)
