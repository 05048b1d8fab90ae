"""A browser that looks at a page: its cookie, who is signed in with it, and where pages lead on."""

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode

from msgspec import Struct, structs

from ranvier.core.errors import Forbidden, InvalidParam
from ranvier.http.cookies import CookieJar
from ranvier.http.request import Request
from ranvier.http.responses import Response
from ranvier.http.web_pages import Template, html_page, parse_form
from ranvier.services.oauth.addresses import ACCOUNT, RESUMABLE, SIGN_IN, Addresses
from ranvier.services.oauth.browsers import (
    LIFETIME_MS,
    Browsers,
    Person,
    forgery_token,
    is_forgery_token,
)

FORM: Final = "form"
"""What a forgery token is for."""
MAX_NEXT_CHARS: Final = 8_000
ANONYMOUS_S: Final = 86_400
"""For so long a form is good that nobody has sent."""
_COOKIE: Final = "ranvier"
_KEY: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_NEXT: Final = re.compile(r"(/[A-Za-z0-9_/-]+)(?:\?[!-\[\]-~]*)?")


class Visitor(Struct, frozen=True):
    """One browser."""

    key: str
    is_new: bool  # it has no cookie yet
    person: Person | None


class Pages:
    """Makes pages for browsers, and knows them again."""

    def __init__(self, browsers: Browsers, addresses: Addresses) -> None:
        self._browsers = browsers
        self._addresses = addresses
        self._jar = CookieJar(is_https=addresses.is_secure)

    async def visitor(self, request: Request) -> Visitor:
        """Who looks at a page. Raises: InvalidParam."""
        if "%00" in request.raw_query:
            raise InvalidParam("Nothing here has a null character.")
        key = self._jar.read(request).get(_COOKIE, "")
        if not _KEY.fullmatch(key):
            return Visitor(self._browsers.new_key(), True, None)
        return Visitor(key, False, await self._browsers.find(key))

    async def sender(self, request: Request) -> tuple[Visitor, Mapping[str, str]]:
        """Who sends a form, and what is in it. Raises: Forbidden: it is not from a page of ours; InvalidParam."""
        visitor = await self.visitor(request)
        form = parse_form(request.raw_body)
        if any("\0" in value for value in form.values()):
            raise InvalidParam("Nothing here has a null character.")
        self.check_form(visitor, form.get("csrf", ""))
        return visitor, form

    def check_form(self, visitor: Visitor, csrf: str) -> None:
        """Whether a form is from a page of ours that this browser was shown. Raises: Forbidden."""
        if visitor.is_new or not is_forgery_token(csrf, visitor.key, FORM):
            raise Forbidden(
                "This page was open for too long, or its cookies are blocked. Go back and reload it."
            )

    def page(
        self,
        visitor: Visitor,
        template: Template,
        *,
        status: int = 200,
        leads_to: str = "'self'",
        **values: object,
    ) -> Response:
        """A page with forms."""
        page = html_page(
            template, status=status, leads_to=leads_to, csrf=forgery_token(visitor.key, FORM), **values
        )
        return self._with_cookie(page, visitor.key, ANONYMOUS_S) if visitor.is_new else page

    def lead(self, url: str) -> Response:
        """Go on to a page of ours, or to a client that a person agreed to be sent to."""
        headers = {"Location": url, "Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
        return Response(status=303, headers=headers, content_type="text/plain; charset=utf-8")

    def lead_signed_in(self, key: str, next_page: str) -> Response:
        """Go on with a browser that has just signed in."""
        return self._with_cookie(self.lead(self._addresses.url(next_page)), key, LIFETIME_MS // 1000)

    def lead_signed_out(self, next_page: str) -> Response:
        return self._with_cookie(self.lead(self._addresses.url(next_page)), "", 0)

    def lead_to_sign_in(self, next_page: str, page: str = SIGN_IN, **more: str) -> Response:
        """Sign in (or up) first, then go on with `next_page`."""
        return self.lead(self._addresses.url(page, next=next_page, **more))

    def _with_cookie(self, answer: Response, key: str, max_age_s: int) -> Response:
        cookie = self._jar.write(_COOKIE, key, max_age_s)
        return structs.replace(answer, headers={**answer.headers, "Set-Cookie": cookie})


def next_page(request: Request) -> str:
    """Where a sign-in leads on: one of our own pages, whatever the address says."""
    wanted = request.query().text("next", "")
    match = _NEXT.fullmatch(wanted) if len(wanted) <= MAX_NEXT_CHARS else None
    return wanted if match is not None and match[1] in RESUMABLE else ACCOUNT


def this_page(path: str, fields: Mapping[str, str]) -> str:
    """A page of ours with its query, to come back to."""
    return f"{path}?{urlencode(fields)}" if fields else path
