"""The ASGI application: declarations in, an app out. `Router` finds the way; `_Chain` holds the checks in their
order.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from time import perf_counter
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from ranvier.core import errors
from ranvier.http.body_budget import BodyBudget, Share
from ranvier.http.endpoint import Api, Auth, Endpoint, Handler, collect
from ranvier.http.errors import describe, describe_page
from ranvier.http.exchange import (
    Body,
    BodyTooSlow,
    Receive,
    Send,
    send_answer,
    send_preflight,
)
from ranvier.http.guards import Authenticator, Observer, OriginVerifier, RateLimiter
from ranvier.http.heads import Header
from ranvier.http.request import Request
from ranvier.http.responses import Response, encode
from ranvier.http.router import Router
from ranvier.services.requester import Requester
from ranvier.services.turns import ASKER, network_of

Scope = dict[str, Any]
AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]

# Clients from before v1.1 say r0; nothing else in these paths has changed.
_OLD_CLIENT_PREFIX: Final = "/_matrix/client/r0/"
_CLIENT_PREFIX: Final = "/_matrix/client/v3/"

_OLD_DEVICE_ID: Final = "org.matrix.msc3202.device_id"


class Guards(msgspec.Struct, frozen=True):
    """Who checks what before an endpoint runs."""

    authenticator: Authenticator
    origins: OriginVerifier | None
    limiter: RateLimiter
    observer: Observer
    bodies: BodyBudget = msgspec.field(default_factory=BodyBudget)


def build_app(holders: Iterable[object], guards: Guards, apis: frozenset[Api]) -> AsgiApp:
    """Route every endpoint that `holders` declare for one of `apis`.

    Raises: ValueError when two endpoints claim one method and path.
    """
    router: Router[_Methods] = Router()
    for declared, handler in collect(holders):
        if declared.api not in apis and declared.api is not Api.ALWAYS:
            continue
        methods = router.at(declared.path, dict)
        if declared.method in methods:
            raise ValueError(f"{declared.method} {declared.path} is declared twice")
        methods[declared.method] = _Chain(declared, handler, guards)
    return _App(router)


_Methods = dict[str, "_Chain"]
"""What a path takes, by method."""

_NOTHING: Final[tuple[_Methods, list[str]]] = ({}, [])


class _App:
    """From a path to what it takes; OPTIONS for browsers, 404 and 405 for the rest."""

    __slots__ = ("_router",)

    def __init__(self, router: "Router[_Methods]") -> None:
        self._router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError("this application speaks HTTP only")
        # The path as it was sent: `%2F` inside a segment is ordinary in Matrix.
        path: str = scope["raw_path"].decode("latin-1")
        if path.startswith(_OLD_CLIENT_PREFIX):
            path = _CLIENT_PREFIX + path[len(_OLD_CLIENT_PREFIX) :]
        method = scope["method"]
        methods, params = self._router.find(path) or _NOTHING
        chain = methods.get(method)
        if chain is not None:
            await chain.respond(scope, path, params, receive, send)
        elif method == "OPTIONS":
            await send_preflight(send)
        else:
            fault: errors.MatrixError = (
                errors.Unrecognized("There is nothing at this path.")
                if not methods
                else errors.MethodNotAllowed("This path does not take that method.")
            )
            answer = describe(fault)
            await send_answer(send, answer, answer.body)


class _Chain:
    """The checks of one endpoint, then its function: authenticate, limit, read, run, encode."""

    __slots__ = ("_authenticate", "_endpoint", "_function", "_guards", "_names")

    def __init__(self, endpoint: Endpoint, function: Handler, guards: Guards) -> None:
        self._endpoint = endpoint
        self._function = function
        self._names = [
            segment[1:-1] for segment in endpoint.path.split("/") if segment.startswith("{")
        ]  # of the parameters, in their order
        self._guards = guards
        self._authenticate: Callable[[Request], Awaitable[None]] | None = {
            Auth.NONE: None,
            Auth.OPTIONAL: self._optional_user,
            Auth.USER: self._user,
            Auth.ADMIN: self._admin,
            Auth.APPSERVICE: self._appservice,
            Auth.ANYBODY: self._anybody,
            Auth.SERVER: None,  # see `_server`, which wants more than the request
        }[endpoint.auth]

    async def respond(
        self, scope: Scope, path: str, params: Sequence[str], receive: Receive, send: Send
    ) -> None:
        """Answer one request. `path`: as it was sent; `params`: its parameters, in their order."""
        started = perf_counter()
        headers = _headers(scope["headers"])
        client = scope["client"]
        ip = client[0] if client else ""
        network = network_of(ip)
        ASKER.set(network)
        share = Share(self._guards.bodies, network)
        body = Body(receive, _length(headers), share)
        try:
            value = await self._value(scope, path, params, ip, headers, body)
            answer = value if isinstance(value, Response) else Response(body=value)
            content = encode(answer.body)
        except Exception as error:  # the floor's edge: every exception becomes a response
            answer = describe_page(error) if self._endpoint.is_page else describe(error)
            content = answer.body
            if self._endpoint.streams_body:
                await body.discard()
            if isinstance(error, BodyTooSlow):
                answer = msgspec.structs.replace(answer, headers={"Connection": "close"})
        finally:
            share.end()
        self._guards.observer.answered(self._endpoint, answer.status, perf_counter() - started)
        await send_answer(send, answer, content)

    async def _value(
        self,
        scope: Scope,
        path: str,
        params: Sequence[str],
        ip: str,
        headers: Mapping[str, str],
        body: Body,
    ) -> Any:
        """What the endpoint's function returns, for whoever passes all checks."""
        endpoint = self._endpoint
        request = Request(
            path=_decode(params, self._names),
            raw_query=_text(scope["query_string"]),
            headers=headers,
            ip=ip,
        )
        if endpoint.auth is Auth.SERVER:
            # The signature covers the body: read first, bounded.
            request.raw_body = await body.read(endpoint.max_body_bytes)
            await self._server(request, scope["method"], path)
        elif self._authenticate is not None:
            await self._authenticate(request)
        if request.origin is not None:
            ASKER.set(request.origin)
        elif request.requester_or_none is not None:
            ASKER.set(request.requester.user_id)
        self._guards.limiter.check(endpoint, request)
        if endpoint.streams_body:
            request.body_stream = body
        elif endpoint.method != "GET" and endpoint.auth is not Auth.SERVER:
            request.raw_body = await body.read(endpoint.max_body_bytes)
        return await self._function(request)

    async def _user(self, request: Request) -> None:
        # Who acts as whom stands in few queries; what is quoted may be anything.
        raw_query = request.raw_query
        query = request.query() if "_id" in raw_query or "%" in raw_query else None
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

    async def _optional_user(self, request: Request) -> None:
        if request.access_token is not None:
            await self._user(request)

    async def _admin(self, request: Request) -> None:
        await self._user(request)
        if not request.requester.is_admin:
            raise errors.Forbidden("Only an administrator of this server may do this.")

    async def _appservice(self, request: Request) -> None:
        token = request.access_token
        if token is None:
            raise errors.MissingToken("This needs the token of an application service.")
        request.identify(await self._guards.authenticator.appservice(token))

    async def _anybody(self, request: Request) -> None:
        token = request.access_token
        requester = None if token is None else await self._guards.authenticator.appservice_or_none(token)
        if requester is not None:
            request.identify(requester)

    async def _server(self, request: Request, method: str, path: str) -> None:
        if self._guards.origins is None:
            raise errors.Unrecognized("Federation is off on this server.")
        target = f"{path}?{request.raw_query}" if request.raw_query else path
        request.origin = await self._guards.origins.origin(request, method, target)


def _decode(params: Sequence[str], names: Sequence[str]) -> Mapping[str, str]:
    """Percent-decode each path segment, strictly, and call it what its endpoint calls it."""
    try:
        decoded = [unquote(value, errors="strict") if "%" in value else value for value in params]
    except UnicodeDecodeError as error:
        raise errors.InvalidParam("The path is not valid UTF-8.") from error
    if any("\0" in value for value in decoded):
        raise errors.InvalidParam("Nothing that a path names has a null character.")
    return dict(zip(names, decoded, strict=True))


def _text(raw_query: bytes) -> str:
    try:
        return raw_query.decode()
    except UnicodeDecodeError as error:
        raise errors.InvalidParam("The query string is not valid UTF-8.") from error


def _headers(raw: Sequence[Header]) -> Mapping[str, str]:
    """By names in lower case, as ASGI has them; what is given several times is one list."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in raw}
    if len(headers) < len(raw):
        several: dict[str, list[str]] = {}
        for name, value in raw:
            several.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
        headers = {name: ",".join(values) for name, values in several.items()}
    return headers


def _length(headers: Mapping[str, str]) -> int | None:
    declared = headers.get("content-length", "")
    return int(declared) if declared.isdecimal() and len(declared) < 20 else None
