"""The conditions of push rules, compiled once into tests.

A condition that is unknown, or lacks what its kind needs, never matches: so its whole rule never does.

Spec: client-server API, push notifications, "Conditions".
"""

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from ranvier.core.globs import compile_glob, compile_word_glob, is_plain_word
from ranvier.core.limits import MAX_SAFE_INTEGER, MIN_SAFE_INTEGER
from ranvier.core.property_paths import PropertyPath, parse_property_path
from ranvier.core.push.defaults import OWN_USER_ID, THREAD_SUBSCRIPTION
from ranvier.core.push.event import BODY, DEFAULT_NOTIFICATION_LEVEL, PushEvent, Test

MAX_PATTERN_CHARS: Final = 512
"""Our own bound: what a pattern costs is its length times that of the text at worst."""
MAX_WILDCARDS: Final = 32
"""In one pattern of a rule, when it is set: what it costs to compile grows with them."""

Names = Callable[[PushEvent], frozenset[str]]
"""The ids of the users for whom a condition on the user's own id holds."""

Match = bool | frozenset[str]
"""Whether conditions hold: for everybody (True), for nobody (False, or empty), or for these users."""

_COMPARISON: Final = re.compile(r"(==|<=|>=|<|>)?([0-9]{1,18})")
_OPERATORS: Final[Mapping[str, Callable[[int, int], bool]]] = {
    "==": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}


class Conditions:
    """The conditions of one rule, by what they need to be answered. Alike only if it is the same object."""

    __slots__ = ("_by_own_id", "_shared", "by_display_name")

    def __init__(
        self, shared: Iterable[Test], by_own_id: Iterable[Names] = (), *, by_display_name: bool = False
    ) -> None:
        self._shared = tuple(shared)
        self._by_own_id = tuple(by_own_id)
        self.by_display_name = by_display_name
        """Whether the body must also contain the user's display name."""

    def match(self, event: PushEvent) -> Match:
        """For whom the conditions hold, the one on the display name left open. Never raises."""
        if not all(test(event) for test in self._shared):
            return False
        if not self._by_own_id:
            return True
        first, *rest = (names(event) for names in self._by_own_id)
        return first.intersection(*rest)


def compile_conditions(conditions: Iterable[object]) -> Conditions:
    """Compile the conditions of a user's own rule. Never raises."""
    shared: list[Test] = []
    by_display_name = False
    for condition in conditions:
        if isinstance(condition, Mapping) and condition.get("kind") == "contains_display_name":
            by_display_name = True
        else:
            shared.append(compile_condition(condition))
    return Conditions(shared, by_display_name=by_display_name)


def compile_default_conditions(conditions: Iterable[Mapping[str, Any]]) -> Conditions:
    """Compile the conditions of a default rule, where OWN_USER_ID stands for whoever has it."""
    shared: list[Test] = []
    by_own_id: list[Names] = []
    for condition in conditions:
        if condition.get("kind") == THREAD_SUBSCRIPTION:
            by_own_id.append(_subscribers if condition["subscribed"] else _others)
        elif condition.get("value") == OWN_USER_ID:
            by_own_id.append(_names_in(parse_property_path(condition["key"])))
        elif condition.get("pattern") == OWN_USER_ID:
            by_own_id.append(_name_at(parse_property_path(condition["key"])))
        else:
            shared.append(compile_condition(condition))
    return Conditions(shared, by_own_id)


def compile_condition(condition: object) -> Test:
    """Compile a condition that is the same for everybody. Never raises."""
    kind = condition.get("kind") if isinstance(condition, Mapping) else None
    compile_kind = _COMPILERS.get(kind) if isinstance(kind, str) else None
    if compile_kind is None or not isinstance(condition, Mapping):
        return _never
    return compile_kind(condition) or _never


def compile_content_pattern(pattern: object) -> Test:
    """The test of a content rule: the pattern stands in the body, between word boundaries, in any case."""
    return compile_condition({"kind": "event_match", "key": "content.body", "pattern": pattern})


def _never(_event: PushEvent) -> bool:
    return False


def _compile_event_match(condition: Mapping[str, Any]) -> Test | None:
    key, pattern = condition.get("key"), condition.get("pattern")
    if not isinstance(key, str) or not isinstance(pattern, str) or len(pattern) > MAX_PATTERN_CHARS:
        return None
    path, pattern = parse_property_path(key), pattern.lower()
    if path == BODY and is_plain_word(pattern):
        return lambda event: pattern in event.find_words()
    matches = (compile_word_glob if path == BODY else compile_glob)(pattern)

    def test(event: PushEvent) -> bool:
        text = event.find_text(path)
        return text is not None and matches(text)

    return test


def _compile_property_is(condition: Mapping[str, Any]) -> Test | None:
    key, value = condition.get("key"), condition.get("value")
    if not isinstance(key, str) or "value" not in condition or not _is_scalar(value):
        return None
    path, kind = parse_property_path(key), type(value)

    def test(event: PushEvent) -> bool:
        found = event.find(path)
        # Python takes True for 1; JSON does not.
        return type(found) is kind and found == value

    return test


def _compile_property_contains(condition: Mapping[str, Any]) -> Test | None:
    key, value = condition.get("key"), condition.get("value")
    if not isinstance(key, str) or "value" not in condition or not _is_scalar(value):
        return None
    path, kind = parse_property_path(key), type(value)

    def test(event: PushEvent) -> bool:
        found = event.find(path)
        return isinstance(found, list) and any(type(item) is kind and item == value for item in found)

    return test


def _compile_member_count(condition: Mapping[str, Any]) -> Test | None:
    comparison = condition.get("is")
    match = _COMPARISON.fullmatch(comparison) if isinstance(comparison, str) else None
    if match is None:
        return None
    compare, count = _OPERATORS[match[1] or "=="], int(match[2])
    return lambda event: compare(event.room.member_count, count)


def _compile_notification_permission(condition: Mapping[str, Any]) -> Test | None:
    key = condition.get("key")
    if not isinstance(key, str):
        return None
    return lambda event: (
        event.room.sender_power >= event.room.notification_levels.get(key, DEFAULT_NOTIFICATION_LEVEL)
    )


_COMPILERS: Final[Mapping[str, Callable[[Mapping[str, Any]], Test | None]]] = {
    "event_match": _compile_event_match,
    "event_property_is": _compile_property_is,
    "event_property_contains": _compile_property_contains,
    "room_member_count": _compile_member_count,
    "sender_notification_permission": _compile_notification_permission,
}


def _is_scalar(value: object) -> bool:
    if isinstance(value, int):
        return MIN_SAFE_INTEGER <= value <= MAX_SAFE_INTEGER
    return value is None or isinstance(value, str)


def _subscribers(event: PushEvent) -> frozenset[str]:
    return frozenset() if event.thread is None else event.thread.subscribers


def _others(event: PushEvent) -> frozenset[str]:
    return frozenset() if event.thread is None else event.thread.others


def _names_in(path: PropertyPath) -> Names:
    def names(event: PushEvent) -> frozenset[str]:
        found = event.find(path)
        return (
            frozenset(item for item in found if isinstance(item, str))
            if isinstance(found, list)
            else frozenset()
        )

    return names


def _name_at(path: PropertyPath) -> Names:
    def names(event: PushEvent) -> frozenset[str]:
        # Exact, although event_match ignores case: @Alice and @alice are two users.
        found = event.find(path)
        return frozenset((found,)) if isinstance(found, str) else frozenset()

    return names
