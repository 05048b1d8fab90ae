"""The web page of the stage m.login.sso: somebody confirms what a client is about to do with their account.

Spec: client-server API, "SSO during User-Interactive Authentication".
"""

from typing import Final
from urllib.parse import urlencode

from ranvier.core.errors import NotFound
from ranvier.core.identifiers import ServerName
from ranvier.http.client.sso_pages import ALLOW_PATH, SsoPages
from ranvier.http.cookies import CookieJar
from ranvier.http.endpoint import Rate
from ranvier.http.request import Request
from ranvier.http.responses import Response
from ranvier.http.web_pages import (
    form_endpoint,
    html_page,
    load_template,
    page_endpoint,
    parse_form,
)
from ranvier.services.sso.confirming import Confirming
from ranvier.services.sso.signing_in import SigningIn

CONFIRM_PATH: Final = "/_ranvier/sso/confirm"


class SsoConfirmation:
    """The way to the provider, and the consent that is given on the way back."""

    def __init__(
        self,
        server_name: ServerName,
        confirming: Confirming,
        signing_in: SigningIn,
        pages: SsoPages,
        jar: CookieJar,
    ) -> None:
        self._server_name = server_name
        self._confirming = confirming
        self._signing_in = signing_in
        self._pages = pages
        self._jar = jar
        self._choice_page = load_template("sso_choose_provider.html")

    @page_endpoint(
        "/_matrix/client/v3/auth/m.login.sso/fallback/web", operation="authFallback", rate=Rate.LOGIN
    )
    async def show(self, request: Request) -> Response:
        session = request.query().required("session")
        providers = (await self._confirming.describe(session)).providers
        if not providers:
            raise NotFound("No identity provider knows this account.")
        if len(providers) == 1:
            return self._pages.show(await self._signing_in.start_confirming(providers[0].id, session))
        choices = [
            (one, f"{CONFIRM_PATH}?{urlencode({'provider': one.id, 'session': session})}")
            for one in providers
        ]
        return html_page(
            self._choice_page, server_name=self._server_name, is_registering=False, choices=choices
        )

    @page_endpoint(CONFIRM_PATH, operation="confirmAtIdP", rate=Rate.LOGIN)
    async def confirm_at_idp(self, request: Request) -> Response:
        query = request.query()
        step = await self._signing_in.start_confirming(query.required("provider"), query.required("session"))
        return self._pages.show(step)

    @form_endpoint(ALLOW_PATH, operation="allowAfterSSO", rate=Rate.LOGIN)
    async def allow(self, request: Request) -> Response:
        visit = parse_form(request.raw_body).get("visit", "")
        return self._pages.show(await self._signing_in.allow(visit, self._jar.read(request)))
