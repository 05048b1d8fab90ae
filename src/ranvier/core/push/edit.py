"""How clients change push rules: reading what they send, and the user's rules before → after.

Spec: client-server API, push notifications, "Push Rules: API".
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from ranvier.core.errors import BadJsonValue, InvalidParam, MatrixError, MissingParam, NotFound
from ranvier.core.limits import MAX_IDENTIFIER_BYTES
from ranvier.core.push.conditions import MAX_PATTERN_CHARS, MAX_WILDCARDS
from ranvier.core.push.defaults import DEFAULT_RULES
from ranvier.core.push.rules import (
    HISTORICAL_ACTIONS,
    Action,
    DefaultChange,
    PushRule,
    RuleKind,
    UserRules,
    encode_user_rules,
)
from ranvier.core.push.ruleset import iter_rules

# Bounds of our own.
MAX_RULES: Final = 2_000
"""Own rules of one user, of all kinds together."""
MAX_RULES_BYTES: Final = 1_048_576
"""Of all that one user set up, as it is stored."""
MAX_CONDITIONS: Final = 50
MAX_ACTIONS: Final = 50


def parse_kind(text: str) -> RuleKind:
    """Raises: InvalidParam for a kind that does not exist."""
    try:
        return RuleKind(text)
    except ValueError as error:
        raise InvalidParam(f"there are no push rules of kind {text[:100]!r}") from error


def parse_rule(kind: RuleKind, rule_id: str, body: Mapping[str, Any]) -> PushRule:
    """The rule that the body of PUT /pushrules/global/{kind}/{ruleId} describes, enabled.

    Conditions of an unknown kind are kept: they never match, and another client may know them.

    Raises: InvalidParam for a rule id that no user may give; MissingParam; BadJsonValue.
    """
    if kind is RuleKind.POSTCONTENT:
        raise InvalidParam("rules of this kind are the server's")
    _check_rule_id(rule_id)
    actions = parse_actions(body)
    if kind.has_conditions:
        return PushRule(rule_id=rule_id, actions=actions, conditions=_parse_conditions(body))
    if kind is RuleKind.CONTENT:
        return PushRule(rule_id=rule_id, actions=actions, pattern=_parse_pattern(body))
    return PushRule(rule_id=rule_id, actions=actions)


def parse_actions(body: Mapping[str, Any]) -> tuple[Action, ...]:
    """The `actions` of a body. Historical ones do nothing, but a client that wrote them reads them again.

    Raises: MissingParam; BadJsonValue for an action that is neither notify nor a set_tweak.
    """
    if "actions" not in body:
        raise MissingParam("a push rule needs actions")
    actions = body["actions"]
    if not isinstance(actions, list) or len(actions) > MAX_ACTIONS:
        raise BadJsonValue(f"actions are a list of at most {MAX_ACTIONS}")
    for action in actions:
        if isinstance(action, str):
            is_known = action == "notify" or action in HISTORICAL_ACTIONS
        else:
            is_known = isinstance(action, dict) and isinstance(action.get("set_tweak"), str)
        if not is_known:
            raise BadJsonValue("an action is notify, or an object whose set_tweak names the tweak")
    return tuple(actions)


def parse_enabled(body: Mapping[str, Any]) -> bool:
    """Raises: MissingParam; BadJsonValue."""
    if "enabled" not in body:
        raise MissingParam("enabled is missing")
    if not isinstance(body["enabled"], bool):
        raise BadJsonValue("enabled is true or false")
    return body["enabled"]


def find_rule(rules: UserRules, kind: RuleKind, rule_id: str) -> tuple[PushRule, bool] | None:
    """A rule, own or default, and whether it is a default one."""
    return next((found for found in iter_rules(rules, kind) if found[0].rule_id == rule_id), None)


def get_rule(rules: UserRules, kind: RuleKind, rule_id: str) -> tuple[PushRule, bool]:
    """Like find_rule. Raises: NotFound."""
    found = find_rule(rules, kind, rule_id)
    if found is None:
        raise NotFound("The push rule was not found")
    return found


def put_rule(
    rules: UserRules, kind: RuleKind, rule: PushRule, *, before: str | None = None, after: str | None = None
) -> UserRules:
    """Add a rule, or replace the one of the same id, which stays enabled or disabled as it was.

    A new rule becomes the most important one of its kind, a replaced one stays where it is, unless
    `before` or `after` names an own rule of the same kind: then it goes directly above or below that one.
    `before` wins over `after`.

    Raises: MatrixError (M_UNKNOWN, 400) when there is no such rule; InvalidParam when the rules grow too
        large; BadJsonValue for text that is not Unicode.
    """
    old = list(rules.own.get(kind, ()))
    at = _index(old, rule.rule_id)
    if at is not None:
        rule = msgspec.structs.replace(rule, enabled=old.pop(at).enabled)
    old.insert(_place(old, at or 0, before, after), rule)
    return _check_size(_with_own(rules, kind, old))


def delete_rule(rules: UserRules, kind: RuleKind, rule_id: str) -> UserRules:
    """Raises: NotFound; default rules cannot be deleted, only disabled."""
    old = rules.own.get(kind, ())
    at = _index(old, rule_id)
    if at is None:
        raise NotFound("The push rule was not found")
    return _with_own(rules, kind, [*old[:at], *old[at + 1 :]])


def set_enabled(rules: UserRules, kind: RuleKind, rule_id: str, *, enabled: bool) -> UserRules:
    """Enable or disable a rule, own or default. Raises: NotFound."""
    rule, is_default = get_rule(rules, kind, rule_id)
    return _change_rule(rules, kind, msgspec.structs.replace(rule, enabled=enabled), is_default=is_default)


def set_actions(rules: UserRules, kind: RuleKind, rule_id: str, actions: Sequence[Action]) -> UserRules:
    """Give a rule, own or default, other actions. Raises: NotFound; InvalidParam when the rules grow too
    large.
    """
    rule, is_default = get_rule(rules, kind, rule_id)
    changed = msgspec.structs.replace(rule, actions=tuple(actions))
    return _check_size(_change_rule(rules, kind, changed, is_default=is_default))


def _check_rule_id(rule_id: str) -> None:
    if not rule_id or rule_id.startswith("."):
        raise InvalidParam("a rule id is not empty, and those that start with a dot belong to the server")
    if "/" in rule_id or "\\" in rule_id:
        raise InvalidParam("a rule id has no slashes or backslashes")
    # COMPAT: Element names a muted room's rule by the room id, a keyword's rule by the keyword: any
    # text goes.
    if len(rule_id) > MAX_IDENTIFIER_BYTES or "\0" in rule_id:
        raise InvalidParam(f"a rule id has at most {MAX_IDENTIFIER_BYTES} characters, and no NUL")


def _parse_conditions(body: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    conditions = body.get("conditions", [])
    if not isinstance(conditions, list) or len(conditions) > MAX_CONDITIONS:
        raise BadJsonValue(f"conditions are a list of at most {MAX_CONDITIONS}")
    for condition in conditions:
        if not isinstance(condition, dict) or not isinstance(condition.get("kind"), str):
            raise BadJsonValue("a condition is an object with a kind")
        _check_pattern(condition.get("pattern"))
    return tuple(conditions)


def _parse_pattern(body: Mapping[str, Any]) -> str:
    pattern = body.get("pattern")
    if pattern is None:
        raise MissingParam("a content rule needs a pattern")
    if not isinstance(pattern, str):
        raise BadJsonValue("a pattern is a string")
    _check_pattern(pattern)
    return pattern


def _check_pattern(pattern: object) -> None:
    if not isinstance(pattern, str):
        return
    if len(pattern) > MAX_PATTERN_CHARS or pattern.count("*") + pattern.count("?") > MAX_WILDCARDS:
        raise InvalidParam(
            f"a pattern has at most {MAX_PATTERN_CHARS} characters and {MAX_WILDCARDS} wildcards"
        )


def _index(rules: Sequence[PushRule], rule_id: str) -> int | None:
    return next((at for at, rule in enumerate(rules) if rule.rule_id == rule_id), None)


def _place(rules: Sequence[PushRule], default: int, before: str | None, after: str | None) -> int:
    neighbor = before if before is not None else after
    if neighbor is None:
        return default
    at = _index(rules, neighbor)
    if at is None:
        raise MatrixError(f"before/after rule not found: {neighbor[:MAX_IDENTIFIER_BYTES]}")
    return at if before is not None else at + 1


def _with_own(rules: UserRules, kind: RuleKind, own: Sequence[PushRule]) -> UserRules:
    every = {**rules.own, kind: tuple(own)}
    return msgspec.structs.replace(rules, own={kind: own for kind, own in every.items() if own})


def _change_rule(rules: UserRules, kind: RuleKind, rule: PushRule, *, is_default: bool) -> UserRules:
    if not is_default:
        old = rules.own[kind]
        return _with_own(rules, kind, [rule if one.rule_id == rule.rule_id else one for one in old])
    original = next(one for one in DEFAULT_RULES[kind] if one.rule_id == rule.rule_id)
    change = DefaultChange(
        enabled=None if rule.enabled == original.enabled else rule.enabled,
        actions=None if rule.actions == original.actions else rule.actions,
    )
    changes = {rule_id: kept for rule_id, kept in rules.changes.items() if rule_id != rule.rule_id}
    # Whoever goes back to the defaults shares the default ruleset again.
    if change != DefaultChange():
        changes[rule.rule_id] = change
    return msgspec.structs.replace(rules, changes=changes)


def _check_size(rules: UserRules) -> UserRules:
    try:
        size = len(encode_user_rules(rules))
    except (UnicodeEncodeError, RecursionError) as error:
        raise BadJsonValue("a push rule is no valid text, or nested too deeply") from error
    if sum(map(len, rules.own.values())) > MAX_RULES or size > MAX_RULES_BYTES:
        raise InvalidParam("you have too many push rules, or too long ones")
    return rules
