"""What both forms of a request have in common: filters, bounds, extensions.

Spec: MSC4186, "Request Body"; MSC4508, "Common extension semantics".
"""

from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec

from ranvier.core.errors import InvalidParam
from ranvier.core.identifiers import RoomID
from ranvier.http.request import describe_mismatch
from ranvier.services.sliding.request import (
    MAX_LISTS,
    MAX_SUBSCRIPTIONS,
    MAX_TIMELINE_LIMIT,
    Extensions,
    Filters,
    Paged,
    Range,
    Scope,
)

MAX_CONN_ID_CHARS: Final = 255
MAX_LIST_KEY_CHARS: Final = 64
MAX_PATTERNS: Final = 500
"""Of one required_state."""
MAX_NAMES: Final = 1_000
"""In one filter or scope."""
MAX_PLACE: Final = 2**53

DEFAULT_PAGE: Final = 100
_ALL: Final = "*"

T = TypeVar("T")


class FiltersBody(msgspec.Struct, frozen=True):
    """The filters that both forms name alike."""

    is_dm: bool | None = None
    spaces: list[str] | None = None
    is_encrypted: bool | None = None
    room_types: list[str | None] | None = None
    not_room_types: list[str | None] | None = None
    tags: list[str] | None = None
    not_tags: list[str] | None = None


def read_filters(body: FiltersBody, is_invited: bool | None) -> Filters:
    """Raises: InvalidParam."""
    for names in (body.spaces, body.room_types, body.not_room_types, body.tags, body.not_tags):
        if names is not None and len(names) > MAX_NAMES:
            raise InvalidParam(f"A filter names at most {MAX_NAMES} values.")
    return Filters(
        is_dm=body.is_dm,
        spaces=None if body.spaces is None else frozenset(RoomID(space) for space in body.spaces),
        is_encrypted=body.is_encrypted,
        is_invited=is_invited,
        room_types=None if body.room_types is None else frozenset(body.room_types),
        not_room_types=frozenset(body.not_room_types or ()),
        tags=None if body.tags is None else frozenset(body.tags),
        not_tags=frozenset(body.not_tags or ()),
    )


def check_sizes(conn_id: str, lists: Mapping[str, object], subscriptions: Mapping[str, object]) -> None:
    """Raises: InvalidParam."""
    if len(conn_id) > MAX_CONN_ID_CHARS or "\0" in conn_id:
        raise InvalidParam(f"conn_id has at most {MAX_CONN_ID_CHARS} characters, none of them U+0000.")
    if len(lists) > MAX_LISTS:
        raise InvalidParam(f"There may be at most {MAX_LISTS} lists.")
    if any(len(key) > MAX_LIST_KEY_CHARS for key in lists):
        raise InvalidParam(f"The key of a list has at most {MAX_LIST_KEY_CHARS} characters.")
    if len(subscriptions) > MAX_SUBSCRIPTIONS:
        raise InvalidParam(f"There may be at most {MAX_SUBSCRIPTIONS} room subscriptions.")


def read_range(pair: tuple[int, int]) -> Range:
    """Raises: InvalidParam."""
    first, last = pair
    if not 0 <= first <= last <= MAX_PLACE:
        raise InvalidParam("A range is [first, last], from 0 upwards.")
    return first, last


def read_limit(limit: int) -> int:
    """The timeline limit, cut down to what this server gives. Raises: InvalidParam."""
    if limit < 0:
        raise InvalidParam("timeline_limit must not be negative.")
    return min(limit, MAX_TIMELINE_LIMIT)


class _Scoped(msgspec.Struct, frozen=True):
    enabled: bool = False
    lists: list[str] | None = None
    rooms: list[str] | None = None


class _Paged(msgspec.Struct, frozen=True):
    enabled: bool = False
    limit: int = DEFAULT_PAGE
    since: str | None = None


class ExtensionKeys(msgspec.Struct, frozen=True, kw_only=True):
    """What one form calls the extensions."""

    to_device: str = "to_device"
    encryption: str = "e2ee"
    account_data: str = "account_data"
    receipts: str = "receipts"
    typing: str = "typing"
    sticky: str = "org.matrix.msc4354.sticky_events"
    thread_subscriptions: str = "io.element.msc4308.thread_subscriptions"


def read_extensions(bodies: Mapping[str, Any], keys: ExtensionKeys, *, star_is_all: bool) -> Extensions:
    """The extensions that are enabled; those that are not known are passed over.

    Raises: BadJsonValue, InvalidParam.
    """

    def scope(key: str) -> Scope | None:
        body = _convert(bodies, key, _Scoped)
        if not body.enabled:
            return None
        return Scope(_names(body.lists, star_is_all), _names(body.rooms, star_is_all))

    def paged(key: str) -> Paged | None:
        body = _convert(bodies, key, _Paged)
        if not body.enabled:
            return None
        if body.limit < 1:
            raise InvalidParam("limit must be at least 1.")
        return Paged(min(body.limit, DEFAULT_PAGE), _position(body.since))

    return Extensions(
        to_device=paged(keys.to_device),
        encryption=_convert(bodies, keys.encryption, _Scoped).enabled,
        account_data=scope(keys.account_data),
        receipts=scope(keys.receipts),
        typing=scope(keys.typing),
        sticky=paged(keys.sticky),
        thread_subscriptions=None if (threads := paged(keys.thread_subscriptions)) is None else threads.limit,
    )


def _convert(bodies: Mapping[str, Any], key: str, shape: type[T]) -> T:
    try:
        return msgspec.convert(bodies.get(key) or {}, shape)
    except msgspec.ValidationError as error:
        raise describe_mismatch(error) from error


def _names(names: list[str] | None, star_is_all: bool) -> frozenset[str] | None:
    if names is None or (star_is_all and _ALL in names):
        return None
    if len(names) > MAX_NAMES:
        raise InvalidParam(f"An extension names at most {MAX_NAMES} lists or rooms.")
    return frozenset(names)


def _position(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise InvalidParam("since is what an earlier response called next_batch.")
    return int(text)
