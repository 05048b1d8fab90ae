"""The page for who forgot the password: first a mail, then a new password."""

from collections.abc import Mapping

from ranvier.core.errors import MatrixError
from ranvier.http.endpoint import Rate
from ranvier.http.oauth.visitor import Pages, Visitor
from ranvier.http.request import Request
from ranvier.http.responses import Response
from ranvier.http.web_pages import form_endpoint, load_template, page_endpoint
from ranvier.services.accounts.email_validation import Credentials
from ranvier.services.oauth.addresses import FORGOT, SIGN_IN, Addresses
from ranvier.services.oauth.recovering import Recovering


class ForgotPage:
    """GET and POST of the page."""

    def __init__(self, pages: Pages, recovering: Recovering, addresses: Addresses) -> None:
        self._pages = pages
        self._recovering = recovering
        self._sign_in_url = addresses.url(SIGN_IN)
        self._page = load_template("forgot_password.html")

    @page_endpoint(FORGOT, operation="showForgotPassword")
    async def show(self, request: Request) -> Response:
        return self._form(await self._pages.visitor(request), {})

    @form_endpoint(FORGOT, operation="forgotPassword", rate=Rate.LOGIN)
    async def submit(self, request: Request) -> Response:
        visitor, form = await self._pages.sender(request)
        try:
            if "sid" not in form:
                sent = await self._recovering.send_mail(form.get("email", ""))
                return self._form(visitor, {**form, "sid": sent.sid, "secret": sent.client_secret})
            if form.get("password") != form.get("again"):
                raise MatrixError("The two passwords differ.")
            credentials = Credentials(form["sid"], form.get("secret", ""))
            await self._recovering.set_password(credentials, form.get("password", ""))
        except MatrixError as refusal:
            return self._form(visitor, form, status=refusal.status, error=refusal.message)
        return self._pages.lead(self._sign_in_url)

    def _form(
        self, visitor: Visitor, values: Mapping[str, str], *, status: int = 200, error: str | None = None
    ) -> Response:
        return self._pages.page(
            visitor,
            self._page,
            status=status,
            error=error,
            sign_in_url=self._sign_in_url,
            **{name: values.get(name, "") for name in ("email", "sid", "secret")},
        )
