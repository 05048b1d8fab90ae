"""Single sign-on, and signing in by QR code."""

from collections.abc import Iterator

from ranvier.app.compose.accounts import Accounts
from ranvier.app.compose.foundation import Composed, Foundation, Ports
from ranvier.app.config import Config, SsoProviderConfig
from ranvier.http.client.rendezvous import JsonRendezvous, TextRendezvous
from ranvier.http.client.sso_confirmation import SsoConfirmation
from ranvier.http.client.sso_login_redirect import SsoLoginRedirect
from ranvier.http.client.sso_pages import CALLBACK_PATH, SsoPages
from ranvier.http.client.sso_return import SsoReturn
from ranvier.http.cookies import CookieJar
from ranvier.services.accounts.login_tokens import LoginTokens
from ranvier.services.accounts.registration import RegistrationPolicy
from ranvier.services.oauth.addresses import CONTINUE
from ranvier.services.rendezvous.sessions import Rendezvous
from ranvier.services.sso.admitting import Admitting
from ranvier.services.sso.confirming import Confirming
from ranvier.services.sso.providers import (
    Admission,
    ClientOfProvider,
    Endpoints,
    Provider,
    Providers,
    ProviderSettings,
)
from ranvier.services.sso.signing_in import Door, SigningIn
from ranvier.services.sso.upstream import Upstream
from ranvier.services.sso.visits import Visits


def lay_providers(config: Config) -> Providers:
    """The identity providers that people can sign in through."""
    url = config.public_base_url
    return Providers([] if url is None else [_settings(config, one, url) for one in config.sso.providers])


def compose_sso(
    foundation: Foundation, accounts: Accounts, providers: Providers, policy: RegistrationPolicy
) -> Composed:
    """`policy`: who may register, and what."""
    url = foundation.ports.config.public_base_url
    sign_in = _sign_in(foundation, accounts, providers, policy, url) if url and providers.list() else []
    return Composed(endpoints=[*_rendezvous(foundation.ports), *sign_in])


def can_meet_by_text(config: Config) -> bool:
    """Whether MSC4108 is served."""
    return config.rendezvous.enabled and config.public_base_url is not None


def _rendezvous(ports: Ports) -> Iterator[object]:
    config = ports.config
    if config.rendezvous.enabled:
        rendezvous = Rendezvous(ports.db, ports.clock, ports.randomness)
        yield JsonRendezvous(rendezvous, is_public=config.rendezvous.public)
        # Its answers name the whole URL.
        if config.public_base_url is not None:
            yield TextRendezvous(rendezvous, config.public_base_url)


def _sign_in(
    foundation: Foundation,
    accounts: Accounts,
    providers: Providers,
    policy: RegistrationPolicy,
    public_base_url: str,
) -> list[object]:
    ports = foundation.ports
    jar = CookieJar(is_https=public_base_url.startswith("https:"))
    pages = SsoPages(jar)
    confirming = Confirming(ports.db, accounts.uia, providers)
    signing_in = SigningIn(
        _doors(ports, providers),
        Visits(ports.db, ports.clock, ports.randomness),
        Admitting(ports.db, policy, accounts.creation),
        confirming,
        LoginTokens(ports.db, ports.clock, ports.randomness, accounts.uia),
        # Our own page takes the token only of the browser that it sent away.
        [*ports.config.sso.trusted_redirects, public_base_url.rstrip("/") + CONTINUE],
    )
    return [
        SsoLoginRedirect(ports.config.name, providers, signing_in, pages),
        SsoReturn(signing_in, pages, jar),
        SsoConfirmation(ports.config.name, confirming, signing_in, pages, jar),
    ]


def _doors(ports: Ports, providers: Providers) -> dict[str, Door]:
    network = ports.network
    doors = {}
    for config in ports.config.sso.providers:
        settings = providers.get(config.id)
        http = (network.unguarded or network.http) if config.allow_private_address else network.http
        doors[config.id] = Door(settings, Upstream(settings, http, ports.clock))
    return doors


def _settings(config: Config, provider: SsoProviderConfig, public_base_url: str) -> ProviderSettings:
    admission = {name: getattr(provider, name) for name in Admission.__struct_fields__}
    if provider.allow_registration is None:
        admission["allow_registration"] = config.registration.mode == "open"
    return ProviderSettings(
        provider=Provider(provider.id, provider.name, provider.icon, provider.brand),
        client=ClientOfProvider(
            client_id=provider.client_id,
            client_secret=provider.client_secret,
            authentication=provider.client_authentication,
            scopes=provider.scopes,
            redirect_uri=public_base_url.rstrip("/") + CALLBACK_PATH,
        ),
        admission=Admission(**admission),
        issuer=provider.issuer,
        endpoints=_endpoints(provider),
    )


def _endpoints(provider: SsoProviderConfig) -> Endpoints | None:
    if provider.authorization_endpoint is None or provider.token_endpoint is None:
        return None
    return Endpoints(provider.authorization_endpoint, provider.token_endpoint, provider.userinfo_endpoint)
