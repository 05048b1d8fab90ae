"""A user's rules, merged with the default ones and compiled: those that can match, in the order of trial."""

from collections.abc import Iterator
from typing import Final

import msgspec

from ranvier.core.property_paths import PropertyPath
from ranvier.core.push.conditions import (
    Conditions,
    compile_conditions,
    compile_content_pattern,
    compile_default_conditions,
)
from ranvier.core.push.defaults import DEFAULT_RULES, MASTER
from ranvier.core.push.event import PushEvent
from ranvier.core.push.rules import DefaultChange, Outcome, PushRule, RuleKind, UserRules, outcome_of

MAX_TYPES: Final = 200
"""Event types for which a ruleset remembers what may match; anybody may make up types."""

ALL_ROOMS: Final = ""
"""Among rooms that are quiet."""

_TYPE: Final[PropertyPath] = ("type",)

Rank = tuple[int, int, int]
"""The place of a rule among all of a user: kind, master (-1) or own (0) or default (1), place among those."""


class CompiledRule:
    """A rule, ready to be asked."""

    __slots__ = ("conditions", "outcome", "rank")

    def __init__(self, rank: Rank, conditions: Conditions, outcome: Outcome) -> None:
        self.rank = rank
        self.conditions = conditions
        self.outcome = outcome


class Ruleset:
    """The compiled rules of one user, or of all users whose rules are the same.

    Rules that name one room or one sender are kept apart: somebody who muted a thousand rooms pays for
    none of them in the others.
    """

    __slots__ = (
        *("_by_room", "_by_sender", "_by_type", "_general", "follows_threads", "needs_display_name", "quiet"),
    )

    def __init__(self) -> None:
        self._general: list[tuple[str | None, CompiledRule]] = []  # with the one event type that it may match
        self._by_type: dict[str | None, list[CompiledRule]] = {}  # of `_general`, what may match a type
        self._by_room: dict[str, list[CompiledRule]] = {}
        self._by_sender: dict[str, list[CompiledRule]] = {}
        self.needs_display_name = False
        """Whether a rule asks for the user's display name in the room."""
        self.follows_threads = False
        """Whether the rules of those who follow threads are among them."""
        self.quiet: frozenset[str] = frozenset()
        """See `list_quiet_rooms`."""

    def is_quiet(self, room_id: str) -> bool:
        return bool(self.quiet) and (room_id in self.quiet or ALL_ROOMS in self.quiet)

    def rules_for(self, event: PushEvent) -> list[CompiledRule]:
        """The rules that may match, most important first."""
        general = self._rules_for_type(event.find_text(_TYPE))
        named: list[CompiledRule] = []
        if self._by_room and isinstance(event.room_id, str):
            named += self._by_room.get(event.room_id.lower(), ())
        if self._by_sender and isinstance(event.sender, str):
            named += self._by_sender.get(event.sender, ())
        return sorted(general + named, key=_rank) if named else general

    def _rules_for_type(self, event_type: str | None) -> list[CompiledRule]:
        rules = self._by_type.get(event_type)
        if rules is None:
            rules = [rule for only_type, rule in self._general if only_type in (None, event_type)]
            if len(self._by_type) >= MAX_TYPES:
                self._by_type.clear()
            self._by_type[event_type] = rules
        return rules

    def add(self, kind: RuleKind, rule: PushRule, compiled: CompiledRule) -> None:
        """File a rule under what it names. Only for compile_ruleset."""
        self.needs_display_name = self.needs_display_name or compiled.conditions.by_display_name
        room_id = rule.rule_id.lower() if kind is RuleKind.ROOM else _named_room(rule)
        if room_id is not None:
            self._by_room.setdefault(room_id, []).append(compiled)
        elif kind is RuleKind.SENDER:
            self._by_sender.setdefault(rule.rule_id, []).append(compiled)
        else:
            self._general.append((_named_type(rule), compiled))


def compile_ruleset(rules: UserRules) -> Ruleset:
    """Compile a user's rules. Whoever has the default ones gets DEFAULT_RULESET itself."""
    if rules == UserRules():
        return DEFAULT_RULESET
    return _compile(rules)


def iter_rules(rules: UserRules, kind: RuleKind) -> Iterator[tuple[PushRule, bool]]:
    """All rules of a kind, most important first, each with whether it is a default rule.

    A user's own rules come before the default ones, but for .m.rule.master, which comes before everything.
    """
    has_defaults = kind is not RuleKind.POSTCONTENT or rules.follows_threads
    known = DEFAULT_RULES[kind] if has_defaults else ()
    defaults = [_change(rule, rules.changes.get(rule.rule_id)) for rule in known]
    if defaults and defaults[0].rule_id == MASTER:
        yield defaults.pop(0), True
    for rule in rules.own.get(kind, ()):
        yield rule, False
    for rule in defaults:
        yield rule, True


