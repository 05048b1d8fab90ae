"""Which state of a room a client wants: rules, unions of them, and what a change of rules adds.

Pure functions. A rule names slots (type, state key), either of which may be left open.

Spec: MSC4186, "RequiredStateRequest", "Lazy loaded memberships", "Combining required_state".
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from ranvier.core.identifiers import StateKey

MEMBER: Final = "m.room.member"

Pattern = tuple[str | None, str | None]
"""(type, state key); None: any."""

EVERYTHING: Final[Pattern] = (None, None)


class Rule(msgspec.Struct, frozen=True):
    """What one list or subscription wants."""

    include: frozenset[Pattern] = frozenset()
    exclude: frozenset[Pattern] = frozenset()
    lazy: bool = False  # of members, those that the timeline shows

    def matches(self, event_type: str, state_key: str) -> bool:
        """Whether a slot is wanted for itself; that the timeline shows a member is another matter."""
        if self.exclude and _is_among(self.exclude, event_type, state_key):
            return False
        if self.lazy and event_type == MEMBER:
            # Members in general come lazily; who is named comes in any case.
            return (MEMBER, state_key) in self.include or (None, state_key) in self.include
        return _is_among(self.include, event_type, state_key)

    @property
    def wants_all_members(self) -> bool:
        if self.lazy or (MEMBER, None) in self.exclude or EVERYTHING in self.exclude:
            return False
        return (MEMBER, None) in self.include or EVERYTHING in self.include


def _is_among(patterns: frozenset[Pattern], event_type: str, state_key: str) -> bool:
    return (
        (event_type, state_key) in patterns
        or (event_type, None) in patterns
        or EVERYTHING in patterns
        or (None, state_key) in patterns
    )


class RequiredState(msgspec.Struct, frozen=True):
    """What several rules want together."""

    rules: frozenset[Rule] = frozenset()

    def __or__(self, other: "RequiredState") -> "RequiredState":
        return self if other.rules <= self.rules else RequiredState(self.rules | other.rules)

    def matches(self, event_type: str, state_key: str) -> bool:
        return any(rule.matches(event_type, state_key) for rule in self.rules)

    @property
    def is_lazy(self) -> bool:
        """Whether members come as the timeline shows them."""
        return any(rule.lazy for rule in self.rules) and not self.wants_all_members

    @property
    def wants_all_members(self) -> bool:
        return any(rule.wants_all_members for rule in self.rules)

    def named_members(self) -> set[StateKey]:
        """The members that are wanted by name."""
        return {
            (MEMBER, key)
            for rule in self.rules
            for event_type, key in rule.include
            if key and event_type in (MEMBER, None) and rule.matches(MEMBER, key)
        }

    def covers(self, other: "RequiredState") -> bool:
        """Whether everything that `other` wants is wanted here for certain."""
        if other.rules <= self.rules:
            return True
        return all(any(_rule_covers(mine, theirs) for mine in self.rules) for theirs in other.rules)


NO_STATE: Final = RequiredState()


def _rule_covers(mine: Rule, theirs: Rule) -> bool:
    if mine == theirs:
        return True
    if mine.lazy != theirs.lazy or not mine.exclude <= theirs.exclude:
        return False
    if EVERYTHING not in mine.include:
        return theirs.include <= mine.include
    # Lazily, members come only if they are named, and "everything" names nobody.
    return not mine.lazy or {one for one in theirs.include if _may_name_member(one)} <= mine.include


def _may_name_member(pattern: Pattern) -> bool:
    event_type, state_key = pattern
    return event_type in (MEMBER, None) and state_key is not None


def require(
    patterns: Iterable[Pattern], *, exclude: Iterable[Pattern] = (), lazy: bool = False
) -> RequiredState:
    """What one rule wants."""
    return RequiredState(frozenset((Rule(frozenset(patterns), frozenset(exclude), lazy),)))
