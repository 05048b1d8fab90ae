"""Logging in. Spec: client-server API, "Login"."""

from collections.abc import Iterator, Sequence

import msgspec

from ranvier.core.errors import Forbidden, MatrixError, MissingParam
from ranvier.http.client.appservice_login import APPSERVICE_LOGIN, demand_appservice
from ranvier.http.endpoint import Auth, Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.accounts.jwt_login import JwtLogin
from ranvier.services.accounts.login import Login as LoginService
from ranvier.services.accounts.sessions import Session, SessionWish
from ranvier.services.appservices.accounts import AppserviceAccounts
from ranvier.services.sso.providers import Provider


class LoginBody(SessionWish, frozen=True, kw_only=True):
    type: str
    password: str | None = None
    token: str | None = None


class LoginOffer(msgspec.Struct, frozen=True, kw_only=True):
    """What people can log in with."""

    by_password: bool = True
    by_jwt: JwtLogin | None = None
    providers: Sequence[Provider] = ()
    is_sso_preferred: bool = False  # whether clients that know of OAuth are to offer single sign-on alone


class Login:
    """The endpoints at /login."""

    def __init__(
        self,
        login: LoginService,
        appservice_accounts: AppserviceAccounts,
        public_base_url: str | None,
        offer: LoginOffer,
    ) -> None:
        self._login = login
        self._by_password = offer.by_password
        self._by_jwt = offer.by_jwt
        self._flows = list(_flows(offer))
        self._well_known = (
            None if public_base_url is None else {"m.homeserver": {"base_url": public_base_url}}
        )
        self._appservice_accounts = appservice_accounts

    @endpoint("GET", "/_matrix/client/v3/login", operation="getLoginFlows", auth=Auth.NONE, rate=Rate.READ)
    async def get_login_flows(self, _request: Request) -> dict[str, object]:
        return {"flows": self._flows}

    @endpoint("POST", "/_matrix/client/v3/login", operation="login", auth=Auth.ANYBODY, rate=Rate.LOGIN)
    async def login(self, request: Request) -> Session | dict[str, object]:
        session = await self._begin(request)
        if self._well_known is None:
            return session
        return {**msgspec.to_builtins(session), "well_known": self._well_known}

    async def _begin(self, request: Request) -> Session:
        body = request.body(LoginBody)
        match body.type:
            case "m.login.password":
                if not self._by_password:
                    raise Forbidden("Nobody logs in with a password here.")
                if body.password is None:
                    raise MissingParam("The password is missing.")
                return await self._login.by_password(request.json(), body.password, body)
            case "m.login.token":
                if body.token is None:
                    raise MissingParam("The token is missing.")
                return await self._login.by_token(body.token, body)
            case "org.matrix.login.jwt" if self._by_jwt is not None:
                if body.token is None:
                    raise MissingParam("The token is missing.")
                return await self._by_jwt.login(body.token, body)
            case "m.login.application_service":
                requester = demand_appservice(request)
                return await self._appservice_accounts.login(requester, request.json(), body)
            case _:
                raise MatrixError("This login type is unknown.")


def _flows(offer: LoginOffer) -> Iterator[dict[str, object]]:
    if offer.by_password:
        yield {"type": "m.login.password"}
    if offer.providers:
        flow: dict[str, object] = {
            "type": "m.login.sso",
            "identity_providers": msgspec.to_builtins(offer.providers),
        }
        yield {**flow, "oauth_aware_preferred": True} if offer.is_sso_preferred else flow
    if offer.by_jwt is not None:
        yield {"type": "org.matrix.login.jwt"}
    yield {"type": "m.login.token", "get_login_token": True}
    yield {"type": APPSERVICE_LOGIN}
