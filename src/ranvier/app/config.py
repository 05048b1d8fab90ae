"""The configuration as one frozen tree. What stands here is all there is: docs/configuration.md and the file
that `ranvier init` writes are made from these declarations.
"""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ranvier.core.identifiers import ServerName
from ranvier.core.room_versions import DEFAULT_ROOM_VERSION

ApiName = Literal["client", "federation", "media", "admin"]
ALL_APIS: tuple[ApiName, ...] = ("client", "federation", "media", "admin")


class DatabaseConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where everything but media is kept."""

    url: Annotated[
        str,
        Meta(
            description='"sqlite:FILE", relative to data_dir, or "postgresql://user:password@host:5432/name".'
        ),
    ] = "sqlite:ranvier.db"

    @property
    def is_shared(self) -> bool:
        """Whether there may be other processes on the database."""
        return not self.url.startswith("sqlite:")


class MemoryConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How much memory is spent on what could be read again."""

    caches_mib: Annotated[
        int,
        Meta(
            ge=14,
            le=1_048_576,
            description="MiB for rooms' states, events, pieces of /sync and SQLite's pages, once there is so much "
            "of them. What else is in memory: running.md.",
        ),
    ] = 224


class ListenerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """An address that the server listens on. Without any, there is one on 127.0.0.1:8008 for all APIs."""

    bind: Annotated[str, Meta(description="HOST:PORT; an IPv6 host in brackets.")] = "127.0.0.1:8008"
    apis: Annotated[
        tuple[ApiName, ...], Meta(description="Which APIs are served here. All of them by default.")
    ] = ALL_APIS
    tls_certificate: Annotated[
        Path | None, Meta(description="PEM file with the certificate chain; relative to this file.")
    ] = None
    tls_private_key: Annotated[
        Path | None, Meta(description="PEM file with the private key; relative to this file.")
    ] = None


class RegistrationConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Who may make an account."""

    mode: Annotated[
        Literal["closed", "token", "open"],
        Meta(
            description="closed: only administrators make accounts; token: whoever holds a registration "
            "token; open: everybody."
        ),
    ] = "closed"
    shared_secret: Annotated[
        str | None,
        Meta(description="Enables POST /_synapse/admin/v1/register for bots and test suites that know it."),
    ] = None
    guests: Annotated[bool, Meta(description="Whether guest accounts may be made.")] = False
    require_email: Annotated[
        bool,
        Meta(
            description="Whether who registers has to prove an e-mail address. Needs mail, with which everybody can."
        ),
    ] = False
    min_password_length: Annotated[
        int, Meta(ge=1, le=100, description="How many characters a new password has at least.")
    ] = 8


class FederationConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How this server speaks with others."""

    enabled: Annotated[bool, Meta(description="Whether it does at all.")] = True
    ca_file: Annotated[
        Path | None,
        Meta(description="PEM file with authorities trusted besides the system's; relative to this file."),
    ] = None
    allow_private_addresses: Annotated[
        tuple[str, ...],
        Meta(description="Networks such as 127.0.0.0/8. Requests to other private ranges are refused."),
    ] = ()
    trusted_notaries: Annotated[
        tuple[str, ...],
        Meta(description="Servers that may vouch for others' keys. Each server is asked directly first."),
    ] = ()
    past_notaries: Annotated[
        tuple[str, ...],
        Meta(
            description="Servers that are believed about keys of servers that are gone, for what these signed more "
            "than a week ago; never about a server that answers. Without any, many old rooms cannot be entered."
        ),
    ] = ("matrix.org",)
    addresses: Annotated[
        dict[str, str],
        Meta(description='Fixed addresses for server names, such as { "hs1" = "127.0.0.1:18448" }.'),
    ] = {}
    share_device_names: Annotated[
        bool,
        Meta(description="Whether other servers get to know the names of devices. Often people's names."),
    ] = False
    partial_joins: Annotated[
        bool,
        Meta(
            description="Whether rooms of other servers are usable before all of their members are known here. "
            "Without, whoever joins a large room waits for all of it."
        ),
    ] = True


class SupportConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Whom people and other administrators may turn to: told at /.well-known/matrix/support."""

    page: Annotated[str | None, Meta(description="URL of a page that helps people with this server.")] = None
    admin_matrix_id: Annotated[
        str | None, Meta(description="User id of the administrator, best on another server.")
    ] = None
    admin_email: Annotated[str | None, Meta(description="E-mail address of the administrator.")] = None
    security_matrix_id: Annotated[
        str | None, Meta(description="User id of whoever is told of security problems.")
    ] = None
    security_email: Annotated[
        str | None, Meta(description="E-mail address of whoever is told of security problems.")
    ] = None


class RoomsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How rooms are made."""

    default_version: Annotated[
        str, Meta(description="The room version of new rooms whose maker does not choose one.")
    ] = DEFAULT_ROOM_VERSION.name


class DelayedEventsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Events that users want sent later, such as the one that says that a caller has gone."""

    max_delay_ms: Annotated[int, Meta(ge=1, description="For how long an event can be delayed.")] = 86_400_000
    max_scheduled: Annotated[
        int,
        Meta(ge=0, le=10_000, description="How many events of a user may wait. 0: events cannot be delayed."),
    ] = 100


class MailConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The mail server that takes this server's mails. Without host and sender none are sent; the links in them need
    public_base_url.
    """

    host: Annotated[str | None, Meta(description="Name or address of the mail server.")] = None
    port: Annotated[int, Meta(ge=1, le=65_535, description="465 for tls, 587 for starttls.")] = 587
    security: Annotated[
        Literal["tls", "starttls", "none"], Meta(description="How the connection to it is protected.")
    ] = "starttls"
    username: Annotated[str | None, Meta(description="With which to log in there, if it wants that.")] = None
    password: Annotated[str | None, Meta(description="Belongs to username.")] = None
    sender: Annotated[
        str | None, Meta(description='From whom mails are: "Example <matrix@example.org>".')
    ] = None
    templates: Annotated[
        Path | None,
        Meta(
            description="Directory with templates of your own, which take the place of those with the same names in "
            "ranvier/services/mail_templates; relative to this file."
        ),
    ] = None


class TurnConfig(msgspec.Struct, frozen=True, kw_only=True):
    """TURN servers, which relay calls between those who cannot reach each other."""

    uris: Annotated[
        tuple[str, ...],
        Meta(description='Such as "turn:turn.example.org?transport=udp". Without any: no relay.'),
    ] = ()
    shared_secret: Annotated[
        str | None, Meta(description="What the servers know as static-auth-secret (coturn).")
    ] = None
    lifetime_s: Annotated[
        int, Meta(ge=60, le=604_800, description="For how long a client's credentials are good.")
    ] = 86_400


class RtcConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The LiveKit media server for calls. It needs all three, public_base_url besides, and room.auto_create there."""

    livekit_url: Annotated[
        str | None, Meta(description='Where clients reach it: "wss://livekit.example.org".')
    ] = None
    livekit_key: Annotated[str | None, Meta(description="The name of an API key of it.")] = None
    livekit_secret: Annotated[str | None, Meta(description="The secret of that key.")] = None


class ServerNoticesConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the administrators tell users, each in a room of their own. Off without a user."""

    user: Annotated[
        str | None,
        Meta(
            description='Local part of the user id in whose name notices come, such as "notices". Nobody else can '
            "register it."
        ),
    ] = None
    display_name: Annotated[str, Meta(description="The name of that user.")] = "Server Notices"
    avatar_url: Annotated[str | None, Meta(description="mxc URI of the picture of that user.")] = None
    room_name: Annotated[str, Meta(description="The name of the rooms.")] = "Server Notices"
    room_topic: Annotated[str | None, Meta(description="The topic of the rooms.")] = None
    room_avatar_url: Annotated[str | None, Meta(description="mxc URI of the picture of the rooms.")] = None
    auto_join: Annotated[
        bool, Meta(description="Whether users are joined to the room, rather than invited.")
    ] = False


class RateLimitsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How often clients may ask."""

    enabled: Annotated[bool, Meta(description="Turn off only for tests.")] = True


class PresenceConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Who is online."""

    enabled: Annotated[bool, Meta(description="Whether presence is kept and told.")] = True


class UrlPreviewsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What pages of the web say about themselves, for clients that show it below a link."""

    enabled: Annotated[bool, Meta(description="Whether this server fetches pages for its users.")] = True
    denied_hosts: Annotated[
        tuple[str, ...],
        Meta(
            description='Hosts whose pages are not fetched; * and ? stand for any characters: ["*.example"].'
        ),
    ] = ()


class MediaConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Files."""

    max_upload_bytes: Annotated[int, Meta(ge=1, description="Of one file that a user uploads.")] = 104_857_600
    max_remote_bytes: Annotated[
        int, Meta(ge=1, description="Of one file of another server; larger ones are not fetched.")
    ] = 209_715_200
    user_quota_bytes: Annotated[
        int | None, Meta(description="Of all files that a user uploads together. Without it: no bound.")
    ] = None
    user_quota_count: Annotated[
        int | None, Meta(description="How many files a user may upload. Without it: no bound.")
    ] = None
    remote_cache_bytes: Annotated[
        int,
        Meta(ge=0, description="Of all copies of other servers' files; those unused for longest go first."),
    ] = 10_737_418_240
    remote_retention_days: Annotated[
        int,
        Meta(ge=0, description="A copy that nobody looked at for so long is deleted. 0: only for its size."),
    ] = 30
    unauthenticated_downloads: Annotated[
        bool,
        Meta(
            description="Whether what comes in from now on can be downloaded without an access token, as clients "
            "from before 2024 do. What came in before stays as it is."
        ),
    ] = False
    url_previews: UrlPreviewsConfig = UrlPreviewsConfig()


class JwtConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Logging in with tokens (HS256) of another program: the login type org.matrix.login.jwt. Off without a secret."""

    secret: Annotated[
        Annotated[str, Meta(min_length=16)] | None,
        Meta(description="What that program signs with. Whoever knows it can be anybody here."),
    ] = None
    subject_claim: Annotated[str, Meta(description="The claim that holds the user name.")] = "sub"
    issuer: Annotated[str | None, Meta(description="What iss must be. Without: anything.")] = None
    audiences: Annotated[
        tuple[str, ...], Meta(description="One of which aud must name. Without any: anything.")
    ] = ()


class LoginConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How people log in."""

    password: Annotated[
        bool,
        Meta(description="Whether passwords are taken. Without, people come through single sign-on alone."),
    ] = True
    jwt: JwtConfig = JwtConfig()


class OAuthConfig(msgspec.Struct, frozen=True, kw_only=True):
    """This server as an OAuth 2.0 server, by which clients of today sign in. People see its pages at
    public_base_url.
    """

    enabled: Annotated[
        bool | None,
        Meta(
            description="Whether it is one. Without: if public_base_url starts with https://, or this is a server on "
            "loopback named localhost."
        ),
    ] = None


class SsoProviderConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Another identity provider, through which people sign in. An OpenID provider has an issuer; of others, such as
    GitHub, all endpoints are written here. The redirect URI to register there is public_base_url +
    "/_ranvier/sso/callback".
    """

    id: Annotated[
        str,
        Meta(
            pattern="^[A-Za-z0-9._~-]+$",
            max_length=255,
            description="Never to be changed: accounts are known by it. Synapse writes oidc- before it.",
        ),
    ]
    name: Annotated[str, Meta(min_length=1, description="What people see.")]
    icon: Annotated[str | None, Meta(description="mxc URI of a picture that clients show.")] = None
    brand: Annotated[
        str | None, Meta(description="apple, facebook, github, gitlab, google, or what clients know besides.")
    ] = None
    issuer: Annotated[
        str | None, Meta(description="Of an OpenID provider: its URL, exactly as it writes it itself.")
    ] = None
    authorization_endpoint: Annotated[
        str | None, Meta(description="Of another one, with token_endpoint.")
    ] = None
    token_endpoint: Annotated[str | None, Meta(description="Goes with authorization_endpoint.")] = None
    userinfo_endpoint: Annotated[
        str | None, Meta(description="Goes with authorization_endpoint: what tells who somebody is.")
    ] = None
    client_id: Annotated[str, Meta(min_length=1, description="What the provider calls this server.")]
    client_secret: Annotated[str | None, Meta(description="What it gave to this server.")] = None
    client_secret_file: Annotated[
        Path | None, Meta(description="A file that holds it instead; relative to this file.")
    ] = None
    client_authentication: Annotated[
        Literal["client_secret_basic", "client_secret_post"] | None,
        Meta(description="How it is shown. Without: as the provider says that it takes it."),
    ] = None
    scopes: Annotated[tuple[str, ...], Meta(description="What is asked for.")] = (
        "openid",
        "profile",
        "email",
    )
    subject_claim: Annotated[
        str, Meta(description="The claim that tells people apart and never changes. GitHub: id.")
    ] = "sub"
    user_name: Annotated[
        str,
        Meta(
            description='The user name of a new account, made of claims: "{preferred_username}", '
            '"{email|localpart}", "{address.country}". "": the person chooses.'
        ),
    ] = "{preferred_username}"
    display_name: Annotated[str, Meta(description="The display name of a new account.")] = "{name}"
    email: Annotated[
        str, Meta(description="The e-mail address of a new account, if the claim email_verified is true.")
    ] = "{email}"
    email_is_verified: Annotated[bool, Meta(description="Whether addresses are good without that claim.")] = (
        False
    )
    allow_registration: Annotated[
        bool | None,
        Meta(description="Whether people without an account get one. Without: if registration.mode is open."),
    ] = None
    link_existing: Annotated[
        bool,
        Meta(
            description="Whether somebody new gets the account that has their user_name already. Only where the "
            "user names of the provider are those of this server, and nobody can choose theirs there. Where user_name "
            "is made of {email}, the claim email_verified has to be true."
        ),
    ] = False
    required_claims: Annotated[
        dict[str, tuple[str, ...]],
        Meta(
            description='Who may come in: { groups = ["matrix"] }. Of each claim, one of the values; [] for any.'
        ),
    ] = {}
    allow_private_address: Annotated[
        bool, Meta(description="Whether the provider may be on loopback or in a private network.")
    ] = False


class SsoConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Single sign-on. It needs public_base_url, and a table [[sso.providers]] for each identity provider: what stands
    in it, docs/configuration.md tells.
    """

    providers: tuple[SsoProviderConfig, ...] = ()
    trusted_redirects: Annotated[
        tuple[str, ...],
        Meta(
            description='Clients to which people are sent without being asked: ["https://app.element.io/"]. '
            "All below such a URL."
        ),
    ] = ()


class RendezvousConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Where two devices of a person meet when one signs in with a QR code of the other."""

    enabled: Annotated[bool, Meta(description="Whether they can meet here.")] = True
    public: Annotated[
        bool,
        Meta(
            description="Whether devices that are not signed in may begin, too, by MSC4388. By MSC4108 of 2024 they "
            "always may."
        ),
    ] = False


class AppservicesConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Bridges and bots."""

    registrations: Annotated[
        tuple[Path, ...],
        Meta(description="Registration files of application services; relative to this file."),
    ] = ()


class Federation2014Config(msgspec.Struct, frozen=True, kw_only=True):
    """The federation protocol of 2014: without signatures, so only the peers named here are believed."""

    enabled: Annotated[bool, Meta(description="Whether it is spoken.")] = False
    peers: Annotated[
        dict[str, str], Meta(description='Who is believed, and where: { red = "http://127.0.0.1:9001" }.')
    ] = {}


class SyncV3Config(msgspec.Struct, frozen=True, kw_only=True):
    """The experimental sync v3 of 2021."""

    enabled: Annotated[bool, Meta(description="Whether POST /_matrix/client/v3/sync is served.")] = False


class HistoricalConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Protocols of the past, each off by default."""

    federation_2014: Federation2014Config = Federation2014Config()
    sync_v3_2021: SyncV3Config = SyncV3Config()


class LogConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What is written to standard error."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="The least that is written.")
    ] = "info"
    format: Annotated[
        Literal["text", "json"], Meta(description="text for people, json (one object a line) for machines.")
    ] = "text"


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The whole configuration. Paths are absolute once it is loaded."""

    server_name: Annotated[
        str,
        Meta(
            description='The part of user ids behind the colon, such as "example.org". It can never change '
            "once the server has spoken with others."
        ),
    ]
    data_dir: Annotated[
        Path,
        Meta(description="Where database, media and signing key are kept; relative to this file."),
    ] = Path("data")
    public_base_url: Annotated[
        str | None,
        Meta(description="What clients use to reach this server, if it is not the address they found it at."),
    ] = None
    database: DatabaseConfig = DatabaseConfig()
    memory: MemoryConfig = MemoryConfig()
    listeners: tuple[ListenerConfig, ...] = (ListenerConfig(),)
    registration: RegistrationConfig = RegistrationConfig()
    federation: FederationConfig = FederationConfig()
    support: SupportConfig = SupportConfig()
    rooms: RoomsConfig = RoomsConfig()
    delayed_events: DelayedEventsConfig = DelayedEventsConfig()
    mail: MailConfig = MailConfig()
    login: LoginConfig = LoginConfig()
    oauth: OAuthConfig = OAuthConfig()
    sso: SsoConfig = SsoConfig()
    rendezvous: RendezvousConfig = RendezvousConfig()
    turn: TurnConfig = TurnConfig()
    rtc: RtcConfig = RtcConfig()
    server_notices: ServerNoticesConfig = ServerNoticesConfig()
    rate_limits: RateLimitsConfig = RateLimitsConfig()
    presence: PresenceConfig = PresenceConfig()
    media: MediaConfig = MediaConfig()
    appservices: AppservicesConfig = AppservicesConfig()
    historical: HistoricalConfig = HistoricalConfig()
    log: LogConfig = LogConfig()

    @property
    def name(self) -> ServerName:
        """The server name, whose grammar was checked when the configuration was loaded."""
        return ServerName(self.server_name)

    @property
    def signing_key_file(self) -> Path:
        return self.data_dir / "signing.key"
