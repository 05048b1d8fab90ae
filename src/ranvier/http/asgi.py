"""The ASGI application: declarations in, a Falcon app out. `_Chain` holds the checks in their order."""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from time import perf_counter
from typing import Any, Final
from urllib.parse import unquote

import falcon
import falcon.asgi
import msgspec

from ranvier.core import errors
from ranvier.http.endpoint import Api, Auth, Endpoint, Handler, collect
from ranvier.http.errors import describe
from ranvier.http.guards import Authenticator, Observer, OriginVerifier, RateLimiter
from ranvier.http.request import Request
from ranvier.http.responses import Response, encode
from ranvier.services.requester import Requester

AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]

# Client-server API, "Web Browser Clients".
CORS_HEADERS: Final = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, POST, PUT, DELETE, OPTIONS",
    "Access-Control-Allow-Headers": "X-Requested-With, Content-Type, Authorization, Date",
    "Access-Control-Expose-Headers": "ETag, Retry-After",
    "Access-Control-Max-Age": "86400",
}

# Clients from before v1.1 say r0; nothing else in these paths has changed.
_OLD_CLIENT_PREFIX: Final = "/_matrix/client/r0/"
_CLIENT_PREFIX: Final = "/_matrix/client/v3/"
_MEDIA_PREFIX: Final = "/_matrix/media/"

_DISCARDED_BYTES: Final = 134_217_728
_DISCARDED_PIECE: Final = 262_144
_OLD_DEVICE_ID: Final = "org.matrix.msc3202.device_id"


class BrokenOff(errors.ServerFault):
    """The client went away before its body was here. Nobody hears the answer."""


class Guards(msgspec.Struct, frozen=True):
    """Who checks what before an endpoint runs."""

    authenticator: Authenticator
    origins: OriginVerifier | None
    limiter: RateLimiter
    observer: Observer


def build_app(holders: Iterable[object], guards: Guards, apis: frozenset[Api]) -> AsgiApp:
    """Route every endpoint that `holders` declare for one of `apis`.

    Raises: ValueError when two endpoints claim one method and path.
    """
    app = falcon.asgi.App()
    app.req_options.auto_parse_qs_csv = False
    app.resp_options.default_media_type = "application/json"
    app.add_error_handler(Exception, _answer_error)
    app.add_sink(_unknown_path)
    by_path: dict[str, dict[str, _Chain]] = defaultdict(dict)
    for declared, handler in collect(holders):
        if declared.api not in apis and declared.api is not Api.ALWAYS:
            continue
        template, names = _by_position(declared.path)
        methods = by_path[template]
        if declared.method in methods:
            raise ValueError(f"{declared.method} {declared.path} is declared twice")
        methods[declared.method] = _Chain(declared, handler, guards, names)
    for path, methods in by_path.items():
        app.add_route(path, _resource(methods))
    return _route_raw_path(app)


