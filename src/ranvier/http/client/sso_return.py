"""Where a browser comes back to from an identity provider, and the pages that follow.

None of this is the specification's: clients never see it.
"""

from ranvier.core.errors import MissingParam
from ranvier.http.client.sso_pages import CALLBACK_PATH, LEAVE_PATH, NAME_PATH, SsoPages
from ranvier.http.cookies import CookieJar
from ranvier.http.endpoint import Rate
from ranvier.http.request import Request
from ranvier.http.responses import Response
from ranvier.http.web_pages import form_endpoint, page_endpoint, parse_form
from ranvier.services.sso.signing_in import Answer, GoTo, SigningIn


class SsoReturn:
    """The callback, the choice of a name, and the way on."""

    def __init__(self, signing_in: SigningIn, pages: SsoPages, jar: CookieJar) -> None:
        self._signing_in = signing_in
        self._pages = pages
        self._jar = jar

    @page_endpoint(CALLBACK_PATH, operation="returnFromIdP")
    async def return_from_idp(self, request: Request) -> Response:
        query = request.query()
        answer = Answer(code=query.text("code"), error=query.text("error"), issuer=query.text("iss"))
        step = await self._signing_in.arrive(query.required("state"), self._jar.read(request), answer)
        return self._pages.show(step)

    @form_endpoint(NAME_PATH, operation="chooseNameForSSO", rate=Rate.REGISTRATION)
    async def choose_name(self, request: Request) -> Response:
        form = parse_form(request.raw_body)
        if "visit" not in form or "user_name" not in form:
            raise MissingParam("The form is not whole.")
        step = await self._signing_in.choose_name(form["visit"], self._jar.read(request), form["user_name"])
        return self._pages.show(step)

    @page_endpoint(LEAVE_PATH, operation="continueFromSSO")
    async def continue_from_sso(self, request: Request) -> Response:
        visit = request.query().required("visit")
        return self._pages.show(GoTo(await self._signing_in.leave(visit, self._jar.read(request))))
