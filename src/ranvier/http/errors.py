"""The only place where an exception becomes a response.

Spec: client-server API, "Standard error response".
"""

import logging
import secrets
from typing import Final

import orjson
from msgspec import structs

from ranvier.core import errors
from ranvier.http.responses import Response
from ranvier.http.web_pages import html_page, load_template

log = logging.getLogger(__name__)

_PAGE: Final = load_template("error.html")

# A fault that a service lets through is the caller's own doing: it gave the value.
_PROTOCOL_FAULTS: Final[tuple[tuple[type[errors.ProtocolFault], type[errors.MatrixError]], ...]] = (
    (errors.TooLarge, errors.EventTooLarge),
    (errors.BadEvent, errors.BadJsonValue),
    (errors.BadJson, errors.BadJsonValue),
    (errors.BadIdentifier, errors.InvalidParam),
    (errors.BadToken, errors.InvalidParam),
    (errors.AuthRejected, errors.Forbidden),
    (errors.UnsupportedRoomVersion, errors.UnsupportedRoomVersionRequested),
    (errors.BadHeader, errors.Unauthorized),
    (errors.BadSignature, errors.Unauthorized),
)


def describe(error: Exception) -> Response:
    """The response for any exception. A bug becomes a 500; its number stands in the log, too."""
    match error:
        case errors.MatrixError():
            return _response(error)
        case errors.ProtocolFault():
            return _response(_as_matrix_error(error))
        case errors.ServerFault():
            log.warning("cannot serve: %s", error)
            return _response(errors.Unavailable("The server is busy. Try again in a moment."))
        case _:
            number = secrets.token_hex(4)
            log.error("unexpected error %s", number, exc_info=error)
            return Response(
                status=500,
                body=orjson.dumps({"errcode": "M_UNKNOWN", "error": f"Internal server error {number}."}),
            )


def describe_page(error: Exception) -> Response:
    """The same for a person who looks at a page."""
    told = describe(error)
    message = orjson.loads(told.body).get("error", "This did not work.")
    page = html_page(_PAGE, status=told.status, message=message)
    return structs.replace(page, headers={**page.headers, **told.headers})


def _as_matrix_error(fault: errors.ProtocolFault) -> errors.MatrixError:
    for kind, becomes in _PROTOCOL_FAULTS:
        if isinstance(fault, kind):
            return becomes(str(fault))
    return errors.BadJsonValue(str(fault))


def _response(error: errors.MatrixError) -> Response:
    headers = {}
    retry_after_ms = error.extra.get("retry_after_ms")
    if isinstance(retry_after_ms, int):
        headers["Retry-After"] = str(max(1, -(-retry_after_ms // 1000)))
    return Response(status=error.status, headers=headers, body=orjson.dumps(error.body()))
