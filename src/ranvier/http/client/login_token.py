"""Tokens that let another client log in. Spec: client-server API, POST /login/get_token."""

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.http.endpoint import Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.accounts.login_tokens import LoginToken, LoginTokens


class AuthBody(msgspec.Struct, frozen=True):
    auth: JsonObject | None = None


class LoginTokenEndpoints:
    """POST /login/get_token."""

    def __init__(self, login_tokens: LoginTokens) -> None:
        self._login_tokens = login_tokens

    @endpoint("POST", "/_matrix/client/v1/login/get_token", operation="generateLoginToken", rate=Rate.LOGIN)
    async def generate_login_token(self, request: Request) -> LoginToken:
        body = request.body(AuthBody, empty_is_object=True)
        return await self._login_tokens.generate(request.requester, body.auth)