def _route_raw_path(app: AsgiApp) -> AsgiApp:
    """Route on the path as it was sent: `%2F` inside a segment is ordinary in Matrix."""

    async def raw(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            path = scope["raw_path"].partition(b"?")[0].decode("latin-1")
            if path.startswith(_OLD_CLIENT_PREFIX):
                path = _CLIENT_PREFIX + path[len(_OLD_CLIENT_PREFIX) :]
            scope["path"] = path
            if path.startswith(_MEDIA_PREFIX):
                receive = _whole(receive)
        await app(scope, receive, send)

    return raw


def _whole(receive: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[Any]]:
    """A client that goes away in the middle of a body of unknown length must not seem to have sent it all."""

    has_more = False

    async def receive_or_fail() -> Any:
        nonlocal has_more
        event = await receive()
        if has_more and event["type"] == "http.disconnect":
            raise BrokenOff("the client went away")
        has_more = event.get("more_body", False)
        return event

    return receive_or_fail


def _by_position(path: str) -> tuple[str, Mapping[str, str]]:
    """The path with its parameters named by their place, and their own names by those.

    Falcon wants one name for one place, whichever endpoint it leads to.
    """
    segments = path.split("/")
    names = {}
    for place, segment in enumerate(segments):
        if segment.startswith("{"):
            names[f"p{place}"] = segment[1:-1]
            segments[place] = f"{{p{place}}}"
    return "/".join(segments), names


def _resource(methods: Mapping[str, "_Chain"]) -> object:
    """A Falcon resource with a responder for each method; OPTIONS for browsers, 405 for the rest."""

    async def options(_request: falcon.asgi.Request, response: falcon.asgi.Response, **_params: str) -> None:
        _send(response, Response(body=b"{}"))

    async def refuse(_request: falcon.asgi.Request, response: falcon.asgi.Response, **_params: str) -> None:
        _send(response, describe(errors.MethodNotAllowed("This path does not take that method.")))

    responders: dict[str, Callable[..., Awaitable[None]]] = {
        f"on_{name}": refuse for name in ("get", "put", "post", "delete", "patch", "head")
    }
    responders |= {f"on_{name.lower()}": chain.respond for name, chain in methods.items()}
    responders["on_options"] = options
    return type("Resource", (), {name: staticmethod(function) for name, function in responders.items()})()


async def _unknown_path(
    req: falcon.asgi.Request, resp: falcon.asgi.Response | None, **_params: object
) -> None:
    assert resp is not None, "an HTTP request has a response"
    if req.method == "OPTIONS":
        _send(resp, Response(body=b"{}"))
    else:
        _send(resp, describe(errors.Unrecognized("There is nothing at this path.")))


async def _answer_error(
    _request: falcon.asgi.Request,
    response: falcon.asgi.Response,
    error: Exception,
    _params: Mapping[str, Any],
) -> None:
    """What Falcon itself raises, before or around a chain: malformed requests, and clients that went away."""
    if isinstance(error, falcon.HTTPError):
        _send(response, describe(errors.Unrecognized("This request is not understood.")))
    else:
        _send(response, describe(error))


class _Chain:
    """The checks of one endpoint, then its function: authenticate, limit, read, run, encode."""

    __slots__ = ("_authenticate", "_endpoint", "_function", "_guards", "_names")

    def __init__(
        self, endpoint: Endpoint, function: Handler, guards: Guards, names: Mapping[str, str]
    ) -> None:
        self._endpoint = endpoint
        self._function = function
        self._names = names
        self._guards = guards
        self._authenticate: Callable[[Request, falcon.asgi.Request], Awaitable[None]] | None = {
            Auth.NONE: None,
            Auth.OPTIONAL: self._optional_user,
            Auth.USER: self._user,
            Auth.ADMIN: self._admin,
            Auth.APPSERVICE: self._appservice,
            Auth.ANYBODY: self._anybody,
            Auth.SERVER: self._server,
        }[endpoint.auth]

    async def respond(self, raw: falcon.asgi.Request, response: falcon.asgi.Response, **params: str) -> None:
        started = perf_counter()
        try:
            answer = await self._answer(raw, params)
        except Exception as error:  # the floor's edge: every exception becomes a response
            answer = describe(error)
            if self._endpoint.streams_body:
                await _discard(raw)
        _send(response, answer)
        self._guards.observer.answered(self._endpoint, answer.status, perf_counter() - started)

    async def _answer(self, raw: falcon.asgi.Request, params: Mapping[str, str]) -> Response:
        request = Request(
            path=_decode(params, self._names),
            raw_query=raw.query_string,
            headers=raw.headers_lower,
            ip=raw.remote_addr,
        )
        if self._endpoint.auth is Auth.SERVER:
            # The signature covers the body: read first, bounded.
            request.raw_body = await _read(raw, self._endpoint.max_body_bytes)
        if self._authenticate is not None:
            await self._authenticate(request, raw)
        self._guards.limiter.check(self._endpoint, request)
        if self._endpoint.streams_body:
            request.body_stream = raw.stream
        elif self._endpoint.method != "GET" and self._endpoint.auth is not Auth.SERVER:
            request.raw_body = await _read(raw, self._endpoint.max_body_bytes)
        value = await self._function(request)
        return value if isinstance(value, Response) else Response(body=encode(value))

    async def _user(self, request: Request, _raw: falcon.asgi.Request) -> None:
        query = request.query() if request.raw_query else None
        token = request.access_token
        if token is None:
            raise errors.MissingToken("This needs an access token.")
        acting_as = query.text("user_id") if query else None
        # COMPAT(mautrix 0.21): MSC3202 before v1.17.
        device_id = (query.text("device_id") or query.text(_OLD_DEVICE_ID)) if query else None
        requester = await self._guards.authenticator.user(token, acting_as, device_id)
        self._admit(requester)
        request.identify(requester)
        self._guards.authenticator.seen(requester, request.ip, request.headers.get("user-agent"))

    def _admit(self, requester: Requester) -> None:
        if requester.is_guest and not self._endpoint.guests:
            raise errors.GuestAccessForbidden("Guests may not do this.")
        if requester.is_locked and not self._endpoint.locked:
            raise errors.UserLocked("This account is locked.", soft_logout=True)

    async def _optional_user(self, request: Request, raw: falcon.asgi.Request) -> None:
        if request.access_token is not None:
            await self._user(request, raw)

    async def _admin(self, request: Request, raw: falcon.asgi.Request) -> None:
        await self._user(request, raw)
        if not request.requester.is_admin:
            raise errors.Forbidden("Only an administrator of this server may do this.")

    async def _appservice(self, request: Request, _raw: falcon.asgi.Request) -> None:
        token = request.access_token
        if token is None:
            raise errors.MissingToken("This needs the token of an application service.")
        request.identify(await self._guards.authenticator.appservice(token))

    async def _anybody(self, request: Request, _raw: falcon.asgi.Request) -> None:
        token = request.access_token
        requester = None if token is None else await self._guards.authenticator.appservice_or_none(token)
        if requester is not None:
            request.identify(requester)

    async def _server(self, request: Request, raw: falcon.asgi.Request) -> None:
        if self._guards.origins is None:
            raise errors.Unrecognized("Federation is off on this server.")
        target = raw.path + (f"?{raw.query_string}" if raw.query_string else "")
        request.origin = await self._guards.origins.origin(request, raw.method, target)


def _decode(params: Mapping[str, str], names: Mapping[str, str]) -> Mapping[str, str]:
    """Percent-decode each path segment, strictly, and call it what its endpoint calls it."""
    try:
        return {
            names[place]: unquote(value, errors="strict") if "%" in value else value
            for place, value in params.items()
        }
    except UnicodeDecodeError as error:
        raise errors.InvalidParam("The path is not valid UTF-8.") from error


async def _read(raw: falcon.asgi.Request, limit: int) -> bytes:
    """The whole body.

    Raises: EventTooLarge when it has more than `limit` bytes; then the rest is not read.
    """
    declared = raw.content_length
    if declared is not None and declared > limit:
        raise errors.EventTooLarge(f"The body may have at most {limit} bytes.")
    body: bytes = await raw.stream.read(limit + 1)
    if len(body) > limit:
        raise errors.EventTooLarge(f"The body may have at most {limit} bytes.")
    return body


async def _discard(raw: falcon.asgi.Request) -> None:
    """Read what a refused upload still sends: whoever is busy sending hears no answer, and finds the connection
    closed instead. Bounded.
    """
    left = _DISCARDED_BYTES
    try:
        while left > 0 and (piece := await raw.stream.read(_DISCARDED_PIECE)):
            left -= len(piece)
    except BrokenOff:
        return


def _send(response: falcon.asgi.Response, answer: Response) -> None:
    response.status = answer.status
    response.set_headers(CORS_HEADERS)
    if answer.headers:
        response.set_headers(dict(answer.headers))
    response.content_type = answer.content_type
    if answer.stream is not None:
        if answer.content_length is None:
            response.stream = answer.stream
        else:
            response.set_stream(answer.stream, answer.content_length)
    else:
        response.data = encode(answer.body)
