"""Asking an identity provider: where to send a browser, and who it was that came back.

Spec: OpenID Connect Core 1.0, "Authorization Code Flow"; OpenID Connect Discovery 1.0; RFC 6749, 7636, 9207.
"""

import base64
import logging
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from ranvier.core.canonical_json import JsonObject, parse_object
from ranvier.core.errors import BadGateway, BadJson
from ranvier.core.oauth.pkce import METHOD, challenge_of
from ranvier.core.sso.endpoints import is_endpoint, is_plain
from ranvier.core.sso.id_token import BadIdToken, Expected, check_id_token, check_subject, parse_id_token
from ranvier.io.clock import Clock
from ranvier.io.ports import HttpClient, HttpRequest, RemoteFault
from ranvier.services.sso.providers import ProviderSettings

log = logging.getLogger(__name__)

TIMEOUT_S: Final = 15.0
MAX_ANSWER_BYTES: Final = 262_144
MAX_METADATA_AGE_S: Final = 3_600.0
MAX_TOKEN_CHARS: Final = 16_384

_FORM: Final = "application/x-www-form-urlencoded"


class ProviderFault(BadGateway):
    """The provider failed us, or what it says cannot be believed. Why stands in the log."""


class Departure(msgspec.Struct, frozen=True, kw_only=True):
    """What goes along to the provider."""

    state: str
    nonce: str
    verifier: str
    prompt: str | None = None  # login or create: asked for where the provider knows it


