"""Accounts: registration, login, devices, profiles, and what users keep here."""

from functools import partial
from typing import Literal

import msgspec

from ranvier.app.compose.addresses import oauth_addresses
from ranvier.app.compose.appservices import Bridges
from ranvier.app.compose.foundation import Composed, Foundation, Ports, offered_versions
from ranvier.app.config import Config
from ranvier.core.room_versions import ROOM_VERSIONS, RoomVersion, get_room_version
from ranvier.http.client.account_data import AccountData
from ranvier.http.client.admin import Admin
from ranvier.http.client.administrative_contact import AdministrativeContact
from ranvier.http.client.capabilities import Capabilities
from ranvier.http.client.device_management import DeviceManagement
from ranvier.http.client.fallback import Fallback
from ranvier.http.client.filter import FilterEndpoints
from ranvier.http.client.login import Login as LoginEndpoints
from ranvier.http.client.login import LoginOffer
from ranvier.http.client.login_token import LoginTokenEndpoints
from ranvier.http.client.logout import Logout as LogoutEndpoints
from ranvier.http.client.mail_confirmation import MailConfirmation
from ranvier.http.client.openid import OpenIdEndpoints
from ranvier.http.client.password_management import PasswordManagement
from ranvier.http.client.profile import Profile
from ranvier.http.client.refresh import Refresh
from ranvier.http.client.registration import Registration as RegistrationEndpoints
from ranvier.http.client.registration_tokens import RegistrationTokenEndpoints
from ranvier.http.client.shared_secret import SharedSecret
from ranvier.http.client.tags import Tags
from ranvier.http.client.whoami import Whoami
from ranvier.services.accounts.account_data import AccountDataStore
from ranvier.services.accounts.creation import AccountCreation, IsReserved
from ranvier.services.accounts.email_validation import EmailValidations
from ranvier.services.accounts.filters import Filters
from ranvier.services.accounts.jwt_login import JwtLogin, JwtTrust
from ranvier.services.accounts.last_seen import LastSeen
from ranvier.services.accounts.login import Login
from ranvier.services.accounts.login_tokens import LoginTokens
from ranvier.services.accounts.logout import Logout
from ranvier.services.accounts.moderation import Moderation
from ranvier.services.accounts.openid import OpenId
from ranvier.services.accounts.owner_flows import OwnerFlows
from ranvier.services.accounts.owners import Owners, WrongPasswords
from ranvier.services.accounts.password_change import PasswordChange
from ranvier.services.accounts.passwords import Passwords
from ranvier.services.accounts.profiles import FetchProfile, Profiles
from ranvier.services.accounts.refreshing import Refreshing
from ranvier.services.accounts.registration import Registration, RegistrationPolicy
from ranvier.services.accounts.registration_tokens import RegistrationTokens
from ranvier.services.accounts.sessions import SessionDrafts
from ranvier.services.accounts.shared_secret import Nonces, SharedSecretRegistration
from ranvier.services.accounts.stages import DummyStage, EmailStage, PasswordStage, RegistrationTokenStage
from ranvier.services.accounts.sweeping import sweep
from ranvier.services.accounts.threepids import Threepids
from ranvier.services.accounts.uia import EMAIL_IDENTITY, ApprovalUrl, FindFlows, UserInteractive
from ranvier.services.accounts.whois import look_up_whois
from ranvier.services.devices.devices import Devices
from ranvier.services.mail_texts import MailTexts
from ranvier.services.oauth.addresses import ACCOUNT
from ranvier.services.sso.providers import Providers
from ranvier.services.sweeping import Sweeper
from ranvier.store.database import Database


class Accounts(msgspec.Struct, frozen=True):
    """What other areas use of this one."""

    uia: UserInteractive
    creation: AccountCreation
    filters: Filters
    passwords: Passwords
    owners: Owners
    drafts: SessionDrafts
    last_seen: LastSeen
    validations: EmailValidations | None  # None where no mail is sent


