"""How an endpoint of the administration API declares itself: only administrators may call it, and what they do is
written to the log.
"""

import logging
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any, Final, TypeVar

from ranvier.core.identifiers import UserID, parse_user_id
from ranvier.http.endpoint import Api, Auth, Rate, endpoint
from ranvier.http.request import Query, Request

log = logging.getLogger("ranvier.audit")

V1: Final = "/_synapse/admin/v1"
V2: Final = "/_synapse/admin/v2"
V3: Final = "/_synapse/admin/v3"

MAX_PAGE: Final = 1_000

SECRETS: Final = frozenset({"token"})
"""Parameters of paths that open a door: the log shows where they begin."""
SHOWN_CHARS: Final = 3

Holder = TypeVar("Holder")
Function = Callable[[Holder, Request], Awaitable[Any]]


def administers(
    method: str, *paths: str, operation: str, looks_at_content: bool = False
) -> Callable[[Function[Holder]], Function[Holder]]:
    """Declare an endpoint for administrators.

    Whatever is not GET goes to the audit log: who did what to whom. So does GET where `looks_at_content`: what people
    wrote, and what they keep to themselves.
    """
    is_audited = method != "GET" or looks_at_content
    rate = Rate.READ if method == "GET" else Rate.WRITE

    def declare(function: Function[Holder]) -> Function[Holder]:
        @wraps(function)
        async def audited(self: Holder, request: Request) -> Any:
            whom = {
                name: shorten(value) if name in SECRETS else value for name, value in request.path.items()
            }
            who = f"{operation} by {request.requester.user_id} from {request.ip}: {whom}"
            try:
                answer = await function(self, request)
            except Exception as error:
                if is_audited:
                    log.info("%s failed: %s", who, type(error).__name__)
                raise
            if is_audited:
                log.info("%s", who)
            return answer

        options = {"auth": Auth.ADMIN, "api": Api.ADMIN, "rate": rate}
        return endpoint(method, *paths, operation=operation, **options)(audited)

    return declare


def shorten(secret: str) -> str:
    """Enough to tell secrets from each other, and no more: never more than a quarter."""
    return f"{secret[: min(SHOWN_CHARS, len(secret) // 4)]}…"


def named_user(request: Request) -> UserID:
    """Whom the path names."""
    return parse_user_id(request.path["userId"])


def page_of(query: Query, default_limit: int = 100) -> dict[str, int]:
    """`limit` and `offset` of a page."""
    return {
        "limit": query.integer("limit", default_limit, least=1, most=MAX_PAGE),
        "offset": query.integer("from", 0, most=2**31),
    }


def is_backwards(query: Query, default: str = "f") -> bool:
    return query.choice("dir", ("f", "b"), default) == "b"


def flag(query: Query, name: str) -> bool | None:
    """None: not asked."""
    return None if query.text(name) is None else query.boolean(name)
