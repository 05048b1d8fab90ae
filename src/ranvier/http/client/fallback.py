"""Web pages for clients that cannot log in, or do a stage of authentication, by themselves.

Spec: client-server API, "Fallback" of the user-interactive authentication, and "Login fallback".
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import Forbidden, LimitExceeded, NotFound, Unauthorized
from ranvier.core.identifiers import ServerName
from ranvier.http.client.login import LoginOffer
from ranvier.http.endpoint import Auth, Rate, endpoint
from ranvier.http.request import Request
from ranvier.http.responses import Response
from ranvier.http.web_pages import MAX_FORM_BYTES, html_page, load_template, parse_form
from ranvier.services.accounts.uia import DUMMY, PASSWORD, REGISTRATION_TOKEN, UserInteractive

_LOGIN: Final = "/_matrix/static/client/login"
_FALLBACK: Final = "/_matrix/client/v3/auth/{authType}/fallback/web"


class Field(msgspec.Struct, frozen=True):
    """What a form asks for."""

    name: str
    label: str
    type: str
    autocomplete: str


FIELDS: Final[Mapping[str, Sequence[Field]]] = {
    DUMMY: (),
    PASSWORD: (
        Field("user", "User name", "text", "username"),
        Field("password", "Password", "password", "current-password"),
    ),
    REGISTRATION_TOKEN: (Field("token", "Registration token", "text", "off"),),
}
"""Stage -> what it takes."""


class Fallback:
    """The pages."""

    def __init__(self, server_name: ServerName, uia: UserInteractive, offer: LoginOffer) -> None:
        self._server_name = server_name
        self._offer = offer
        self._uia = uia
        self._stage_page = load_template("uia_fallback.html")
        self._login_page = load_template("login_fallback.html")

    @endpoint(
        "GET",
        _LOGIN,
        f"{_LOGIN}/",
        operation="loginFallback",
        auth=Auth.NONE,
    )
    async def login(self, _request: Request) -> Response:
        return html_page(
            self._login_page,
            server_name=self._server_name,
            by_password=self._offer.by_password,
            providers=self._offer.providers,
        )

    @endpoint("GET", _FALLBACK, operation="authFallback", auth=Auth.NONE)
    async def ask(self, request: Request) -> Response:
        session = request.query().required("session")
        return self._form(_fields(request), session, None)

    @endpoint(
        "POST",
        _FALLBACK,
        operation="authFallbackSubmit",
        auth=Auth.NONE,
        rate=Rate.LOGIN,
        max_body_bytes=MAX_FORM_BYTES,
    )
    async def submit(self, request: Request) -> Response:
        fields = _fields(request)
        form = parse_form(request.raw_body)
        session = form.get("session", "")
        auth: JsonObject = {field.name: form.get(field.name, "") for field in fields}
        try:
            await self._uia.complete(session, request.path["authType"], auth)
        except (Forbidden, Unauthorized, NotFound, LimitExceeded) as refusal:
            return self._form(fields, session, refusal.message, status=refusal.status)
        return html_page(self._stage_page, is_done=True)

    def _form(
        self, fields: Sequence[Field], session: str, error: str | None, *, status: int = 200
    ) -> Response:
        return html_page(
            self._stage_page, status=status, is_done=False, fields=fields, session=session, error=error
        )


def _fields(request: Request) -> Sequence[Field]:
    fields = FIELDS.get(request.path["authType"])
    if fields is None:
        raise NotFound("There is no such stage.")
    return fields