def lay_accounts(foundation: Foundation) -> Accounts:
    """Make the services that others need, too."""
    ports = foundation.ports
    config, db, clock, randomness = ports.config, ports.db, ports.clock, ports.randomness
    passwords = Passwords(ports.password_cost, config.registration.min_password_length)
    wrong = WrongPasswords(clock.monotonic) if config.rate_limits.enabled else None
    owners = Owners(config.name, db, passwords, wrong)
    stages = (DummyStage(), PasswordStage(owners), RegistrationTokenStage(db, clock), EmailStage(db, clock))
    return Accounts(
        uia=UserInteractive(
            db, clock, randomness, stages, _find_owner_flows(config, db), _approval_url(config)
        ),
        creation=AccountCreation(db, foundation.interner, clock),
        filters=Filters(db),
        passwords=passwords,
        owners=owners,
        drafts=SessionDrafts(clock, randomness),
        last_seen=LastSeen(db, clock),
        validations=_validations(ports),
    )


def _find_owner_flows(config: Config, db: Database) -> FindFlows | None:
    """None where passwords are all that there is."""
    provider_ids = [one.id for one in config.sso.providers]
    return OwnerFlows(db, provider_ids, by_password=config.login.password).find if provider_ids else None


def _approval_url(config: Config) -> ApprovalUrl | None:
    """Where who came by OAuth approves that keys of cross-signing are replaced."""
    addresses = oauth_addresses(config)
    if addresses is None:
        return None
    action = "org.matrix.cross_signing_reset"
    return lambda session_id: addresses.url(ACCOUNT, action=action, session=session_id)


def compose_accounts(
    foundation: Foundation,
    accounts: Accounts,
    fetch_profile: FetchProfile,
    bridges: Bridges,
    providers: Providers,
) -> Composed:
    """`fetch_profile` asks other servers."""
    ports = foundation.ports
    store = AccountDataStore(ports.db, foundation.interner)
    validations = accounts.validations
    pages = [] if validations is None else [MailConfirmation(validations)]
    return Composed(
        endpoints=[
            *_sessions(foundation, accounts, bridges, providers),
            *_registration(foundation, accounts, bridges),
            AdministrativeContact(
                Threepids(ports.db, ports.clock),
                accounts.uia,
                validations,
                is_registration_open=ports.config.registration.mode != "closed",
            ),
            *pages,
            DeviceManagement(Devices(ports.db, ports.clock, accounts.uia, accounts.last_seen)),
            Profile(
                Profiles(
                    ports.config.name, ports.db, ports.clock, fetch_profile, bridges.queries.summon_users
                )
            ),
            AccountData(store),
            Tags(store),
            FilterEndpoints(accounts.filters),
            OpenIdEndpoints(OpenId(ports.config.name, ports.db, ports.clock, ports.randomness)),
            Admin(Moderation(ports.config.name, ports.db), partial(look_up_whois, ports.db)),
            Capabilities(
                get_room_version(ports.config.rooms.default_version),
                _unstable_versions(ports.config),
                _capabilities(ports.config),
            ),
            Fallback(ports.config.name, accounts.uia, _login_offer(ports.config, providers, None)),
        ],
        workers=[accounts.last_seen, Sweeper("expired tokens", ports.db, ports.clock, sweep)],
    )


def _validations(ports: Ports) -> EmailValidations | None:
    """None where no mail is sent."""
    url = ports.config.public_base_url
    if ports.mailer is None or url is None:
        return None
    texts = MailTexts(ports.config.name, ports.config.mail.templates)
    return EmailValidations(ports.db, ports.clock, ports.randomness, ports.mailer, texts, url)


