"""What everybody may ask without an account: what runs here, and how it is found."""

from ranvier.app.compose.foundation import Composed, Foundation
from ranvier.app.config import SupportConfig
from ranvier.http.client.versions import Versions
from ranvier.http.health import Health
from ranvier.http.landing import Landing
from ranvier.http.metrics import MetricsEndpoint
from ranvier.http.well_known import WellKnown, support_document
from ranvier.store.probe import probe

# Every operation of these is served or stands in docs/endpoints.md with the reason why not.
VERSIONS = tuple(f"v1.{minor}" for minor in range(1, 20))

UNSTABLE_FEATURES = {
    "org.matrix.simplified_msc3575": True,  # MSC4186
}


def compose_public(foundation: Foundation) -> Composed:
    config, db = foundation.ports.config, foundation.ports.db

    async def answer() -> None:
        await db.read(probe)

    return Composed(
        endpoints=[
            Health(answer),
            Landing(config.name, registration_is_open=config.registration.mode == "open"),
            MetricsEndpoint(foundation.ports.registry),
            Versions(VERSIONS, UNSTABLE_FEATURES),
            WellKnown(config.name, config.public_base_url, _support(config.support)),
        ]
    )


def _support(support: SupportConfig) -> dict[str, object]:
    contacts = (
        ("m.role.admin", support.admin_matrix_id, support.admin_email),
        ("m.role.security", support.security_matrix_id, support.security_email),
    )
    return support_document(support.page, contacts)
