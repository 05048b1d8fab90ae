"""Agreeing: to what a client asks for, or to what a device without a browser waits for.

Spec: RFC 6749, 4.1.1; RFC 8628, 3.3; RFC 9700, 4.11.2.
"""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from ranvier.core.errors import NotFound
from ranvier.core.oauth.authorization import AuthorizationRequest, Destination
from ranvier.core.oauth.redirect_uris import form_target
from ranvier.core.oauth.refusals import OAuthRefusal
from ranvier.http.endpoint import Rate
from ranvier.http.oauth.parameters import query_parameters
from ranvier.http.oauth.visitor import Pages, Visitor, this_page
from ranvier.http.request import Request
from ranvier.http.responses import Response
from ranvier.http.web_pages import form_endpoint, html_page, load_template, page_endpoint
from ranvier.services.oauth.addresses import AUTHORIZE, LINK, SIGN_IN, SIGN_UP, Addresses
from ranvier.services.oauth.authorizing import Authorizing, Mistaken
from ranvier.services.oauth.browsers import Person
from ranvier.services.oauth.linking import Linking

_MXID_HINT: Final = "mxid:"


class AuthorizePage:
    """The authorization endpoint. The request stands in the address all the time, and is read anew each time."""

    def __init__(
        self, pages: Pages, authorizing: Authorizing, addresses: Addresses, *, can_sign_up: bool
    ) -> None:
        self._pages = pages
        self._authorizing = authorizing
        self._addresses = addresses
        self._can_sign_up = can_sign_up
        self._page = load_template("oauth_consent.html")
        self._mistake = load_template("oauth_mistake.html")

    @page_endpoint(AUTHORIZE, operation="showAuthorization")
    async def show(self, request: Request) -> Response:
        try:
            fields = query_parameters(request)
            asked = await self._authorizing.read(fields)
        except (OAuthRefusal, Mistaken) as mistake:
            return self._refuse(mistake)
        visitor = await self._pages.visitor(request)
        page = self._prompted(fields)
        if visitor.person is None or page is not None:
            return self._sign_in_first(fields, page or SIGN_IN)
        return await self._consent(visitor, visitor.person, asked, fields)

    @form_endpoint(AUTHORIZE, operation="authorize")
    async def decide(self, request: Request) -> Response:
        visitor, form = await self._pages.sender(request)
        try:
            fields = query_parameters(request)
            asked = await self._authorizing.read(fields)
            if visitor.person is None:
                return self._sign_in_first(fields, SIGN_IN)
            if form.get("decision") != "allow":
                return self._pages.lead(self._authorizing.deny(asked))
            return self._pages.lead(await self._authorizing.allow(asked, visitor.person))
        except (OAuthRefusal, Mistaken) as mistake:
            return self._refuse(mistake)

    async def _consent(
        self, visitor: Visitor, person: Person, asked: AuthorizationRequest, fields: Mapping[str, str]
    ) -> Response:
        here = this_page(AUTHORIZE, fields)
        return self._pages.page(
            visitor,
            self._page,
            leads_to=f"'self' {form_target(asked.destination.redirect_uri)}",
            client=asked.client,
            person=person,
            replaced=await self._authorizing.find_replaced(person, asked.scope.device_id),
            goes_to=_describe(asked.destination),
            switch_url=self._addresses.url(SIGN_IN, next=here),
        )

    def _prompted(self, fields: Mapping[str, str]) -> str | None:
        """The page that the client wants to come first, whoever is signed in."""
        match fields.get("prompt"):
            case "create" if self._can_sign_up:
                return SIGN_UP
            case "login":
                return SIGN_IN
            case _:
                return None

    def _sign_in_first(self, fields: Mapping[str, str], page: str) -> Response:
        """Without `prompt`, so that coming back is the end of it."""
        rest = {name: value for name, value in fields.items() if name != "prompt"}
        hint = fields.get("login_hint", "").removeprefix(_MXID_HINT)
        more = {"user": hint[:255]} if hint else {}
        return self._pages.lead_to_sign_in(this_page(AUTHORIZE, rest), page, **more)

    def _refuse(self, mistake: OAuthRefusal | Mistaken) -> Response:
        """A page, not a redirect: anybody can register a client, so that this server's name would vouch for any URL."""
        if isinstance(mistake, OAuthRefusal):
            return html_page(self._mistake, status=400, message=mistake.message, return_url=None)
        return html_page(
            self._mistake,
            status=400,
            message=mistake.refusal.message,
            client=mistake.client,
            return_url=mistake.destination.url(mistake.refusal.parameters()),
        )


class LinkPage:
    """Where a person types the code that another device shows."""

    def __init__(self, pages: Pages, linking: Linking, authorizing: Authorizing) -> None:
        self._pages = pages
        self._linking = linking
        self._authorizing = authorizing
        self._page = load_template("oauth_link.html")

    @page_endpoint(LINK, operation="showDeviceLink")
    async def show(self, request: Request) -> Response:
        typed = request.query().text("user_code", "")[:40]
        visitor = await self._pages.visitor(request)
        if visitor.person is None:
            return self._pages.lead_to_sign_in(this_page(LINK, {"user_code": typed} if typed else {}))
        return self._form(visitor, step="type", user_code=typed, error=None)

    @form_endpoint(LINK, operation="linkDevice", rate=Rate.LOGIN)
    async def submit(self, request: Request) -> Response:
        visitor, form = await self._pages.sender(request)
        typed = form.get("user_code", "")[:40]
        person = visitor.person
        if person is None:
            return self._pages.lead_to_sign_in(this_page(LINK, {"user_code": typed}))
        try:
            if "decision" not in form:
                return await self._ask(visitor, person, typed)
            is_allowed = form["decision"] == "allow"
            await self._linking.decide(typed, person, is_allowed=is_allowed)
        except NotFound as refusal:
            return self._form(visitor, status=404, step="type", user_code=typed, error=refusal.message)
        return self._form(visitor, step="done", is_allowed=is_allowed)

    async def _ask(self, visitor: Visitor, person: Person, typed: str) -> Response:
        """Raises: NotFound."""
        waiting = await self._linking.find(typed)
        return self._form(
            visitor,
            step="decide",
            user_code=waiting.user_code,
            client=waiting.client,
            person=person,
            replaced=await self._authorizing.find_replaced(person, waiting.scope.device_id),
        )

    def _form(self, visitor: Visitor, *, status: int = 200, **values: Any) -> Response:
        return self._pages.page(visitor, self._page, status=status, **values)


def _describe(destination: Destination) -> str:
    """Where the browser goes, in words."""
    parts = urlsplit(destination.redirect_uri)
    match parts.scheme:
        case "https":
            return f"to {parts.netloc}"
        case "http":
            return "to a program on this device"
        case scheme:
            return f"to an application on this device ({scheme})"
