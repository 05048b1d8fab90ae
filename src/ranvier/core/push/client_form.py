"""Push rules as clients see them: the answers of /pushrules and the content of m.push_rules.

Spec: client-server API, push notifications, "Push Rules: API" and "m.push_rules".
"""

from ranvier.core.canonical_json import JsonObject
from ranvier.core.identifiers import UserID
from ranvier.core.push.defaults import conditions_for
from ranvier.core.push.rules import PushRule, RuleKind, UserRules
from ranvier.core.push.ruleset import iter_rules


def build_push_rules(rules: UserRules, user_id: UserID) -> JsonObject:
    """All rules of a user, default ones included, each kind with the most important first: `{"global":
    …}`.
    """
    return {
        "global": {
            kind.value: [
                build_push_rule(kind, rule, user_id, is_default=is_default)
                for rule, is_default in iter_rules(rules, kind)
            ]
            for kind in RuleKind
            if kind is not RuleKind.POSTCONTENT or rules.follows_threads
        }
    }


def build_push_rule(kind: RuleKind, rule: PushRule, user_id: UserID, *, is_default: bool) -> JsonObject:
    """One rule, with the keys that its kind has."""
    form: JsonObject = {
        "rule_id": rule.rule_id,
        "default": is_default,
        "enabled": rule.enabled,
        "actions": list(rule.actions),
    }
    if kind.has_conditions:
        form["conditions"] = conditions_for(rule, user_id) if is_default else list(rule.conditions)
    if kind is RuleKind.CONTENT:
        form["pattern"] = rule.pattern
    return form