def _sessions(
    foundation: Foundation, accounts: Accounts, bridges: Bridges, providers: Providers
) -> list[object]:
    ports = foundation.ports
    db, clock, uia = ports.db, ports.clock, accounts.uia
    others = () if ports.mailer is None else ((EMAIL_IDENTITY,),)
    return [
        LoginEndpoints(
            Login(db, clock, accounts.owners, accounts.passwords, accounts.drafts),
            bridges.accounts,
            ports.config.public_base_url,
            _login_offer(ports.config, providers, _jwt_login(foundation, accounts, bridges)),
        ),
        LoginTokenEndpoints(LoginTokens(db, clock, ports.randomness, uia)),
        LogoutEndpoints(Logout(db)),
        Refresh(Refreshing(db, accounts.drafts)),
        Whoami(),
        PasswordManagement(PasswordChange(db, uia, accounts.passwords, others)),
    ]


def _login_offer(config: Config, providers: Providers, by_jwt: JwtLogin | None) -> LoginOffer:
    by_password = config.login.password
    # Clients that prefer it offer nothing else: where there are passwords, it must not be.
    is_preferred = oauth_addresses(config) is not None and not by_password
    return LoginOffer(
        by_password=by_password, by_jwt=by_jwt, providers=providers.list(), is_sso_preferred=is_preferred
    )


def _jwt_login(foundation: Foundation, accounts: Accounts, bridges: Bridges) -> JwtLogin | None:
    """None where no tokens are believed."""
    ports = foundation.ports
    config = ports.config.login.jwt
    if config.secret is None:
        return None
    trust = JwtTrust(
        secret=config.secret,
        subject_claim=config.subject_claim,
        issuer=config.issuer,
        audiences=config.audiences,
    )
    policy = registration_policy(ports, bridges)
    return JwtLogin(ports.db, ports.clock, trust, policy, accounts.creation, accounts.drafts)


def _registration(foundation: Foundation, accounts: Accounts, bridges: Bridges) -> list[object]:
    ports = foundation.ports
    config = ports.config
    policy = registration_policy(ports, bridges)
    registration = Registration(
        policy, accounts.creation, accounts.uia, accounts.passwords, accounts.drafts, ports.randomness
    )
    endpoints: list[object] = [
        RegistrationEndpoints(registration, bridges.accounts),
        RegistrationTokenEndpoints(RegistrationTokens(policy, ports.db, ports.clock)),
    ]
    if (secret := config.registration.shared_secret) is not None:
        nonces = Nonces(secret, ports.clock, ports.randomness)
        service = SharedSecretRegistration(
            secret, config.name, nonces, accounts.creation, accounts.passwords, accounts.drafts
        )
        endpoints.append(SharedSecret(service))
    return endpoints


def registration_policy(ports: Ports, bridges: Bridges) -> RegistrationPolicy:
    """Who may register, and what. Nobody makes an account whose password would not be taken."""
    config = ports.config
    return RegistrationPolicy(
        config.name,
        config.registration.mode if config.login.password else "closed",
        config.registration.guests,
        _is_reserved(config, bridges),
        _email_at_registration(ports),
    )


def _email_at_registration(ports: Ports) -> Literal["impossible", "possible", "required"]:
    if ports.mailer is None:
        return "impossible"
    return "required" if ports.config.registration.require_email else "possible"


def _is_reserved(config: Config, bridges: Bridges) -> IsReserved:
    """User ids that nobody can register: those of application services, and the one for server notices."""
    notices = config.server_notices.user
    own = None if notices is None else f"@{notices}:{config.name}"
    return lambda user_id: user_id == own or bridges.registry.is_reserved(user_id)


def _unstable_versions(config: Config) -> list[RoomVersion]:
    return [version for name, version in offered_versions(config).items() if name not in ROOM_VERSIONS]


def _capabilities(config: Config) -> dict[str, object]:
    """What the configuration lets everybody do."""
    delays = config.delayed_events
    capabilities: dict[str, object] = {
        "org.matrix.msc4140.delayed_events": {
            "max_delay_ms": delays.max_delay_ms,
            "max_scheduled": delays.max_scheduled,
        }
    }
    if config.mail.host is not None:
        capabilities["m.3pid_changes"] = {"enabled": True}
    return capabilities