class Identity(msgspec.Struct, frozen=True):
    """Who came back, in the provider's words."""

    subject: str
    claims: JsonObject


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider says of itself. Spec: OpenID Connect Discovery 1.0, 3."""

    issuer: str | None = None
    authorization_endpoint: str
    token_endpoint: str
    userinfo_endpoint: str | None = None
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)
    prompt_values_supported: tuple[str, ...] = ()
    authorization_response_iss_parameter_supported: bool = False


class Upstream:
    """One provider."""

    def __init__(self, settings: ProviderSettings, http: HttpClient, clock: Clock) -> None:
        self._settings = settings
        self._http = http
        self._clock = clock
        self._metadata: tuple[Metadata, float] | None = None  # and when it was fetched

    async def authorization_url(self, departure: Departure) -> str:
        """Where to send the browser. Raises: ProviderFault."""
        metadata = await self._find_metadata()
        client = self._settings.client
        query = {
            "response_type": "code",
            "client_id": client.client_id,
            "redirect_uri": client.redirect_uri,
            "scope": " ".join(client.scopes),
            "state": departure.state,
            "code_challenge": challenge_of(departure.verifier),
            "code_challenge_method": METHOD,
        }
        if self._settings.issuer is not None:
            query["nonce"] = departure.nonce
        if departure.prompt in metadata.prompt_values_supported:
            query["prompt"] = departure.prompt
        joint = "&" if "?" in metadata.authorization_endpoint else "?"
        return f"{metadata.authorization_endpoint}{joint}{urlencode(query, quote_via=quote)}"

    async def identify(self, code: str, departure: Departure, issuer: str | None) -> Identity:
        """Who the code stands for. `issuer`: who the browser says that it comes from.

        Raises: ProviderFault.
        Cost: two requests, or one where the provider has no endpoint for claims.
        """
        metadata = await self._find_metadata()
        try:
            self._check_origin(metadata, issuer)
            tokens = await self._exchange(metadata, code, departure.verifier)
            claims = self._read_id_token(tokens, departure.nonce)
            if metadata.userinfo_endpoint is not None:
                more = await self._ask_claims(metadata.userinfo_endpoint, tokens.get("access_token"))
                # OpenID Connect Core 1.0, 5.3.2: these two must be about the same user.
                if claims and more.get("sub") != claims["sub"]:
                    raise BadIdToken("the claims are another user's")
                claims = {**claims, **more}
            subject = check_subject(claims.get(self._settings.admission.subject_claim))
        except BadIdToken as error:
            raise self._fault(error) from error
        return Identity(subject, claims)

    def _check_origin(self, metadata: Metadata, issuer: str | None) -> None:
        """Raises: BadIdToken. Spec: RFC 9207, 2.4."""
        is_told = metadata.authorization_response_iss_parameter_supported
        if (issuer is not None or is_told) and self._settings.issuer not in (None, issuer):
            raise BadIdToken("the browser comes from another issuer")

    def _read_id_token(self, tokens: JsonObject, nonce: str) -> JsonObject:
        """Its claims; none where the provider is no OpenID provider. Raises: BadIdToken."""
        issuer = self._settings.issuer
        if issuer is None:
            return {}
        claims = parse_id_token(tokens.get("id_token"))
        expected = Expected(issuer, self._settings.client.client_id, nonce)
        check_id_token(claims, expected, self._clock.now_ms() // 1000)
        return claims

    async def _exchange(self, metadata: Metadata, code: str, verifier: str) -> JsonObject:
        """Raises: ProviderFault. Spec: RFC 6749, 2.3.1, 4.1.3."""
        client = self._settings.client
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": client.redirect_uri,
            "code_verifier": verifier,
        }
        headers = {"Content-Type": _FORM}
        if client.client_secret is not None and self._uses_basic(metadata):
            pair = f"{quote(client.client_id, safe='')}:{quote(client.client_secret, safe='')}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode('ascii')}"
        else:
            form["client_id"] = client.client_id
            if client.client_secret is not None:
                form["client_secret"] = client.client_secret
        tokens = await self._send("POST", metadata.token_endpoint, headers, urlencode(form).encode())
        # COMPAT(GitHub): refusals have the status of success.
        if "error" in tokens:
            raise self._fault(f"no tokens, but {str(tokens['error'])[:200]!r}")
        return tokens

    def _uses_basic(self, metadata: Metadata) -> bool:
        chosen = self._settings.client.authentication
        if chosen is not None:
            return chosen == "client_secret_basic"
        methods = metadata.token_endpoint_auth_methods_supported
        return "client_secret_basic" in methods or "client_secret_post" not in methods

    async def _ask_claims(self, url: str, token: object) -> JsonObject:
        """Raises: ProviderFault, BadIdToken."""
        if not isinstance(token, str) or not 0 < len(token) <= MAX_TOKEN_CHARS or not is_plain(token):
            raise BadIdToken("there is no access token with which to ask for claims")
        return await self._send("GET", url, {"Authorization": f"Bearer {token}"}, None)

    async def _find_metadata(self) -> Metadata:
        """Raises: ProviderFault."""
        issuer, endpoints = self._settings.issuer, self._settings.endpoints
        if endpoints is not None:
            return Metadata(
                authorization_endpoint=endpoints.authorization,
                token_endpoint=endpoints.token,
                userinfo_endpoint=endpoints.userinfo,
            )
        now_s = self._clock.monotonic()
        if self._metadata is None or now_s - self._metadata[1] > MAX_METADATA_AGE_S:
            self._metadata = await self._fetch_metadata(issuer or ""), now_s
        return self._metadata[0]

    async def _fetch_metadata(self, issuer: str) -> Metadata:
        """Raises: ProviderFault."""
        url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
        try:
            metadata = msgspec.convert(await self._send("GET", url, {}, None), Metadata)
        except msgspec.ValidationError as error:
            raise self._fault(error) from error
        # OpenID Connect Discovery 1.0, 4.3.
        if metadata.issuer != issuer:
            raise self._fault("it calls itself another issuer")
        is_near = urlsplit(issuer).scheme == "http"
        for endpoint in (
            metadata.authorization_endpoint,
            metadata.token_endpoint,
            metadata.userinfo_endpoint,
        ):
            if endpoint is not None and not is_endpoint(endpoint, may_be_near=is_near):
                raise self._fault("it names an endpoint that is no https URL")
        return metadata

    async def _send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None
    ) -> JsonObject:
        """The object that is the answer. Raises: ProviderFault."""
        request = HttpRequest(
            method=method,
            url=url,
            headers={"Accept": "application/json", **headers},
            body=body,
            timeout_s=TIMEOUT_S,
            max_response_bytes=MAX_ANSWER_BYTES,
        )
        try:
            answer = await self._http.send(request)
            if answer.status != 200:
                raise self._fault(f"{url.partition('?')[0]} answered {answer.status}: {answer.body[:300]!r}")
            return parse_object(answer.body)
        except (RemoteFault, BadJson) as error:
            raise self._fault(error) from error

    def _fault(self, reason: object) -> ProviderFault:
        provider = self._settings.provider
        log.warning("identity provider %s: %s", provider.id, reason)
        return ProviderFault(f"{provider.name} could not tell who you are. Try again in a while.")
