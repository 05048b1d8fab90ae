"""Web pages for clients that cannot log in, or do a stage of authentication, by themselves.

Spec: client-server API, "Fallback" of the user-interactive authentication, and "Login fallback".
"""

import secrets
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Final
from urllib.parse import parse_qs

import msgspec
from jinja2 import Environment, StrictUndefined, Template

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import Forbidden, InvalidParam, LimitExceeded, NotFound, Unauthorized
from ranvier.core.identifiers import ServerName
from ranvier.http.endpoint import Auth, Rate, endpoint
from ranvier.http.request import Request
from ranvier.http.responses import Response
from ranvier.services.accounts.uia import DUMMY, PASSWORD, REGISTRATION_TOKEN, UserInteractive

MAX_FORM_BYTES: Final = 8_192
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

    def __init__(self, server_name: ServerName, uia: UserInteractive) -> None:
        self._server_name = server_name
        self._uia = uia
        self._stage_page = load_template("uia_fallback.html")
        self._login_page = load_template("login_fallback.html")

    @endpoint(
        "GET",
        "/_matrix/static/client/login",
        "/_matrix/static/client/login/",
        operation="loginFallback",
        auth=Auth.NONE,
    )
    async def login(self, _request: Request) -> Response:
        return html_page(self._login_page, server_name=self._server_name)

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


def parse_form(body: bytes) -> Mapping[str, str]:
    """What a form sends. Raises: InvalidParam."""
    try:
        values = parse_qs(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=20)
    except ValueError as error:
        raise InvalidParam("The form is malformed.") from error
    return {name: value[-1] for name, value in values.items()}


def load_template(name: str) -> Template:
    """A page of this package."""
    source = files("ranvier.http").joinpath(name).read_text(encoding="utf-8")
    return Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(source)


def html_page(template: Template, *, status: int = 200, **values: object) -> Response:
    """The page with `values`, and with headers that let it do what it must and nothing else."""
    nonce = secrets.token_urlsafe(16)
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'nonce-{nonce}'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
    return Response(
        status=status,
        content_type="text/html; charset=utf-8",
        headers={
            "Content-Security-Policy": policy,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        },
        body=template.render(nonce=nonce, **values).encode(),
    )
