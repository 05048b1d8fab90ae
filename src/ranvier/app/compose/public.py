"""What everybody may ask without an account: what runs here, and how it is found."""

from ranvier.app.compose.foundation import Composed, Foundation
from ranvier.app.config import SupportConfig
from ranvier.http.client.versions import Versions
from ranvier.http.health import Health
from ranvier.http.landing import Landing
from ranvier.http.metrics import MetricsEndpoint
from ranvier.http.well_known import WellKnown, support_document
from ranvier.store.probe import probe

# What clients must see to speak with a server at all. More than is true: media and application services of these
# versions are not served yet (docs/endpoints.md), so a client finds 404 there.
VERSIONS = ("v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10", "v1.11", "v1.12")


def compose_public(foundation: Foundation) -> Composed:
    config, db = foundation.ports.config, foundation.ports.db

    async def answer() -> None:
        await db.read(probe)

    return Composed(
        endpoints=[
            Health(answer),
            Landing(config.name, registration_is_open=config.registration.mode == "open"),
            MetricsEndpoint(foundation.ports.registry),
            Versions(VERSIONS, {}),
            WellKnown(config.name, config.public_base_url, _support(config.support)),
        ]
    )


def _support(support: SupportConfig) -> dict[str, object]:
    contacts = (
        ("m.role.admin", support.admin_matrix_id, support.admin_email),
        ("m.role.security", support.security_matrix_id, support.security_email),
    )
    return support_document(support.page, contacts)