def list_quiet_rooms(rules: UserRules) -> frozenset[str]:
    """Rooms (ids, or ALL_ROOMS) in which hardly anything notifies the user: a rule that names just the room says so.
    What other rules say of single events counts all the same."""
    quiet: set[str] = set()
    for kind in (RuleKind.OVERRIDE, RuleKind.ROOM):
        for rule, is_default in iter_rules(rules, kind):
            if not rule.enabled or outcome_of(rule.actions).notify:
                continue
            if kind is RuleKind.ROOM:
                quiet.add(rule.rule_id)
            elif is_default and rule.rule_id == MASTER:
                quiet.add(ALL_ROOMS)
            elif not is_default and len(rule.conditions) == 1 and _named_room(rule) is not None:
                quiet.add(str(rule.conditions[0]["pattern"]))
    return frozenset(quiet)


def _compile(rules: UserRules) -> Ruleset:
    ruleset = Ruleset()
    ruleset.quiet = list_quiet_rooms(rules)
    ruleset.follows_threads = rules.follows_threads
    for kind in RuleKind:
        for place, (rule, is_default) in enumerate(iter_rules(rules, kind)):
            if rule.enabled:
                compiled = _compile_default(rule) if is_default else _compile_own(kind, place, rule)
                ruleset.add(kind, rule, compiled)
    return ruleset


def _compile_default(rule: PushRule) -> CompiledRule:
    """The shared rule, or one that differs from it in what it does."""
    shared = _DEFAULTS[rule.rule_id]
    outcome = outcome_of(rule.actions)
    return shared if outcome == shared.outcome else CompiledRule(shared.rank, shared.conditions, outcome)


def _compile_own(kind: RuleKind, place: int, rule: PushRule) -> CompiledRule:
    return CompiledRule(_rank_of(kind, 0, place), _compile_conditions(kind, rule), outcome_of(rule.actions))


def _compile_conditions(kind: RuleKind, rule: PushRule) -> Conditions:
    rule_id = rule.rule_id
    match kind:
        case RuleKind.ROOM:
            return Conditions((lambda event: event.room_id == rule_id,))
        case RuleKind.SENDER:
            return Conditions(())  # the ruleset asks only the rules that are named like the sender
        case RuleKind.CONTENT:
            return Conditions((compile_content_pattern(rule.pattern),))
        case _:
            return compile_conditions(rule.conditions)


def _named_room(rule: PushRule) -> str | None:
    """The one room in which an override or underride rule can match, in lower case, if it names one."""
    for condition in rule.conditions:
        pattern = condition.get("pattern")
        is_room = condition.get("kind") == "event_match" and condition.get("key") == "room_id"
        if is_room and isinstance(pattern, str) and "*" not in pattern and "?" not in pattern:
            return pattern.lower()
    return None


def _named_type(rule: PushRule) -> str | None:
    """The one type of events that a rule can match, in lower case, if it names one."""
    for condition in rule.conditions:
        pattern = condition.get("pattern")
        is_type = condition.get("kind") == "event_match" and condition.get("key") == "type"
        if is_type and isinstance(pattern, str) and "*" not in pattern and "?" not in pattern:
            return pattern.lower()
    return None


def _change(rule: PushRule, change: DefaultChange | None) -> PushRule:
    if change is None:
        return rule
    return msgspec.structs.replace(
        rule,
        actions=rule.actions if change.actions is None else change.actions,
        enabled=rule.enabled if change.enabled is None else change.enabled,
    )


def _rank(rule: CompiledRule) -> Rank:
    return rule.rank


def _rank_of(kind: RuleKind, part: int, place: int) -> Rank:
    return _KINDS.index(kind), part, place


_KINDS: Final = tuple(RuleKind)

_DEFAULTS: Final = {
    rule.rule_id: CompiledRule(
        _rank_of(kind, -1 if rule.rule_id == MASTER else 1, place),
        compile_default_conditions(rule.conditions),
        outcome_of(rule.actions),
    )
    for kind, rules in DEFAULT_RULES.items()
    for place, rule in enumerate(rules)
}
"""Compiled once and shared by all rulesets, so that an event answers their conditions once for everybody."""

DEFAULT_RULESET: Final = _compile(UserRules())
"""The ruleset of everybody who has changed nothing."""
