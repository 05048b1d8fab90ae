"""The identity providers that the administrator set up."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from ranvier.core.errors import NotFound

ClientAuthentication = Literal["client_secret_basic", "client_secret_post"]


class Provider(msgspec.Struct, frozen=True, omit_defaults=True):
    """A provider as clients and pages show it. Spec: client-server API, `identity_providers` of m.login.sso."""

    id: str
    name: str
    icon: str | None = None  # an mxc URI
    brand: str | None = None  # what clients know to draw by themselves


class Endpoints(msgspec.Struct, frozen=True):
    """Where a provider is asked."""

    authorization: str
    token: str
    userinfo: str | None


class ClientOfProvider(msgspec.Struct, frozen=True, kw_only=True):
    """What this server is for a provider."""

    client_id: str
    client_secret: str | None = None
    authentication: ClientAuthentication | None = None  # None: what the provider says that it takes
    scopes: Sequence[str] = ("openid",)
    redirect_uri: str


class Admission(msgspec.Struct, frozen=True, kw_only=True):
    """Who of a provider's users may come in, and what their accounts look like."""

    subject_claim: str = "sub"
    required_claims: Mapping[str, Sequence[str]] = {}
    allow_registration: bool = False
    link_existing: bool = False
    user_name: str = ""  # templates of core.sso.claims; '': none
    display_name: str = ""
    email: str = ""
    email_is_verified: bool = False  # whether addresses are proved without the claim that says so


class ProviderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """A provider, whole."""

    provider: Provider
    client: ClientOfProvider
    admission: Admission
    issuer: str | None  # of an OpenID provider, which tells its endpoints itself
    endpoints: Endpoints | None = None  # of one that is none


class Providers:
    """Knows them by their ids, in the order of the configuration."""

    def __init__(self, settings: Iterable[ProviderSettings]) -> None:
        self._settings = {one.provider.id: one for one in settings}

    def list(self) -> Sequence[Provider]:
        """What sign-in pages offer."""
        return [one.provider for one in self._settings.values()]

    def get(self, provider_id: str) -> ProviderSettings:
        """Raises: NotFound."""
        found = self._settings.get(provider_id)
        if found is None:
            raise NotFound("This server knows no such identity provider.")
        return found
