"""This server as its own OAuth 2.0 authorization server, and the pages on which people sign in."""

from ranvier.app.compose.accounts import Accounts
from ranvier.app.compose.addresses import oauth_addresses
from ranvier.app.compose.appservices import Bridges
from ranvier.app.compose.foundation import Composed, Foundation
from ranvier.app.compose.media import Media
from ranvier.http.oauth.account_pages import AccountPages
from ranvier.http.oauth.avatar_page import AvatarPage
from ranvier.http.oauth.client_endpoints import OAuthClientEndpoints
from ranvier.http.oauth.consent_pages import AuthorizePage, LinkPage
from ranvier.http.oauth.contacts_page import ContactsPage
from ranvier.http.oauth.forgot_page import ForgotPage
from ranvier.http.oauth.metadata import AuthMetadata
from ranvier.http.oauth.signing_pages import SigningOffer, SigningPages, SignUpPage
from ranvier.http.oauth.visitor import Pages
from ranvier.services.accounts.password_change import PasswordChange
from ranvier.services.accounts.profiles import FetchProfile, Profiles
from ranvier.services.accounts.registration import Registration, RegistrationPolicy
from ranvier.services.accounts.threepids import Threepids
from ranvier.services.accounts.uia import EMAIL_IDENTITY
from ranvier.services.oauth.account import OwnAccount, OwnDevices
from ranvier.services.oauth.addresses import Addresses
from ranvier.services.oauth.authorizing import Authorizing
from ranvier.services.oauth.avatar import OwnAvatar
from ranvier.services.oauth.browsers import Browsers
from ranvier.services.oauth.clients import Clients
from ranvier.services.oauth.contacts import OwnContacts
from ranvier.services.oauth.linking import Linking
from ranvier.services.oauth.recovering import Recovering
from ranvier.services.oauth.revoking import Revoking
from ranvier.services.oauth.signing_up import SigningUp
from ranvier.services.oauth.sweeping import sweep_oauth
from ranvier.services.oauth.tokens import OAuthTokens
from ranvier.services.sso.providers import Providers
from ranvier.services.sweeping import Sweeper


def compose_oauth(
    foundation: Foundation,
    accounts: Accounts,
    fetch_profile: FetchProfile,
    bridges: Bridges,
    providers: Providers,
    media: Media,
    policy: RegistrationPolicy,
) -> Composed:
    """Nothing where it is off: clients are told M_UNRECOGNIZED."""
    ports = foundation.ports
    addresses = oauth_addresses(ports.config)
    if addresses is None:
        return Composed()
    browsers = Browsers(ports.db, ports.clock, ports.randomness, accounts.owners, accounts.passwords)
    summon = bridges.queries.summon_users
    profiles = Profiles(ports.config.name, ports.db, ports.clock, fetch_profile, summon)
    pages = Pages(browsers, addresses)
    avatar = OwnAvatar(ports.db, profiles, media.uploads, media.thumbnails)
    can_sign_up = policy.mode != "closed" and ports.config.login.password
    return Composed(
        endpoints=[
            AuthMetadata(addresses, can_sign_up=can_sign_up),
            *_for_clients(foundation, accounts, addresses, pages, can_sign_up=can_sign_up),
            *_signing(foundation, accounts, addresses, browsers, pages, providers, policy),
            AccountPages(
                pages,
                browsers,
                OwnAccount(
                    ports.db, ports.clock, profiles, accounts.owners, accounts.passwords, accounts.uia
                ),
                avatar,
                OwnDevices(ports.db, accounts.last_seen),
                addresses,
            ),
            AvatarPage(pages, avatar, addresses),
            ContactsPage(
                pages,
                OwnContacts(Threepids(ports.db, ports.clock), accounts.validations),
                addresses,
            ),
        ],
        workers=[Sweeper("expired OAuth codes", ports.db, ports.clock, sweep_oauth)],
    )


def _for_clients(
    foundation: Foundation, accounts: Accounts, addresses: Addresses, pages: Pages, *, can_sign_up: bool
) -> list[object]:
    ports = foundation.ports
    db, clock, randomness = ports.db, ports.clock, ports.randomness
    clients = Clients(db, clock)
    authorizing = Authorizing(db, clock, randomness, clients, addresses)
    linking = Linking(db, clock, randomness, clients, addresses)
    tokens = OAuthTokens(db, clock, randomness, accounts.drafts)
    return [
        OAuthClientEndpoints(clients, tokens, Revoking(db), linking),
        AuthorizePage(pages, authorizing, addresses, can_sign_up=can_sign_up),
        LinkPage(pages, linking, authorizing),
    ]


def _signing(
    foundation: Foundation,
    accounts: Accounts,
    addresses: Addresses,
    browsers: Browsers,
    pages: Pages,
    providers: Providers,
    policy: RegistrationPolicy,
) -> list[object]:
    ports = foundation.ports
    by_password = ports.config.login.password
    validations = accounts.validations
    can_recover = by_password and validations is not None
    offer = SigningOffer(ports.config.name, by_password, providers.list(), can_recover)
    can_sign_up = policy.mode != "closed" and by_password
    found: list[object] = [SigningPages(pages, browsers, addresses, offer, can_sign_up=can_sign_up)]
    if can_sign_up:
        registration = Registration(
            policy, accounts.creation, accounts.uia, accounts.passwords, accounts.drafts, ports.randomness
        )
        signing_up = SigningUp(policy, registration, validations, browsers)
        found.append(SignUpPage(pages, browsers, signing_up, addresses, offer))
    if by_password and validations is not None:
        change = PasswordChange(ports.db, accounts.uia, accounts.passwords, ((EMAIL_IDENTITY,),))
        found.append(ForgotPage(pages, Recovering(validations, change), addresses))
    return found
