"""Where a client sends the browser of somebody who signs in through another identity provider.

Spec: client-server API, "SSO client login/authentication".
"""

from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode

from ranvier.core.errors import InvalidParam
from ranvier.core.identifiers import ServerName
from ranvier.core.sso.redirects import Redirect, parse_redirect
from ranvier.http.client.sso_pages import SsoPages
from ranvier.http.endpoint import Rate
from ranvier.http.request import Request
from ranvier.http.responses import Response
from ranvier.http.web_pages import html_page, load_template, page_endpoint
from ranvier.services.sso.providers import Provider, Providers
from ranvier.services.sso.signing_in import SigningIn

REDIRECT_PATH: Final = "/_matrix/client/v3/login/sso/redirect"
_REGISTER: Final = "register"


class SsoLoginRedirect:
    """The endpoints at /login/sso/redirect."""

    def __init__(
        self, server_name: ServerName, providers: Providers, signing_in: SigningIn, pages: SsoPages
    ) -> None:
        self._server_name = server_name
        self._providers = providers
        self._signing_in = signing_in
        self._pages = pages
        self._choice_page = load_template("sso_choose_provider.html")

    @page_endpoint(REDIRECT_PATH, operation="redirectToSSO", rate=Rate.LOGIN)
    async def redirect_to_sso(self, request: Request) -> Response:
        providers = self._providers.list()
        if len(providers) == 1:
            return await self._leave(request, providers[0].id)
        _wanted(request)
        query = request.query().fields()
        return html_page(
            self._choice_page,
            server_name=self._server_name,
            is_registering=query.get("action") == _REGISTER,
            choices=[(one, _path(one, query)) for one in providers],
        )

    @page_endpoint(f"{REDIRECT_PATH}/{{idpId}}", operation="redirectToIdP", rate=Rate.LOGIN)
    async def redirect_to_idp(self, request: Request) -> Response:
        return await self._leave(request, request.path["idpId"])

    async def _leave(self, request: Request, provider_id: str) -> Response:
        redirect = _wanted(request)
        to_register = request.query().text("action") == _REGISTER
        step = await self._signing_in.start(provider_id, redirect, to_register=to_register)
        return self._pages.show(step)


def _wanted(request: Request) -> Redirect:
    """Raises: MissingParam, InvalidParam."""
    if request.query().text("action", "login") not in ("login", _REGISTER):
        raise InvalidParam("The query parameter action must be login or register.")
    return parse_redirect(request.query().required("redirectUrl"))


def _path(provider: Provider, query: Mapping[str, str]) -> str:
    """Where a choice leads, with what came along."""
    kept = {name: query[name] for name in ("redirectUrl", "action") if name in query}
    return f"{REDIRECT_PATH}/{provider.id}?{urlencode(kept)}"
