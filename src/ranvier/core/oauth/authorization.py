"""An authorization request, and the ways to answer it.

Spec: RFC 6749, 4.1.1 and 4.1.2; RFC 7636, 4.3; RFC 9207; client-server API, "Authorisation code flow".
"""

from collections.abc import Mapping
from typing import Final, Literal
from urllib.parse import urlencode

import msgspec

from ranvier.core.oauth.client_metadata import AUTHORIZATION_CODE, Client
from ranvier.core.oauth.pkce import METHOD, is_challenge
from ranvier.core.oauth.redirect_uris import is_registered
from ranvier.core.oauth.refusals import OAuthRefusal, invalid_request
from ranvier.core.oauth.scopes import Scope, parse_scope

MAX_STATE_CHARS: Final = 4_000

ResponseMode = Literal["query", "fragment"]


class Destination(msgspec.Struct, frozen=True):
    """Where the answer goes. It is known before anything else of a request is looked at."""

    redirect_uri: str
    mode: ResponseMode
    state: str | None
    issuer: str

    def url(self, answer: Mapping[str, str]) -> str:
        """The redirect URI with an answer."""
        state = {} if self.state is None else {"state": self.state}
        text = urlencode({**state, **answer, "iss": self.issuer})
        if self.mode == "fragment":
            return f"{self.redirect_uri}#{text}"
        return f"{self.redirect_uri}{'&' if '?' in self.redirect_uri else '?'}{text}"


class AuthorizationRequest(msgspec.Struct, frozen=True):
    """What a client asks a person to agree to."""

    client: Client
    destination: Destination
    scope: Scope
    code_challenge: str


def parse_destination(client: Client, fields: Mapping[str, str], issuer: str) -> Destination:
    """Raises: OAuthRefusal: the client must not be answered at all, for it may be somebody else."""
    redirect_uri = fields.get("redirect_uri")
    if redirect_uri is None or not is_registered(redirect_uri, client.redirect_uris):
        raise invalid_request("The redirect_uri is none of those that the client registered.")
    state = fields.get("state")
    if state is not None and len(state) > MAX_STATE_CHARS:
        raise invalid_request(f"state has at most {MAX_STATE_CHARS} characters.")
    # An unknown mode is refused below; the refusal goes the default way.
    mode: ResponseMode = "fragment" if fields.get("response_mode") == "fragment" else "query"
    return Destination(redirect_uri, mode, state, issuer)


def parse_request(
    client: Client, destination: Destination, fields: Mapping[str, str]
) -> AuthorizationRequest:
    """Raises: OAuthRefusal, of which the client may be told."""
    if AUTHORIZATION_CODE not in client.grant_types:
        raise OAuthRefusal(
            "unauthorized_client", "The client did not register for the authorization code grant."
        )
    if fields.get("response_type") != "code":
        raise OAuthRefusal("unsupported_response_type", "response_type must be code.")
    if fields.get("response_mode", "query") not in ("query", "fragment"):
        raise invalid_request("response_mode is query or fragment.")
    if "request" in fields:
        raise OAuthRefusal("request_not_supported", "Requests as JWTs are not supported.")
    if "request_uri" in fields:
        raise OAuthRefusal("request_uri_not_supported", "Requests by reference are not supported.")
    challenge = fields.get("code_challenge")
    if challenge is None or not is_challenge(challenge) or fields.get("code_challenge_method") != METHOD:
        raise invalid_request(f"A code_challenge with code_challenge_method {METHOD} is needed.")
    if fields.get("prompt") == "none":
        raise OAuthRefusal("interaction_required", "People are always asked.")
    return AuthorizationRequest(client, destination, parse_scope(fields.get("scope", "")), challenge)
