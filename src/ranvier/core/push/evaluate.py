"""What an event means to each local member of its room, worked out once for all who share a ruleset.

Most members of a room have the default rules, and for most events all of those get the same. Only
conditions on the user's own id can tell them apart, and the event itself names the users for whom these
hold. So nothing here is done once per member with the default rules, however many there are.

Spec: client-server API, push notifications, "Server behaviour".
"""

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec

from ranvier.core.globs import has_word
from ranvier.core.identifiers import UserID
from ranvier.core.push.conditions import Conditions, Match
from ranvier.core.push.event import BODY, PushEvent
from ranvier.core.push.rules import NOTHING, Outcome
from ranvier.core.push.ruleset import DEFAULT_RULESET, Ruleset


class Audience(msgspec.Struct, frozen=True):
    """The local users whom an event may concern: the joined ones, and the one who is invited by it."""

    default_users: AbstractSet[UserID]
    """Those with DEFAULT_RULESET."""
    rulesets: Mapping[UserID, Ruleset] = msgspec.field(default_factory=dict)
    """All others. Users with equal rules should share one Ruleset: it is evaluated once."""
    display_names: Mapping[UserID, str] = msgspec.field(default_factory=dict)
    """In the room, of those whose ruleset `needs_display_name`."""


class Outcomes(msgspec.Struct, frozen=True):
    """`common` for everybody in the audience but those in `others`, each of whom gets something else."""

    common: Outcome
    others: Mapping[UserID, Outcome]

    def of(self, user_id: UserID) -> Outcome:
        return self.others.get(user_id, self.common)


class _Verdict(msgspec.Struct, frozen=True):
    """What a ruleset makes of an event. The first claim that holds for a user wins over `otherwise`."""

    otherwise: Outcome
    claims: list["_Claim"]

    def for_user(self, user_id: UserID, display_name: str | None, body: str | None) -> Outcome:
        for claim in self.claims:
            if claim.holds(user_id, display_name, body):
                return claim.outcome
        return self.otherwise


class _Claim(msgspec.Struct, frozen=True):
    """The outcome of a rule that matches for some users only."""

    outcome: Outcome
    names: frozenset[str] | None
    """Who they are; None: that depends on the display name alone."""
    by_display_name: bool

    def holds(self, user_id: UserID, display_name: str | None, body: str | None) -> bool:
        if self.names is not None and user_id not in self.names:
            return False
        if not self.by_display_name:
            return True
        return bool(display_name) and body is not None and has_word(body, str(display_name).lower())


def evaluate(event: PushEvent, audience: Audience) -> Outcomes:
    """The outcome of an event for everybody in the audience.

    Returns: `others` holds users of the audience only, and only those whose outcome differs from the
    common one. The sender is among them unless nobody is notified.

    Cost: one walk through the rules for each distinct ruleset, one look at each user with rules of their
    own, and nothing for each user with the default rules.
    """
    answers: dict[Conditions, Match] = {}
    default = _judge(DEFAULT_RULESET, event, answers)
    others: dict[UserID, Outcome] = dict(_iter_claimed(default, audience.default_users))
    others.update(_iter_with_own_rules(event, audience, answers))
    # "Homeservers MUST NOT notify the Push Gateway for events that the user has sent themselves."
    sender = event.sender
    if isinstance(sender, str) and (sender in audience.default_users or sender in audience.rulesets):
        others[UserID(sender)] = NOTHING
    common = default.otherwise
    return Outcomes(common, {user: outcome for user, outcome in others.items() if outcome != common})


def _iter_claimed(verdict: _Verdict, users: AbstractSet[UserID]) -> Iterator[tuple[UserID, Outcome]]:
    """The users with the default rules whom the event names, and what comes of it for each."""
    # A later pair replaces an earlier one in the caller's dictionary: so the most important claim comes last.
    for claim in reversed(verdict.claims):
        for name in claim.names or _NOBODY:
            if name in users:
                yield UserID(name), claim.outcome


def _iter_with_own_rules(
    event: PushEvent, audience: Audience, answers: dict[Conditions, Match]
) -> Iterator[tuple[UserID, Outcome]]:
    verdicts: dict[Ruleset, _Verdict] = {}
    body = event.find_text(BODY)
    for user_id, ruleset in audience.rulesets.items():
        verdict = verdicts.get(ruleset)
        if verdict is None:
            verdict = verdicts[ruleset] = _judge(ruleset, event, answers)
        if verdict.claims:
            yield user_id, verdict.for_user(user_id, audience.display_names.get(user_id), body)
        else:
            yield user_id, verdict.otherwise


def _judge(ruleset: Ruleset, event: PushEvent, answers: dict[Conditions, Match]) -> _Verdict:
    """Walk through the rules up to the first that matches for everybody.

    `answers` keeps what was found out for other rulesets: all share the conditions of the default rules.
    """
    claims: list[_Claim] = []
    for rule in ruleset.rules_for(event):
        conditions = rule.conditions
        match = answers.get(conditions)
        if match is None:
            match = answers[conditions] = conditions.match(event)
        if not match:
            continue
        if match is True and not conditions.by_display_name:
            return _Verdict(rule.outcome, claims)
        names = match if isinstance(match, frozenset) else None
        claims.append(_Claim(rule.outcome, names, conditions.by_display_name))
    return _Verdict(NOTHING, claims)


_NOBODY: Final[frozenset[str]] = frozenset()
