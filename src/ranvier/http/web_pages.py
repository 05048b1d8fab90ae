"""Pages for browsers: templates of this package, and headers that let a page do what it must and nothing else."""

import secrets
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qs

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from ranvier.core.errors import InvalidParam
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


def load_template(name: str) -> Template:
    """A page of `http/templates`."""
    return _TEMPLATES.get_template(name)


def html_page(template: Template, *, status: int = 200, **values: object) -> Response:
    """The page with `values`, and with `nonce` for its scripts."""
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


def parse_form(body: bytes) -> Mapping[str, str]:
    """What a form sends. Raises: InvalidParam."""
    try:
        values = parse_qs(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=20)
    except ValueError as error:
        raise InvalidParam("The form is malformed.") from error
    return {name: value[-1] for name, value in values.items()}
