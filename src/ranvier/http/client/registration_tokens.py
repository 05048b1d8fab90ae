"""Asking about registration tokens. Spec: client-server API, "Token-authenticated registration"."""

from ranvier.http.endpoint import Auth, Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.accounts.registration_tokens import RegistrationTokens


class RegistrationTokenEndpoints:
    """GET /register/m.login.registration_token/validity."""

    def __init__(self, tokens: RegistrationTokens) -> None:
        self._tokens = tokens

    @endpoint(
        "GET",
        "/_matrix/client/v1/register/m.login.registration_token/validity",
        operation="registrationTokenValidity",
        auth=Auth.NONE,
        rate=Rate.LOGIN,
    )
    async def registration_token_validity(self, request: Request) -> dict[str, bool]:
        return {"valid": await self._tokens.is_valid(request.query().required("token"))}
