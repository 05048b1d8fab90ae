"""Signing in and out of this server's own pages, and making an account.

Spec: client-server API, "User registration" of the OAuth 2.0 API.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import msgspec

from ranvier.core.errors import MatrixError
from ranvier.core.identifiers import ServerName
from ranvier.http.endpoint import Rate
from ranvier.http.oauth.visitor import Pages, Visitor, next_page
from ranvier.http.request import Request
from ranvier.http.responses import Response
from ranvier.http.web_pages import form_endpoint, load_template, page_endpoint
from ranvier.services.accounts.email_validation import Credentials
from ranvier.services.oauth.addresses import CONTINUE, FORGOT, SIGN_IN, SIGN_OUT, SIGN_UP, Addresses
from ranvier.services.oauth.browsers import Browsers, forgery_token, is_forgery_token
from ranvier.services.oauth.signing_up import NewPerson, SigningUp
from ranvier.services.sso.providers import Provider

_CONTINUE = "continue"


class SigningOffer(msgspec.Struct, frozen=True):
    """By what people sign in."""

    server_name: ServerName
    by_password: bool
    providers: Sequence[Provider]
    can_recover: bool  # whether a forgotten password can be replaced by mail


class SigningPages:
    """Sign in, go on after single sign-on, sign out."""

    def __init__(
        self,
        pages: Pages,
        browsers: Browsers,
        addresses: Addresses,
        offer: SigningOffer,
        *,
        can_sign_up: bool,
    ) -> None:
        self._pages = pages
        self._browsers = browsers
        self._addresses = addresses
        self._offer = offer
        self._can_sign_up = can_sign_up
        self._page = load_template("sign_in.html")

    @page_endpoint(SIGN_IN, operation="showSignIn")
    async def show(self, request: Request) -> Response:
        visitor = await self._pages.visitor(request)
        return self._form(visitor, request, request.query().text("user", "")[:255])

    @form_endpoint(SIGN_IN, operation="signIn", rate=Rate.LOGIN)
    async def sign_in(self, request: Request) -> Response:
        visitor, form = await self._pages.sender(request)
        user = form.get("user", "")
        if not self._offer.by_password:
            return self._form(
                visitor, request, user, status=403, error="Nobody signs in with a password here."
            )
        try:
            key = await self._browsers.by_password(user, form.get("password", ""))
        except MatrixError as refusal:
            return self._form(visitor, request, user, status=refusal.status, error=refusal.message)
        return await self._go_on(visitor, key, next_page(request))

    @page_endpoint(CONTINUE, operation="continueSignIn", rate=Rate.LOGIN)
    async def go_on(self, request: Request) -> Response:
        """The browser comes back from another identity provider."""
        visitor, query = await self._pages.visitor(request), request.query()
        # Only to whom the way was shown: else anybody could sign a browser in as somebody else.
        if visitor.is_new or not is_forgery_token(query.text("proof", ""), visitor.key, _CONTINUE):
            return self._form(
                visitor, request, "", status=403, error="This took too long. Sign in once more."
            )
        try:
            key = await self._browsers.by_login_token(query.text("loginToken", ""))
        except MatrixError as refusal:
            return self._form(visitor, request, "", status=refusal.status, error=refusal.message)
        return await self._go_on(visitor, key, next_page(request))

    @form_endpoint(SIGN_OUT, operation="signOut")
    async def sign_out(self, request: Request) -> Response:
        visitor, _ = await self._pages.sender(request)
        await self._browsers.sign_out(visitor.key)
        return self._pages.lead_signed_out(SIGN_IN)

    async def _go_on(self, visitor: Visitor, key: str, page: str) -> Response:
        await self._browsers.sign_out(visitor.key)
        return self._pages.lead_signed_in(key, page)

    def _form(
        self, visitor: Visitor, request: Request, user: str, *, status: int = 200, error: str | None = None
    ) -> Response:
        page = next_page(request)
        return self._pages.page(
            visitor,
            self._page,
            status=status,
            server_name=self._offer.server_name,
            signed_in_as=None if visitor.person is None else visitor.person.user_id,
            user=user,
            error=error,
            password_login=self._offer.by_password,
            providers=provider_links(self._offer.providers, visitor, page, self._addresses),
            sign_up_url=self._addresses.url(SIGN_UP, next=page) if self._can_sign_up else None,
            forgot_url=self._addresses.url(FORGOT) if self._offer.can_recover else None,
        )


class SignUpPage:
    """Makes an account. Where an address has to be proved, that comes first."""

    def __init__(
        self,
        pages: Pages,
        browsers: Browsers,
        signing_up: SigningUp,
        addresses: Addresses,
        offer: SigningOffer,
    ) -> None:
        self._pages = pages
        self._browsers = browsers
        self._signing_up = signing_up
        self._addresses = addresses
        self._offer = offer
        self._page = load_template("sign_up.html")

    @page_endpoint(SIGN_UP, operation="showSignUp")
    async def show(self, request: Request) -> Response:
        visitor = await self._pages.visitor(request)
        values = {"user": request.query().text("user", "")[:255]}
        return self._form(
            visitor, request, values, step="address" if self._signing_up.needs_email else "account"
        )

    @form_endpoint(SIGN_UP, operation="signUp", rate=Rate.REGISTRATION)
    async def sign_up(self, request: Request) -> Response:
        visitor, form = await self._pages.sender(request)
        step = "address" if form.get("step") == "address" and self._signing_up.needs_email else "account"
        try:
            if step == "address":
                return await self._send_mail(visitor, request, form)
            key = await self._make(form)
        except MatrixError as refusal:
            return self._form(visitor, request, form, step=step, status=refusal.status, error=refusal.message)
        await self._browsers.sign_out(visitor.key)
        return self._pages.lead_signed_in(key, next_page(request))

    async def _send_mail(self, visitor: Visitor, request: Request, form: Mapping[str, str]) -> Response:
        await self._signing_up.check_name(form.get("user", ""))
        sent = await self._signing_up.send_mail(form.get("email", ""))
        values = {**form, "sid": sent.sid, "secret": sent.client_secret}
        return self._form(visitor, request, values, step="account")

    async def _make(self, form: Mapping[str, str]) -> str:
        if form.get("password") != form.get("again"):
            raise MatrixError("The two passwords differ.")
        return await self._signing_up.sign_up(
            NewPerson(
                username=form.get("user", ""),
                password=form.get("password", ""),
                token=form.get("token", ""),
                email=Credentials(form.get("sid", ""), form.get("secret", "")),
            )
        )

    def _form(
        self,
        visitor: Visitor,
        request: Request,
        values: Mapping[str, str],
        *,
        step: str,
        status: int = 200,
        error: str | None = None,
    ) -> Response:
        page = next_page(request)
        return self._pages.page(
            visitor,
            self._page,
            status=status,
            server_name=self._offer.server_name,
            is_open=self._signing_up.is_open,
            needs_email=self._signing_up.needs_email,
            needs_token=self._signing_up.needs_token,
            step=step,
            error=error,
            providers=provider_links(
                self._offer.providers, visitor, page, self._addresses, action="register"
            ),
            sign_in_url=self._addresses.url(SIGN_IN, next=page),
            **{name: values.get(name, "") for name in ("user", "email", "sid", "secret", "token")},
        )


def provider_links(
    providers: Sequence[Provider], visitor: Visitor, page: str, addresses: Addresses, action: str = "login"
) -> list[dict[str, Any]]:
    """A link to each identity provider, from which the browser comes back to go on with `page`."""
    proof = forgery_token(visitor.key, _CONTINUE)
    back = addresses.url(CONTINUE, next=page, proof=proof)
    query = urlencode({"redirectUrl": back, "action": action})
    return [
        {"name": one.name, "url": addresses.url(f"/_matrix/client/v3/login/sso/redirect/{one.id}?{query}")}
        for one in providers
    ]
