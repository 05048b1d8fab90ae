"""Push rules as values: what a user has set up, and what a rule that matched means.

Spec: client-server API, "Push Rules".
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, Final

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import BadJson

HISTORICAL_ACTIONS: Final = frozenset({"dont_notify", "coalesce"})
"""Actions of old that mean nothing: they are left out wherever they are met."""

Action = str | JsonObject


class RuleKind(StrEnum):
    """The kinds of rules, in the order in which they are tried."""

    OVERRIDE = "override"
    CONTENT = "content"
    POSTCONTENT = "postcontent"  # MSC4306: default rules only, of those who follow threads
    ROOM = "room"
    SENDER = "sender"
    UNDERRIDE = "underride"

    @property
    def has_conditions(self) -> bool:
        return self in (RuleKind.OVERRIDE, RuleKind.POSTCONTENT, RuleKind.UNDERRIDE)


class PushRule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One rule, a user's own or the server's. Override and underride rules have `conditions`."""

    rule_id: str
    actions: tuple[Action, ...]
    enabled: bool = True
    conditions: tuple[JsonObject, ...] = ()
    pattern: str | None = None
    """Of content rules only."""


class DefaultChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a user changed in one of the server's rules; None: nothing."""

    enabled: bool | None = None
    actions: tuple[Action, ...] | None = None


class UserRules(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that one user set up: own rules, most important first, and changes to default rules by their id."""

    own: dict[RuleKind, tuple[PushRule, ...]] = msgspec.field(default_factory=dict)
    changes: dict[str, DefaultChange] = msgspec.field(default_factory=dict)
    follows_threads: bool = False
    """Whether the user has ever subscribed to a thread: then the rules of kind postcontent are among the default ones.
    Whose clients know no subscriptions would otherwise hear of no thread any more."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What happens for one user when an event arrives."""

    actions: tuple[Action, ...] = ()
    """Of the rule that matched, historical ones left out: what /notifications shows."""
    notify: bool = False
    highlight: bool = False
    """Never without `notify`."""
    sound: str | None = None
    tweaks: Mapping[str, Any] = msgspec.field(default_factory=dict)
    """What a push gateway is told."""


NOTHING: Final = Outcome()
"""The outcome when no rule matches, and always for the sender."""


def outcome_of(actions: Iterable[Action]) -> Outcome:
    """What the actions of a rule amount to. Unknown ones are kept, but do nothing."""
    kept = tuple(
        action for action in actions if not isinstance(action, str) or action not in HISTORICAL_ACTIONS
    )
    if "notify" not in kept:
        return Outcome(actions=kept) if kept else NOTHING
    tweaks: dict[str, Any] = {}
    for action in kept:
        name = action.get("set_tweak") if isinstance(action, dict) else None
        if isinstance(action, dict) and isinstance(name, str):
            # A highlight without a value is true; other tweaks without a value have none to give.
            tweaks[name] = action.get("value", True if name == "highlight" else None)
    sound = tweaks.get("sound")
    return Outcome(
        actions=kept,
        notify=True,
        highlight=tweaks.get("highlight") is True,
        sound=sound if isinstance(sound, str) else None,
        tweaks=tweaks,
    )


def encode_user_rules(rules: UserRules) -> bytes:
    """The stored form. Equal rules have equal bytes, and may share a Ruleset."""
    return msgspec.json.encode(rules, order="deterministic")


def decode_user_rules(stored: bytes | str) -> UserRules:
    """Raises: BadJson for what encode_user_rules did not write."""
    try:
        return msgspec.json.decode(stored, type=UserRules)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BadJson("stored push rules cannot be read") from error
