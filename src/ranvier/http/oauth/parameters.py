"""What clients send to the endpoints of OAuth: forms, of which each field may come once.

Spec: RFC 6749, 3.1 and 3.2.
"""

from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

from ranvier.core.errors import InvalidParam
from ranvier.core.oauth.refusals import OAuthRefusal, invalid_request
from ranvier.http.request import Request
from ranvier.http.responses import Response

MAX_PARAMETER_BYTES: Final = 16_384
MAX_FIELDS: Final = 30
_NO_STORE: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}


def body_parameters(request: Request) -> Mapping[str, str]:
    """Raises: OAuthRefusal."""
    try:
        pairs = parse_qsl(
            request.raw_body.decode(), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS
        )
    except ValueError as error:
        raise invalid_request("The body is no form in UTF-8.") from error
    # RFC 6749, 3.1: what has no value counts as left out.
    return _once([(name, value) for name, value in pairs if value])


def query_parameters(request: Request) -> Mapping[str, str]:
    """Raises: OAuthRefusal."""
    try:
        query = request.query()
        pairs = [(name, value) for name in query.fields() for value in query.all(name) if value]
    except InvalidParam as error:
        raise invalid_request(error.message) from error
    return _once(pairs)


def required(parameters: Mapping[str, str], name: str) -> str:
    """Raises: OAuthRefusal."""
    value = parameters.get(name)
    if value is None:
        raise invalid_request(f"{name} is missing.")
    return value


def check_public(request: Request) -> None:
    """Clients have no secrets here. Raises: OAuthRefusal."""
    if request.headers.get("authorization", "").lower().startswith("basic "):
        raise OAuthRefusal("invalid_client", "Clients of this server have no secrets.")


def answer(body: object) -> Response:
    """RFC 6749, 5.1: what has tokens in it is not to be kept on the way."""
    return Response(headers=_NO_STORE, body=body)


def refuse(refusal: OAuthRefusal, request: Request) -> Response:
    """RFC 6749, 5.2."""
    if refusal.code == "invalid_client" and "authorization" in request.headers:
        return Response(
            status=401, headers={**_NO_STORE, "WWW-Authenticate": 'Basic realm="OAuth"'}, body=refusal.body()
        )
    return Response(status=400, headers=_NO_STORE, body=refusal.body())


def _once(pairs: list[tuple[str, str]]) -> Mapping[str, str]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise invalid_request("A parameter comes more than once.")
    if any("\0" in value for value in fields.values()):
        raise invalid_request("No parameter has a null character.")
    return fields
