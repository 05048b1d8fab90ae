"""The filters that clients give to /sync, /messages, /context and /search: read from JSON, compiled once.

A filter's `types`, `senders` and `rooms` may also be pushed down into SQL: an EventSelector shows them as
sets, and `types_are_exact` says whether its sets tell the whole truth about types. `related_by_…` needs
the store in any case.

Spec: client-server API, "Filtering"; MSC3440 (related_by_…), MSC3874 (rel_types).
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from ranvier.core.errors import BadIdentifier, BadJsonValue, NotJson
from ranvier.core.globs import Matcher, compile_star_glob
from ranvier.core.identifiers import parse_room_id, parse_user_id
from ranvier.core.property_paths import parse_property_path

MAX_FILTER_BYTES: Final = 65_536
"""Our own bound on the JSON of one filter."""

_EMPTY: Final[Mapping[str, Any]] = {}


class EventFilter(msgspec.Struct, frozen=True):
    """EventFilter and RoomEventFilter as on the wire. An absent list lets everything pass, an empty
    list nothing.
    """

    # COMPAT: the text wants a limit above 0, but clients send 0 to get no timeline.
    limit: Annotated[int, msgspec.Meta(ge=0, le=2**53)] | None = None
    types: list[str] | None = None
    not_types: list[str] | None = None
    senders: list[str] | None = None
    not_senders: list[str] | None = None
    rooms: list[str] | None = None
    not_rooms: list[str] | None = None
    contains_url: bool | None = None
    lazy_load_members: bool | None = None
    include_redundant_members: bool | None = None
    unread_thread_notifications: bool | None = None
    related_by_senders: list[str] | None = None
    related_by_rel_types: list[str] | None = None
    rel_types: list[str] | None = msgspec.field(default=None, name="org.matrix.msc3874.rel_types")
    not_rel_types: list[str] | None = msgspec.field(default=None, name="org.matrix.msc3874.not_rel_types")


class RoomFilter(msgspec.Struct, frozen=True):
    """RoomFilter as on the wire. Its `rooms` and `not_rooms` apply before those of its parts."""

    rooms: list[str] | None = None
    not_rooms: list[str] | None = None
    include_leave: bool | None = None
    state: EventFilter | None = None
    timeline: EventFilter | None = None
    ephemeral: EventFilter | None = None
    account_data: EventFilter | None = None


class Filter(msgspec.Struct, frozen=True):
    """A whole Filter as on the wire."""

    event_fields: list[str] | None = None
    event_format: Literal["client", "federation"] | None = None
    presence: EventFilter | None = None
    account_data: EventFilter | None = None
    room: RoomFilter | None = None


class Selection(msgspec.Struct, frozen=True):
    """A choice of names: those in `only` (None: all) and not in `never`, which wins."""

    only: frozenset[str] | None = None
    never: frozenset[str] = frozenset()

    def __contains__(self, name: object) -> bool:
        return (self.only is None or name in self.only) and name not in self.never

    @property
    def is_everything(self) -> bool:
        return self.only is None and not self.never

    @property
    def is_nothing(self) -> bool:
        return self.only is not None and self.only <= self.never


class FilterableEvent(msgspec.Struct, frozen=True):
    """What a filter looks at. `sender` and `room_id` are None where there is none (account data, typing)."""

    type: str
    sender: str | None = None
    room_id: str | None = None
    content: Mapping[str, Any] = _EMPTY


class EventSelector(msgspec.Struct, frozen=True, kw_only=True):
    """An EventFilter, compiled. `matches` decides all but `related_by_…`, which is for whoever reads."""

    limit: int | None
    """As asked for; the caller has its own default and its own maximum."""
    types: Selection
    """The types without wildcard. A query may leave out `never` in any case; `only` says all that may pass
    if `types_are_exact`.
    """
    types_are_exact: bool
    senders: Selection
    rooms: Selection
    contains_url: bool | None
    lazy_load_members: bool
    include_redundant_members: bool
    unread_thread_notifications: bool
    related_by_senders: frozenset[str] | None
    related_by_rel_types: frozenset[str] | None
    checks: tuple[Callable[[FilterableEvent], bool], ...]

    def matches(self, event: FilterableEvent) -> bool:
        """Whether the event passes. Never raises."""
        for check in self.checks:  # noqa: SIM110 - a generator here makes the whole match four times slower
            if not check(event):
                return False
        return True

    @property
    def is_everything(self) -> bool:
        """Whether every event passes, so that nobody needs to ask."""
        return not self.checks and not self.needs_relations

    @property
    def is_nothing(self) -> bool:
        """Whether it is certain that no event passes, so that nothing needs to be read."""
        return (
            (self.types_are_exact and self.types.is_nothing)
            or self.senders.is_nothing
            or self.rooms.is_nothing
        )

    @property
    def needs_relations(self) -> bool:
        """Whether what relates to an event has a say."""
        return self.related_by_senders is not None or self.related_by_rel_types is not None


class SyncFilter(msgspec.Struct, frozen=True, kw_only=True):
    """A Filter, compiled."""

    fields: "EventFields | None"
    """None: every field."""
    federation_format: bool
    presence: EventSelector
    account_data: EventSelector
    rooms: Selection
    include_leave: bool
    state: EventSelector
    timeline: EventSelector
    ephemeral: EventSelector
    room_account_data: EventSelector


class EventFields:
    """The `event_fields` of a filter: which properties of an event to keep."""

    __slots__ = ("_tree",)

    def __init__(self, paths: Iterable[str]) -> None:
        # Property name -> the same for what is inside, or None to keep the whole value.
        self._tree: dict[str, Any] = {}
        for path in paths:
            _plant(self._tree, parse_property_path(path))

    def project(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """The event with nothing but the chosen properties. Objects on the way to one are kept, if only
        with it.
        """
        return _project(self._tree, event)


def parse_filter(raw: bytes | str) -> Filter:
    """Read the body of POST /filter, or the inline `filter` of /sync.

    Raises: NotJson; BadJsonValue for a wrong type, a user or room id that is none, or too many bytes.
    """
    parsed = _decode(raw, Filter)
    room = parsed.room or RoomFilter()
    _check_ids(room.rooms, room.not_rooms, parse_room_id)
    for part in (
        parsed.presence,
        parsed.account_data,
        room.state,
        room.timeline,
        room.ephemeral,
        room.account_data,
    ):
        if part is not None:
            _check_event_filter(part)
    return parsed


def parse_event_filter(raw: bytes | str) -> EventFilter:
    """Read the `filter` of /messages, /context and /search: a RoomEventFilter alone.

    Raises: as parse_filter.
    """
    parsed = _decode(raw, EventFilter)
    _check_event_filter(parsed)
    return parsed


def compile_filter(parsed: Filter) -> SyncFilter:
    room = parsed.room or RoomFilter()
    return SyncFilter(
        # A server may give more fields than asked for: an empty list means that nobody cared.
        fields=EventFields(parsed.event_fields) if parsed.event_fields else None,
        federation_format=parsed.event_format == "federation",
        presence=compile_event_filter(parsed.presence),
        account_data=compile_event_filter(parsed.account_data),
        rooms=_selection(room.rooms, room.not_rooms),
        include_leave=bool(room.include_leave),
        state=compile_event_filter(room.state),
        timeline=compile_event_filter(room.timeline),
        ephemeral=compile_event_filter(room.ephemeral),
        room_account_data=compile_event_filter(room.account_data),
    )


def compile_event_filter(parsed: EventFilter | None) -> EventSelector:
    """The selector for one part of a filter; None (an absent part) lets everything pass."""
    if parsed is None:
        return _EVERYTHING
    types = _selection(_without_star(parsed.types), _without_star(parsed.not_types))
    globs = _TypeGlobs(_star_globs(parsed.types), _star_globs(parsed.not_types))
    senders = _selection(parsed.senders, parsed.not_senders)
    rooms = _selection(parsed.rooms, parsed.not_rooms)
    return EventSelector(
        limit=parsed.limit,
        types=types,
        types_are_exact=globs.is_empty,
        senders=senders,
        rooms=rooms,
        contains_url=parsed.contains_url,
        lazy_load_members=bool(parsed.lazy_load_members),
        include_redundant_members=bool(parsed.include_redundant_members),
        unread_thread_notifications=bool(parsed.unread_thread_notifications),
        related_by_senders=_set_or_none(parsed.related_by_senders),
        related_by_rel_types=_set_or_none(parsed.related_by_rel_types),
        checks=(
            *_type_checks(types, globs),
            *([] if senders.is_everything else [lambda event: event.sender in senders]),
            *([] if rooms.is_everything else [lambda event: event.room_id in rooms]),
            *([] if parsed.contains_url is None else [partial(_check_url, parsed.contains_url)]),
            *_rel_type_checks(_selection(parsed.rel_types, parsed.not_rel_types)),
        ),
    )


class _TypeGlobs(msgspec.Struct, frozen=True):
    only: tuple[Matcher, ...]
    never: tuple[Matcher, ...]

    @property
    def is_empty(self) -> bool:
        return not self.only and not self.never


_Wire = TypeVar("_Wire", Filter, EventFilter)


def _decode(raw: bytes | str, shape: type[_Wire]) -> _Wire:
    if len(raw) > MAX_FILTER_BYTES:
        raise BadJsonValue(f"a filter has at most {MAX_FILTER_BYTES} bytes")
    try:
        return msgspec.json.decode(raw.encode() if isinstance(raw, str) else raw, type=shape)
    except msgspec.ValidationError as error:
        raise BadJsonValue(f"this is no filter: {error}") from error
    except (msgspec.DecodeError, UnicodeError) as error:
        raise NotJson("the filter is not JSON") from error
    except RecursionError as error:
        raise BadJsonValue("the filter is nested too deeply") from error


def _check_event_filter(part: EventFilter) -> None:
    _check_ids(part.senders, part.not_senders, parse_user_id)
    _check_ids(part.related_by_senders, None, parse_user_id)
    _check_ids(part.rooms, part.not_rooms, parse_room_id)


def _check_ids(only: list[str] | None, never: list[str] | None, parse: Callable[[object], object]) -> None:
    try:
        for value in (*(only or ()), *(never or ())):
            parse(value)
    except BadIdentifier as error:
        raise BadJsonValue(f"this is no filter: {error}") from error


def _selection(only: Iterable[str] | None, never: Iterable[str] | None) -> Selection:
    return Selection(_set_or_none(only), frozenset(never or ()))


def _set_or_none(names: Iterable[str] | None) -> frozenset[str] | None:
    return None if names is None else frozenset(names)


def _without_star(patterns: list[str] | None) -> list[str] | None:
    return None if patterns is None else [pattern for pattern in patterns if "*" not in pattern]


def _star_globs(patterns: list[str] | None) -> tuple[Matcher, ...]:
    return tuple(compile_star_glob(pattern) for pattern in patterns or () if "*" in pattern)


def _type_checks(types: Selection, globs: _TypeGlobs) -> list[Callable[[FilterableEvent], bool]]:
    checks: list[Callable[[FilterableEvent], bool]] = []
    only, never = types.only, types.never
    if only is not None:
        checks.append(lambda event: event.type in only or _matches_any(globs.only, event.type))
    if never or globs.never:
        checks.append(lambda event: event.type not in never and not _matches_any(globs.never, event.type))
    return checks


def _matches_any(globs: tuple[Matcher, ...], text: str) -> bool:
    for glob in globs:  # noqa: SIM110 - as in EventSelector.matches
        if glob(text):
            return True
    return False


def _rel_type_checks(rel_types: Selection) -> list[Callable[[FilterableEvent], bool]]:
    return [] if rel_types.is_everything else [lambda event: _rel_type(event.content) in rel_types]


def _rel_type(content: Mapping[str, Any]) -> str | None:
    relation = content.get("m.relates_to")
    rel_type = relation.get("rel_type") if isinstance(relation, Mapping) else None
    return rel_type if isinstance(rel_type, str) else None


def _check_url(wanted: bool, event: FilterableEvent) -> bool:
    return ("url" in event.content) is wanted


def _plant(tree: dict[str, Any], path: Collection[str]) -> None:
    *way, last = path
    for name in way:
        branch = tree.setdefault(name, {})
        if branch is None:  # the whole of it is kept already
            return
        tree = branch
    tree[last] = None


def _project(tree: dict[str, Any], value: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for name, branch in tree.items():
        if name not in value:
            continue
        inner = value[name]
        if branch is None:
            kept[name] = inner
        elif isinstance(inner, Mapping) and (part := _project(branch, inner)):
            kept[name] = part
    return kept


_EVERYTHING: Final = compile_event_filter(EventFilter())
"""What an absent part of a filter means: everything."""
