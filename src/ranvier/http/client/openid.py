"""Proving who one is to others. Spec: "OpenID" of the client-server and the server-server API."""

from ranvier.core.errors import MissingToken
from ranvier.core.identifiers import UserID
from ranvier.http.endpoint import Api, Auth, Rate, endpoint
from ranvier.http.request import Request
from ranvier.services.accounts.openid import OpenId, OpenIdToken


class OpenIdEndpoints:
    """Where clients get the token, and where others ask whose it is."""

    def __init__(self, openid: OpenId) -> None:
        self._openid = openid

    @endpoint(
        "POST",
        "/_matrix/client/v3/user/{userId}/openid/request_token",
        operation="requestOpenIdToken",
        rate=Rate.WRITE,
    )
    async def request_open_id_token(self, request: Request) -> OpenIdToken:
        return await self._openid.request_token(request.requester, UserID(request.path["userId"]))

    @endpoint(
        "GET",
        "/_matrix/federation/v1/openid/userinfo",
        operation="exchangeOpenIdToken",
        auth=Auth.NONE,
        api=Api.FEDERATION,
    )
    async def exchange_open_id_token(self, request: Request) -> dict[str, str]:
        token = request.query().text("access_token")
        if token is None:
            raise MissingToken("This needs an access_token.")
        return {"sub": await self._openid.get_user(token)}
