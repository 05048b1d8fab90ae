"""Pages for browsers: templates of this package, and headers that let a page do what it must and nothing else."""

import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar
from urllib.parse import parse_qs

from jinja2 import Environment, PackageLoader, StrictUndefined

from ranvier.core.errors import InvalidParam
from ranvier.http.endpoint import Auth, Rate, endpoint
from ranvier.http.responses import Response

MAX_FORM_BYTES: Final = 8_192
_TEMPLATES: Final = Environment(
    loader=PackageLoader("ranvier.http"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)

Function = TypeVar("Function", bound=Callable[..., Awaitable[Any]])


def page_endpoint(*paths: str, operation: str, rate: Rate = Rate.READ) -> Callable[[Function], Function]:
    """Declare what shows a page: a browser asks for it, and knows no access token."""
    return endpoint("GET", *paths, operation=operation, auth=Auth.NONE, rate=rate, is_page=True)


def form_endpoint(*paths: str, operation: str, rate: Rate = Rate.WRITE) -> Callable[[Function], Function]:
    """Declare where a form of such a page is sent to."""
    return endpoint(
        "POST",
        *paths,
        operation=operation,
        auth=Auth.NONE,
        rate=rate,
        max_body_bytes=MAX_FORM_BYTES,
        is_page=True,
    )


class Template:
    """A page of `http/templates`. It is compiled when it is first shown: a server that starts is in a hurry."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def render(self, **values: object) -> str:
        return _TEMPLATES.get_template(self._name).render(**values)


def load_template(name: str) -> Template:
    """A page of `http/templates`."""
    return Template(name)


def html_page(
    template: Template, *, status: int = 200, leads_to: str = "'self'", **values: object
) -> Response:
    """The page with `values`, and with `nonce` for its scripts. `leads_to`: where its forms, and redirects that answer
    them, may lead: sources of Content Security Policy.
    """
    nonce = secrets.token_urlsafe(16)
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'nonce-{nonce}'; connect-src 'self'; "
        f"img-src 'self'; form-action {leads_to}; base-uri 'none'; frame-ancestors 'none'"
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


def parse_form(body: bytes) -> Mapping[str, str]:
    """What a form sends. Raises: InvalidParam."""
    try:
        values = parse_qs(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=20)
    except ValueError as error:
        raise InvalidParam("The form is malformed.") from error
    return {name: value[-1] for name, value in values.items()}
