"""What a client asks for: its body, laid over what it said before in the session, and checked.

Parameters are sticky one by one: what a body does not name stays as it was, and null takes a stream or a
parameter back. `p` belongs to one request; of it, only `limit` and `sort` are remembered.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import BadIdentifier, BadJsonValue, InvalidParam, MissingParam
from ranvier.core.identifiers import RoomID, parse_room_id
from ranvier.historical.sync_v3.tokens import Page, parse_page

TYPING: Final = "typing"
TO_DEVICE: Final = "to_device"
MEMBERS: Final = "room_members"
ROOMS: Final = "rooms"
ACCOUNT_DATA: Final = "account_data"

ALIASES: Final[Mapping[str, str]] = {"room_member": MEMBERS, "room_list": ROOMS}
"""Names of the code of August 2021, for the same streams. An answer stands under the name that was asked for."""

MAX_LIMIT: Final = 1000
DEFAULT_LIMITS: Final[Mapping[str, int]] = {TO_DEVICE: 100, MEMBERS: 50, ROOMS: 100}

SORTS: Final[Mapping[str, tuple[str, ...]]] = {
    MEMBERS: ("by_pl", "by_name"),
    ROOMS: ("by_recency", "by_name", "by_tag"),
}
"""The orders of each paginated stream. The first one is used where another is asked for."""

MAX_SORTS: Final = 8
"""Orders in a list of orders; who names more gets the first few."""

_AS: Final = "as"
_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    TYPING: ("room_id",),
    TO_DEVICE: ("limit",),
    MEMBERS: ("room_id", "limit", "sort"),
    ROOMS: ("limit", "sort"),
    ACCOUNT_DATA: ("room_id",),
}
_NEEDS_ROOM: Final = frozenset((TYPING, MEMBERS))

Sticky = Mapping[str, Mapping[str, Any]]
"""Stream -> what of it is remembered."""


class Stream(msgspec.Struct, frozen=True):
    """One stream as it is to be answered."""

    name: str
    answered_as: str
    room_id: RoomID | None = None
    limit: int = MAX_LIMIT
    sort: tuple[str, ...] = ()
    is_sort_list: bool = False  # whether the client spoke of orders in a list
    page: Page | None = None  # None: changes
    is_fresh: bool = False  # asked for first, or for another room than before

    @property
    def negotiated(self) -> dict[str, Any]:
        """The parameters that are in use, for the answer."""
        used: dict[str, Any] = {"limit": self.limit}
        if self.sort:
            used["sort"] = list(self.sort) if self.is_sort_list else self.sort[0]
        return used


class Wanted(msgspec.Struct, frozen=True):
    """A whole request. `sticky` is what is stored of it."""

    streams: Mapping[str, Stream]
    sticky: Sticky


def read_request(stored: Sticky, body: JsonObject) -> Wanted:
    """Lay a body over what is stored. Streams and parameters that are not known here are ignored.

    Raises: BadJsonValue, InvalidParam, MissingParam; BadToken (a page).
    """
    sticky = {name: dict(params) for name, params in stored.items()}
    pages: dict[str, Page] = {}
    seen: set[str] = set()
    for given_name, given in body.items():
        name = ALIASES.get(given_name, given_name)
        if name not in _KEYS:
            continue
        if name in seen:
            raise InvalidParam(f"{given_name} is another name of {name}: use one of them.")
        seen.add(name)
        if given is None:
            sticky.pop(name, None)
            continue
        if type(given) is not dict:
            raise BadJsonValue(f"{given_name} must be an object.")
        page = _merge(name, given_name, sticky.setdefault(name, {}), given)
        if page is not None:
            pages[name] = page
    streams = {
        name: _stream(name, params, pages.get(name), stored.get(name)) for name, params in sticky.items()
    }
    return Wanted(streams, sticky)


def _merge(name: str, given_name: str, params: dict[str, Any], given: JsonObject) -> Page | None:
    """Effects: `params` takes what is given. Returns the page that is asked for."""
    p = given.get("p")
    if p is None:
        p = {}
    if type(p) is not dict:
        raise BadJsonValue(f"{given_name}.p must be an object.")
    params.pop(_AS, None)
    if given_name != name:
        params[_AS] = given_name
    for key in _KEYS[name]:
        source = p if key in p and key != "room_id" else given
        if key not in source:
            continue
        if source[key] is None:
            params.pop(key, None)
        else:
            params[key] = _CHECKS[key](name, source[key])
    if name in _NEEDS_ROOM and "room_id" not in params:
        raise MissingParam(f"{given_name}.room_id is missing.")
    return _page(given_name, p) if name in SORTS else None


def _page(given_name: str, p: JsonObject) -> Page | None:
    # `next` is what the code of August 2021 called it.
    text = p.get("since", p.get("next"))
    if text is None:
        return None
    if not isinstance(text, str):
        raise BadJsonValue(f"{given_name}.p.since must be a string.")
    return parse_page(text)


def _room_id(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise BadJsonValue(f"{name}.room_id must be a string.")
    try:
        return parse_room_id(value)
    except BadIdentifier as error:
        raise InvalidParam(f"{name}.room_id is no room id.") from error


def _limit(name: str, value: object) -> int:
    if type(value) is not int:
        raise BadJsonValue(f"{name}.limit must be a whole number.")
    if value < 1:
        raise InvalidParam(f"{name}.limit must be at least 1.")
    return min(value, MAX_LIMIT)


def _sort(name: str, value: object) -> str | list[str]:
    """What can be done of it: orders that are known, or the stream's own."""
    if isinstance(value, str):
        return value if value in SORTS[name] else SORTS[name][0]
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise BadJsonValue(f"{name}.sort must be the name of an order, or a list of them.")
    known = list(dict.fromkeys(one for one in value if one in SORTS[name]))
    return known[:MAX_SORTS] or [SORTS[name][0]]


_CHECKS: Final[Mapping[str, Callable[[str, object], Any]]] = {
    "room_id": _room_id,
    "limit": _limit,
    "sort": _sort,
}


def _stream(
    name: str, params: Mapping[str, Any], page: Page | None, before: Mapping[str, Any] | None
) -> Stream:
    room_id = params.get("room_id")
    sort = params.get("sort") or (SORTS[name][0] if name in SORTS else ())
    return Stream(
        name,
        params.get(_AS, name),
        room_id,
        params.get("limit", DEFAULT_LIMITS.get(name, MAX_LIMIT)),
        (sort,) if isinstance(sort, str) else tuple(sort),
        isinstance(params.get("sort"), list),
        page,
        before is None or before.get("room_id") != room_id,
    )
