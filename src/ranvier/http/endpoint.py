"""How an endpoint declares itself: method, path, who may call it, what it costs.

The declaration stands above its function; `app.build` makes the objects that hold the functions, and
`http.asgi` collects the declarations into the router.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from enum import Enum
from typing import Any, Final, TypeVar

import msgspec

from ranvier.http.request import Request

JSON_BODY_BYTES: Final = 1_048_576
"""The default bound of a request body. An event has at most 64 KiB; key uploads and filters are larger."""


class Auth(Enum):
    """Who may call."""

    NONE = "none"
    OPTIONAL = "optional"  # a token is used if one is given
    USER = "user"  # an access token
    APPSERVICE = "appservice"  # the token of an application service
    ANYBODY = (
        "anybody"  # everybody, and an application service is known by its token; others' are not looked at
    )
    SERVER = "server"  # another homeserver, by X-Matrix
    ADMIN = "admin"  # the access token of an administrator of this server


class Rate(Enum):
    """What a request costs its caller. Limits are set by class, not by endpoint."""

    NONE = "none"
    READ = "read"
    WRITE = "write"
    MESSAGE = "message"
    JOIN = "join"
    INVITE = "invite"
    LOGIN = "login"
    REGISTRATION = "registration"
    FEDERATION = "federation"
    UPLOAD = "upload"
    MEDIA = "media"
    PREVIEW = "preview"


class Api(Enum):
    """Which listeners serve it: the `apis` of a listener in the configuration."""

    CLIENT = "client"
    FEDERATION = "federation"
    MEDIA = "media"
    ADMIN = "admin"
    ALWAYS = "always"  # health and landing page


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One operation of one API. `operation` is the specification's operationId."""

    method: str
    path: str
    operation: str
    auth: Auth = Auth.USER
    api: Api = Api.CLIENT
    rate: Rate = Rate.READ
    guests: bool = False  # whether guest accounts may call it
    locked: bool = False  # whether locked accounts may (logging out)
    max_body_bytes: int = JSON_BODY_BYTES
    is_page: bool = False  # a person in a browser reads what went wrong, too
    streams_body: bool = False  # the function reads the body itself (uploads)


Handler = Callable[[Request], Awaitable[Any]]
Function = TypeVar("Function", bound=Callable[..., Awaitable[Any]])


def endpoint(method: str, *paths: str, operation: str, **options: Any) -> Callable[[Function], Function]:
    """Declare that a method of an endpoint class serves `method` on each of `paths`.

    The function takes a `Request` and returns what `http.responses.encode` takes. `options` are the fields
    of `Endpoint`.
    """

    def declare(function: Function) -> Function:
        declared: list[Endpoint] = getattr(function, "__endpoints__", [])
        declared += [Endpoint(method=method, path=path, operation=operation, **options) for path in paths]
        function.__endpoints__ = declared  # type: ignore[attr-defined]  # functions take attributes
        return function

    return declare


def collect(holders: Iterable[object]) -> Iterator[tuple[Endpoint, Handler]]:
    """Every endpoint that the methods of `holders` declare, with the bound method."""
    for holder in holders:
        for name in dir(type(holder)):
            for declared in getattr(getattr(type(holder), name), "__endpoints__", ()):
                yield declared, getattr(holder, name)
