"""Shared evaluation against one that walks through each user's rules, as the text describes it."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranvier.core.globs import has_word
from ranvier.core.identifiers import UserID
from ranvier.core.push import edit
from ranvier.core.push.client_form import build_push_rules
from ranvier.core.push.conditions import compile_condition, compile_content_pattern
from ranvier.core.push.evaluate import Audience, evaluate
from ranvier.core.push.event import PushEvent, RoomContext
from ranvier.core.push.rules import NOTHING, PushRule, RuleKind, UserRules, outcome_of
from ranvier.core.push.ruleset import compile_ruleset

ALICE, BOB, CAROL, SENDER = (UserID(f"@{name}:x") for name in ("alice", "bob", "carol", "sender"))
USERS = (ALICE, BOB, CAROL, SENDER)
NAMES = {ALICE: "Alice A.", BOB: "", SENDER: "Sender"}  # carol has none
SOUND = {"set_tweak": "sound", "value": "default"}
HIGHLIGHT = {"set_tweak": "highlight"}
LARGE = RoomContext(member_count=50, sender_power=0)


def naive_outcome(rules, user_id, event, room):
    """Rule by rule, kind by kind, from the very form that a client downloads."""
    if event.get("sender") == user_id:
        return NOTHING
    prepared = PushEvent(event, room)

    def holds(condition):
        if condition["kind"] == "contains_display_name":
            body = prepared.find_text(("content", "body"))
            name = NAMES.get(user_id)
            return bool(name) and body is not None and has_word(body, name.lower())
        return compile_condition(condition)(prepared)

    for kind, listed in build_push_rules(rules, user_id)["global"].items():
        for rule in listed:
            matches = {
                "override": lambda rule: all(map(holds, rule["conditions"])),
                "underride": lambda rule: all(map(holds, rule["conditions"])),
                "content": lambda rule: compile_content_pattern(rule["pattern"])(prepared),
                "room": lambda rule: event.get("room_id") == rule["rule_id"],
                "sender": lambda rule: event.get("sender") == rule["rule_id"],
            }[kind]
            if rule["enabled"] and matches(rule):
                return outcome_of(rule["actions"])
    return NOTHING


def message(body="hi", **content):
    return {
        "type": "m.room.message",
        "sender": SENDER,
        "room_id": "!r:x",
        "event_id": "$1",
        "content": {"msgtype": "m.text", "body": body, **content},
    }


def state(type_, state_key="", **content):
    return {"type": type_, "sender": SENDER, "room_id": "!r:x", "state_key": state_key, "content": content}


def mentions(**value):
    return {"m.mentions": value}


TWO = RoomContext(member_count=2, sender_power=0)
MODERATED = RoomContext(member_count=50, sender_power=50)


# (event, room, outcome of everybody as (notify, highlight, sound), those of alice if other)
@pytest.mark.parametrize(
    ("event", "room", "common", "alice"),
    [
        (message(), LARGE, (True, False, None), None),
        (message(), TWO, (True, False, "default"), None),
        (message(msgtype="m.notice"), TWO, (False, False, None), None),
        (
            message(**mentions(user_ids=[ALICE, "@nobody:x", 5])),
            LARGE,
            (True, False, None),
            (True, True, "default"),
        ),
        (message(**mentions(user_ids=ALICE)), LARGE, (True, False, None), None),
        (message(**mentions(user_ids=["alice"])), LARGE, (True, False, None), None),
        (message(**mentions(room=True)), LARGE, (True, False, None), None),
        (message(**mentions(room=True)), MODERATED, (True, True, None), None),
        (message(**mentions(room="true")), MODERATED, (True, False, None), None),
        (
            message(**mentions(room=True, user_ids=[ALICE])),
            MODERATED,
            (True, True, None),
            (True, True, "default"),
        ),
        (
            message("alice @room @alice:x"),
            MODERATED,
            (True, False, None),
            None,
        ),  # no mentions by body since v1.17
        (message(**{"m.relates_to": {"rel_type": "m.replace"}}), LARGE, (False, False, None), None),
        (
            message(**{"m.relates_to": {"rel_type": "m.replace"}}, **mentions(user_ids=[ALICE])),
            LARGE,
            (False, False, None),
            (True, True, "default"),
        ),
        (message(msgtype="m.notice", **mentions(user_ids=[ALICE])), LARGE, (False, False, None), None),
        (
            state("m.room.member", ALICE, membership="invite"),
            LARGE,
            (False, False, None),
            (True, False, "default"),
        ),
        (state("m.room.member", ALICE, membership="join"), LARGE, (False, False, None), None),
        (state("m.room.tombstone"), LARGE, (True, True, None), None),
        (state("m.room.tombstone", "x"), LARGE, (False, False, None), None),
        (state("m.room.server_acl"), LARGE, (False, False, None), None),
        (state("m.room.topic", topic="x"), LARGE, (False, False, None), None),
        ({**message(), "type": "m.reaction"}, LARGE, (False, False, None), None),
        ({**message(), "type": "m.call.invite"}, LARGE, (True, False, "ring"), None),
        ({**message(), "type": "m.room.encrypted", "content": {}}, LARGE, (True, False, None), None),
        ({**message(), "type": "m.room.encrypted", "content": {}}, TWO, (True, False, "default"), None),
        ({}, LARGE, (False, False, None), None),
    ],
)
def test_default_rules(event, room, common, alice):
    outcomes = evaluate(PushEvent(event, room), Audience(frozenset(USERS)))
    assert (outcomes.common.notify, outcomes.common.highlight, outcomes.common.sound) == common
    other = outcomes.of(ALICE)
    assert (other.notify, other.highlight, other.sound) == (alice or common)
    assert outcomes.of(BOB) is outcomes.common
    if event:
        assert outcomes.of(SENDER) == NOTHING
    assert set(outcomes.others) <= ({ALICE} if alice else set()) | ({SENDER} if common[0] else set())


def test_those_outside_the_audience_are_not_reported():
    event = message(**mentions(user_ids=[ALICE, BOB]))
    assert set(evaluate(PushEvent(event, LARGE), Audience(frozenset({BOB, CAROL}))).others) == {BOB}


def own(*rules):
    built = UserRules()
    for kind, rule in rules:
        built = edit.put_rule(built, kind, rule)
    return built


def one(rules, event, room=LARGE, user_id=ALICE):
    ruleset = compile_ruleset(rules)
    audience = Audience(frozenset({BOB}), {user_id: ruleset}, NAMES)
    outcome = evaluate(PushEvent(event, room), audience).of(user_id)
    assert outcome == naive_outcome(rules, user_id, event, room)
    return outcome


def test_order_of_kinds():
    """Override before content before room before sender before underride, own ones before default ones."""
    steps = [
        (
            RuleKind.UNDERRIDE,
            PushRule(rule_id="u", actions=("notify", {"set_tweak": "sound", "value": "underride"})),
        ),
        (
            RuleKind.SENDER,
            PushRule(rule_id=SENDER, actions=("notify", {"set_tweak": "sound", "value": "sender"})),
        ),
        (
            RuleKind.ROOM,
            PushRule(rule_id="!r:x", actions=("notify", {"set_tweak": "sound", "value": "room"})),
        ),
        (
            RuleKind.CONTENT,
            PushRule(
                rule_id="c", actions=("notify", {"set_tweak": "sound", "value": "content"}), pattern="hi"
            ),
        ),
        (
            RuleKind.OVERRIDE,
            PushRule(rule_id="o", actions=("notify", {"set_tweak": "sound", "value": "override"})),
        ),
    ]
    for count in range(1, len(steps) + 1):
        kind = steps[count - 1][0]
        assert one(own(*steps[:count]), message()).sound == kind.value
    master = edit.set_enabled(own(*steps), RuleKind.OVERRIDE, ".m.rule.master", enabled=True)
    assert one(master, message()) == NOTHING


@pytest.mark.parametrize("room_id", ["!r:x", "!R:x"])
def test_a_muted_room_by_override(room_id):
    """What clients do to mute a room: event_match, which ignores case."""
    condition = {"kind": "event_match", "key": "room_id", "pattern": room_id}
    muted = own((RuleKind.OVERRIDE, PushRule(rule_id="m", actions=(), conditions=(condition,))))
    assert not one(muted, message()).notify
    assert one(muted, {**message(), "room_id": "!other:x"}).notify


def test_room_and_sender_rules_are_exact():
    rules = own(
        (RuleKind.ROOM, PushRule(rule_id="!R:x", actions=())),
        (RuleKind.SENDER, PushRule(rule_id="@Sender:x", actions=())),
    )
    assert one(rules, message()).notify


def test_display_name():
    rules = own(
        (
            RuleKind.OVERRIDE,
            PushRule(
                rule_id="n", actions=("notify", HIGHLIGHT), conditions=({"kind": "contains_display_name"},)
            ),
        )
    )
    assert compile_ruleset(rules).needs_display_name
    assert one(rules, message("hello, alice a.!")).highlight
    assert not one(rules, message("hello, malice a.!")).highlight
    assert not one(rules, message("hello"), user_id=BOB).highlight  # an empty name matches nothing
    assert not one(rules, message("hello"), user_id=CAROL).highlight


conditions = st.sampled_from(
    [
        {"kind": "event_match", "key": "room_id", "pattern": "!R:x"},
        {"kind": "event_match", "key": "room_id", "pattern": "!other:x"},
        {"kind": "event_match", "key": "room_id", "pattern": "*"},
        {"kind": "event_match", "key": "content.body", "pattern": "ali*"},
        {"kind": "event_match", "key": "type", "pattern": "m.room.*"},
        {"kind": "event_property_contains", "key": r"content.m\.mentions.user_ids", "value": str(BOB)},
        {"kind": "contains_display_name"},
        {"kind": "room_member_count", "is": ">2"},
        {"kind": "unknown"},
    ]
)
actions = st.sampled_from([(), ("notify",), ("notify", SOUND), ("notify", HIGHLIGHT)])
own_rules = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from([RuleKind.OVERRIDE, RuleKind.UNDERRIDE]),
            st.builds(
                PushRule,
                rule_id=st.sampled_from("abc"),
                actions=actions,
                conditions=st.lists(conditions, max_size=2).map(tuple),
            ),
        ),
        st.tuples(
            st.just(RuleKind.CONTENT),
            st.builds(
                PushRule,
                rule_id=st.sampled_from("ab"),
                actions=actions,
                pattern=st.sampled_from(["hello", "a*", "x"]),
            ),
        ),
        st.tuples(
            st.just(RuleKind.ROOM),
            st.builds(PushRule, rule_id=st.sampled_from(["!r:x", "!R:x", "!other:x"]), actions=actions),
        ),
        st.tuples(
            st.just(RuleKind.SENDER),
            st.builds(PushRule, rule_id=st.sampled_from([SENDER, ALICE]), actions=actions),
        ),
    ),
    max_size=5,
)
changes = st.lists(
    st.tuples(
        st.sampled_from(["master", "is_user_mention", "is_room_mention", "member_event", "suppress_notices"]),
        st.booleans() | actions,
    ),
    max_size=2,
)
events = st.builds(
    lambda type_, sender, room_id, state_key, content: {
        "type": type_,
        "sender": sender,
        "room_id": room_id,
        "content": content,
        **({} if state_key is None else {"state_key": state_key}),
    },
    st.sampled_from(
        ["m.room.message", "m.room.member", "m.room.tombstone", "m.reaction", "m.room.encrypted"]
    ),
    st.sampled_from([SENDER, ALICE, "@remote:y"]),
    st.sampled_from(["!r:x", "!other:x"]),
    st.sampled_from([None, "", *USERS]),
    st.fixed_dictionaries(
        {},
        optional={
            "body": st.sampled_from(["hello alice a. there", "x", "", 5]),
            "msgtype": st.sampled_from(["m.text", "m.notice"]),
            "membership": st.sampled_from(["invite", "join"]),
            "m.mentions": st.fixed_dictionaries(
                {},
                optional={
                    "room": st.booleans(),
                    "user_ids": st.lists(st.sampled_from([*USERS, "@remote:y", 5, None]), max_size=3),
                },
            ),
            "m.relates_to": st.just({"rel_type": "m.replace"}),
        },
    ),
)


def build(rules, changed):
    built = own(*rules)
    for name, change in changed:
        if isinstance(change, bool):
            built = edit.set_enabled(built, RuleKind.OVERRIDE, f".m.rule.{name}", enabled=change)
        else:
            built = edit.set_actions(built, RuleKind.OVERRIDE, f".m.rule.{name}", change)
    return built


rules_by_user = st.dictionaries(st.sampled_from(USERS), st.builds(build, own_rules, changes))


@given(events, rules_by_user, st.sampled_from([TWO, LARGE, MODERATED]))
@settings(max_examples=300, deadline=None)
def test_shared_evaluation_is_what_each_users_rules_say(event, rules_of, room):
    rulesets = {user: compile_ruleset(rules) for user, rules in rules_of.items()}
    audience = Audience(frozenset(USERS) - set(rulesets), rulesets, NAMES)
    outcomes = evaluate(PushEvent(event, room), audience)
    for user in USERS:
        assert outcomes.of(user) == naive_outcome(rules_of.get(user, UserRules()), user, event, room), user
    assert all(outcome != outcomes.common for outcome in outcomes.others.values())
    assert set(outcomes.others) <= set(USERS)


def test_a_thousand_default_members_cost_no_more_than_one():
    audience = Audience(frozenset(UserID(f"@u{at}:x") for at in range(1000)))
    event = message("hello " * 20, **mentions(user_ids=["@u5:x"]))

    def best_of(count):
        def once():
            start = time.perf_counter()
            assert len(evaluate(PushEvent(event, LARGE), audience).others) == 1
            return time.perf_counter() - start

        return min(once() for _ in range(count))

    assert best_of(20) < 0.001
