"""Logging in. Spec: client-server API, "Login"."""

from ranvier.core.errors import MatrixError, MissingParam
from ranvier.http.endpoint import Auth, Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.accounts.login import Login as LoginService
from ranvier.services.accounts.sessions import Session, SessionWish


class LoginBody(SessionWish, frozen=True, kw_only=True):
    type: str
    password: str | None = None
    token: str | None = None


class Login:
    """The endpoints at /login."""

    def __init__(self, login: LoginService) -> None:
        self._login = login

    @endpoint("GET", "/_matrix/client/v3/login", operation="getLoginFlows", auth=Auth.NONE, rate=Rate.READ)
    async def get_login_flows(self, _request: Request) -> dict[str, object]:
        return {"flows": [{"type": "m.login.password"}, {"type": "m.login.token", "get_login_token": True}]}

    @endpoint("POST", "/_matrix/client/v3/login", operation="login", auth=Auth.NONE, rate=Rate.LOGIN)
    async def login(self, request: Request) -> Session:
        body = request.body(LoginBody)
        match body.type:
            case "m.login.password":
                if body.password is None:
                    raise MissingParam("The password is missing.")
                return await self._login.by_password(request.json(), body.password, body)
            case "m.login.token":
                if body.token is None:
                    raise MissingParam("The token is missing.")
                return await self._login.by_token(body.token, body)
            case _:
                raise MatrixError("This login type is unknown.")
