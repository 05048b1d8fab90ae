"""The rules that everybody has: the server-default rules of spec v1.19, in their order of importance.

Spec: client-server API, push notifications, "Predefined Rules"; for polls MSC3930, under the names that clients use
until polls are in the specification.
"""

from collections.abc import Mapping
from typing import Final

from ranvier.core.canonical_json import JsonObject
from ranvier.core.identifiers import UserID
from ranvier.core.push.rules import Action, PushRule, RuleKind

MASTER: Final = ".m.rule.master"
"""The one default rule that comes before a user's own rules."""

OWN_USER_ID: Final = "[the user's Matrix ID]"
"""Stands, in a default rule's condition, for the id of whoever has the rule."""

_NOTIFY: Final[Action] = "notify"
_HIGHLIGHT: Final[Action] = {"set_tweak": "highlight"}
_SOUND: Final[Action] = {"set_tweak": "sound", "value": "default"}
_RING: Final[Action] = {"set_tweak": "sound", "value": "ring"}


def _match(key: str, pattern: str) -> JsonObject:
    return {"kind": "event_match", "key": key, "pattern": pattern}


def _match_poll(event: str) -> JsonObject:
    return _match("type", f"org.matrix.msc3381.poll.{event}")


_ONE_TO_ONE: Final[JsonObject] = {"kind": "room_member_count", "is": "2"}
_NO_STATE_KEY_TEXT: Final = _match("state_key", "")

_OVERRIDE: Final = (
    PushRule(rule_id=MASTER, actions=(), enabled=False),
    PushRule(
        rule_id=".m.rule.suppress_notices", actions=(), conditions=(_match("content.msgtype", "m.notice"),)
    ),
    PushRule(
        rule_id=".m.rule.invite_for_me",
        actions=(_NOTIFY, _SOUND),
        conditions=(
            _match("type", "m.room.member"),
            _match("content.membership", "invite"),
            _match("state_key", OWN_USER_ID),
        ),
    ),
    PushRule(rule_id=".m.rule.member_event", actions=(), conditions=(_match("type", "m.room.member"),)),
    PushRule(
        rule_id=".m.rule.is_user_mention",
        actions=(_NOTIFY, _SOUND, _HIGHLIGHT),
        conditions=(
            {"kind": "event_property_contains", "key": r"content.m\.mentions.user_ids", "value": OWN_USER_ID},
        ),
    ),
    PushRule(
        rule_id=".m.rule.is_room_mention",
        actions=(_NOTIFY, _HIGHLIGHT),
        conditions=(
            {"kind": "event_property_is", "key": r"content.m\.mentions.room", "value": True},
            {"kind": "sender_notification_permission", "key": "room"},
        ),
    ),
    PushRule(
        rule_id=".m.rule.tombstone",
        actions=(_NOTIFY, _HIGHLIGHT),
        conditions=(_match("type", "m.room.tombstone"), _NO_STATE_KEY_TEXT),
    ),
    PushRule(rule_id=".m.rule.reaction", actions=(), conditions=(_match("type", "m.reaction"),)),
    PushRule(
        rule_id=".m.rule.room.server_acl",
        actions=(),
        conditions=(_match("type", "m.room.server_acl"), _NO_STATE_KEY_TEXT),
    ),
    PushRule(
        rule_id=".org.matrix.msc3930.rule.poll_response", actions=(), conditions=(_match_poll("response"),)
    ),
    PushRule(
        rule_id=".m.rule.suppress_edits",
        actions=(),
        conditions=(
            {"kind": "event_property_is", "key": r"content.m\.relates_to.rel_type", "value": "m.replace"},
        ),
    ),
)

THREAD_SUBSCRIPTION: Final = "io.element.msc4306.thread_subscription"
"""The kind of condition that looks at subscriptions. Spec: MSC4306."""

_POSTCONTENT: Final = (
    PushRule(
        rule_id=".io.element.msc4306.rule.unsubscribed_thread",
        actions=(),
        conditions=({"kind": THREAD_SUBSCRIPTION, "subscribed": False},),
    ),
    PushRule(
        rule_id=".io.element.msc4306.rule.subscribed_thread",
        actions=(_NOTIFY, _SOUND),
        conditions=({"kind": THREAD_SUBSCRIPTION, "subscribed": True},),
    ),
)

_UNDERRIDE: Final = (
    PushRule(rule_id=".m.rule.call", actions=(_NOTIFY, _RING), conditions=(_match("type", "m.call.invite"),)),
    PushRule(
        rule_id=".m.rule.encrypted_room_one_to_one",
        actions=(_NOTIFY, _SOUND),
        conditions=(_ONE_TO_ONE, _match("type", "m.room.encrypted")),
    ),
    PushRule(
        rule_id=".m.rule.room_one_to_one",
        actions=(_NOTIFY, _SOUND),
        conditions=(_ONE_TO_ONE, _match("type", "m.room.message")),
    ),
    PushRule(rule_id=".m.rule.message", actions=(_NOTIFY,), conditions=(_match("type", "m.room.message"),)),
    PushRule(
        rule_id=".m.rule.encrypted", actions=(_NOTIFY,), conditions=(_match("type", "m.room.encrypted"),)
    ),
    *(
        rule
        for event in ("start", "end")
        for rule in (
            PushRule(
                rule_id=f".org.matrix.msc3930.rule.poll_{event}_one_to_one",
                actions=(_NOTIFY, _SOUND),
                conditions=(_ONE_TO_ONE, _match_poll(event)),
            ),
            PushRule(
                rule_id=f".org.matrix.msc3930.rule.poll_{event}",
                actions=(_NOTIFY,),
                conditions=(_match_poll(event),),
            ),
        )
    ),
)

DEFAULT_RULES: Final[Mapping[RuleKind, tuple[PushRule, ...]]] = {
    RuleKind.OVERRIDE: _OVERRIDE,
    RuleKind.CONTENT: (),
    RuleKind.POSTCONTENT: _POSTCONTENT,
    RuleKind.ROOM: (),
    RuleKind.SENDER: (),
    RuleKind.UNDERRIDE: _UNDERRIDE,
}


def conditions_for(rule: PushRule, user_id: UserID) -> list[JsonObject]:
    """The conditions of a default rule as one user sees them."""
    return [
        {key: user_id if value == OWN_USER_ID else value for key, value in condition.items()}
        for condition in rule.conditions
    ]
