"""What clients call: registration, tokens, revocation, device codes.

Spec: client-server API, "OAuth 2.0 API"; RFC 6749, 7009, 7591, 8628.
"""

from collections.abc import Mapping
from typing import Final

from ranvier.core.errors import BadJsonValue, NotJson
from ranvier.core.oauth.client_metadata import (
    AUTHORIZATION_CODE,
    DEVICE_CODE,
    GRANT_TYPES,
    REFRESH_TOKEN,
    describe_client,
)
from ranvier.core.oauth.refusals import OAuthRefusal
from ranvier.http.endpoint import Auth, Rate, endpoint
from ranvier.http.oauth.parameters import (
    MAX_PARAMETER_BYTES,
    answer,
    body_parameters,
    check_public,
    refuse,
    required,
)
from ranvier.http.request import Request
from ranvier.http.responses import Response
from ranvier.services.oauth.addresses import DEVICE, REGISTER, REVOKE, TOKEN
from ranvier.services.oauth.clients import Clients
from ranvier.services.oauth.linking import Linking
from ranvier.services.oauth.revoking import Revoking
from ranvier.services.oauth.tokens import CodeProof, Granted, OAuthTokens

_HINTS: Final = (None, "access_token", "refresh_token")


class OAuthClientEndpoints:
    """The endpoints; none of them is for browsers' pages, none looks at cookies."""

    def __init__(self, clients: Clients, tokens: OAuthTokens, revoking: Revoking, linking: Linking) -> None:
        self._clients = clients
        self._tokens = tokens
        self._revoking = revoking
        self._linking = linking

    @endpoint(
        "POST",
        REGISTER,
        operation="registerOAuthClient",
        auth=Auth.NONE,
        rate=Rate.REGISTRATION,
        max_body_bytes=MAX_PARAMETER_BYTES,
    )
    async def register(self, request: Request) -> Response:
        try:
            client = await self._clients.register(request.json())
        except OAuthRefusal as refusal:
            return refuse(refusal, request)
        except (NotJson, BadJsonValue) as error:
            return refuse(OAuthRefusal("invalid_client_metadata", error.message), request)
        return Response(status=201, headers={"Cache-Control": "no-store"}, body=describe_client(client))

    @endpoint(
        "POST",
        TOKEN,
        operation="getOAuthToken",
        auth=Auth.NONE,
        rate=Rate.WRITE,
        max_body_bytes=MAX_PARAMETER_BYTES,
    )
    async def token(self, request: Request) -> Response:
        try:
            check_public(request)
            return answer(await self._grant(body_parameters(request)))
        except OAuthRefusal as refusal:
            return refuse(refusal, request)

    async def _grant(self, parameters: Mapping[str, str]) -> Granted:
        client_id, grant_type = required(parameters, "client_id"), required(parameters, "grant_type")
        client = await self._clients.find(client_id)
        if client is None:
            raise OAuthRefusal("invalid_client", "This client is not registered here.")
        if grant_type in GRANT_TYPES and grant_type not in client.grant_types:
            raise OAuthRefusal("unauthorized_client", "The client did not register for this grant type.")
        match grant_type:
            case kind if kind == AUTHORIZATION_CODE:
                proof = CodeProof(
                    client_id,
                    required(parameters, "redirect_uri"),
                    required(parameters, "code_verifier"),
                )
                return await self._tokens.by_code(required(parameters, "code"), proof)
            case kind if kind == REFRESH_TOKEN:
                token = required(parameters, "refresh_token")
                return await self._tokens.by_refresh_token(token, client_id, parameters.get("scope"))
            case kind if kind == DEVICE_CODE:
                return await self._tokens.by_device_code(required(parameters, "device_code"), client_id)
            case _:
                raise OAuthRefusal("unsupported_grant_type", "This grant type is unknown here.")

    @endpoint(
        "POST",
        REVOKE,
        operation="revokeOAuthToken",
        auth=Auth.NONE,
        rate=Rate.WRITE,
        max_body_bytes=MAX_PARAMETER_BYTES,
    )
    async def revoke(self, request: Request) -> Response:
        try:
            check_public(request)
            parameters = body_parameters(request)
            token = required(parameters, "token")
            if parameters.get("token_type_hint") not in _HINTS:
                raise OAuthRefusal("unsupported_token_type", "Tokens are access_token or refresh_token.")
        except OAuthRefusal as refusal:
            return refuse(refusal, request)
        await self._revoking.revoke(token)
        return answer({})

    @endpoint(
        "POST",
        DEVICE,
        operation="authorizeOAuthDevice",
        auth=Auth.NONE,
        rate=Rate.REGISTRATION,
        max_body_bytes=MAX_PARAMETER_BYTES,
    )
    async def authorize_device(self, request: Request) -> Response:
        try:
            check_public(request)
            parameters = body_parameters(request)
            client_id, scope = required(parameters, "client_id"), required(parameters, "scope")
            return answer(await self._linking.begin(client_id, scope))
        except OAuthRefusal as refusal:
            return refuse(refusal, request)
