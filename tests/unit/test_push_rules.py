"""The default rules as the text gives them, and how clients change their rules."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranvier.core.errors import BadJson, BadJsonValue, InvalidParam, MatrixError, MissingParam, NotFound
from ranvier.core.identifiers import UserID
from ranvier.core.push import edit
from ranvier.core.push.client_form import build_push_rules
from ranvier.core.push.rules import (
    NOTHING,
    PushRule,
    RuleKind,
    UserRules,
    decode_user_rules,
    encode_user_rules,
    outcome_of,
)
from ranvier.core.push.ruleset import DEFAULT_RULESET, compile_ruleset

ALICE = UserID("@alice:x")
OVERRIDE, CONTENT, ROOM = RuleKind.OVERRIDE, RuleKind.CONTENT, RuleKind.ROOM
SOUND = {"set_tweak": "sound", "value": "default"}
HIGHLIGHT = {"set_tweak": "highlight"}

POLLS = "org.matrix.msc3930.rule"

# (kind, id, conditions as key=pattern or key:value pairs, actions), from "Predefined Rules" of v1.19 and MSC3930.
DEFAULTS = [
    ("override", "master", [], []),
    ("override", "suppress_notices", [("event_match", "content.msgtype", "m.notice")], []),
    (
        "override",
        "invite_for_me",
        [
            ("event_match", "type", "m.room.member"),
            ("event_match", "content.membership", "invite"),
            ("event_match", "state_key", ALICE),
        ],
        ["notify", SOUND],
    ),
    ("override", "member_event", [("event_match", "type", "m.room.member")], []),
    (
        "override",
        "is_user_mention",
        [("event_property_contains", r"content.m\.mentions.user_ids", ALICE)],
        ["notify", SOUND, HIGHLIGHT],
    ),
    (
        "override",
        "is_room_mention",
        [
            ("event_property_is", r"content.m\.mentions.room", True),
            ("sender_notification_permission", "room", None),
        ],
        ["notify", HIGHLIGHT],
    ),
    (
        "override",
        "tombstone",
        [("event_match", "type", "m.room.tombstone"), ("event_match", "state_key", "")],
        ["notify", HIGHLIGHT],
    ),
    ("override", "reaction", [("event_match", "type", "m.reaction")], []),
    (
        "override",
        "room.server_acl",
        [("event_match", "type", "m.room.server_acl"), ("event_match", "state_key", "")],
        [],
    ),
    (
        "override",
        f"{POLLS}.poll_response",
        [("event_match", "type", "org.matrix.msc3381.poll.response")],
        [],
    ),
    (
        "override",
        "suppress_edits",
        [("event_property_is", r"content.m\.relates_to.rel_type", "m.replace")],
        [],
    ),
    (
        "underride",
        "call",
        [("event_match", "type", "m.call.invite")],
        ["notify", {"set_tweak": "sound", "value": "ring"}],
    ),
    (
        "underride",
        "encrypted_room_one_to_one",
        [("room_member_count", None, "2"), ("event_match", "type", "m.room.encrypted")],
        ["notify", SOUND],
    ),
    (
        "underride",
        "room_one_to_one",
        [("room_member_count", None, "2"), ("event_match", "type", "m.room.message")],
        ["notify", SOUND],
    ),
    ("underride", "message", [("event_match", "type", "m.room.message")], ["notify"]),
    ("underride", "encrypted", [("event_match", "type", "m.room.encrypted")], ["notify"]),
    (
        "underride",
        f"{POLLS}.poll_start_one_to_one",
        [("room_member_count", None, "2"), ("event_match", "type", "org.matrix.msc3381.poll.start")],
        ["notify", SOUND],
    ),
    (
        "underride",
        f"{POLLS}.poll_start",
        [("event_match", "type", "org.matrix.msc3381.poll.start")],
        ["notify"],
    ),
    (
        "underride",
        f"{POLLS}.poll_end_one_to_one",
        [("room_member_count", None, "2"), ("event_match", "type", "org.matrix.msc3381.poll.end")],
        ["notify", SOUND],
    ),
    ("underride", f"{POLLS}.poll_end", [("event_match", "type", "org.matrix.msc3381.poll.end")], ["notify"]),
]
VALUE_KEYS = {"event_match": "pattern", "room_member_count": "is"}


def condition(kind, key, value):
    form = {"kind": kind}
    if key is not None:
        form["key"] = key
    if value is not None:
        form[VALUE_KEYS.get(kind, "value")] = value
    return form


def test_default_rules_are_those_of_the_text():
    expected = {kind.value: [] for kind in RuleKind if kind is not RuleKind.POSTCONTENT}
    for kind, name, conditions, actions in DEFAULTS:
        expected[kind].append(
            {
                "rule_id": f".{name}" if name.startswith(POLLS) else f".m.rule.{name}",
                "default": True,
                "enabled": name != "master",
                "conditions": [condition(*parts) for parts in conditions],
                "actions": actions,
            }
        )
    assert build_push_rules(UserRules(), ALICE) == {"global": expected}


def rule(rule_id, **more):
    return PushRule(rule_id=rule_id, actions=("notify",), **more)


def order(rules, kind=OVERRIDE):
    return [one["rule_id"] for one in build_push_rules(rules, ALICE)["global"][kind]]


def put(rules, *ids, **place):
    for rule_id in ids:
        rules = edit.put_rule(rules, OVERRIDE, rule(rule_id), **place)
    return rules


def test_own_rules_stand_between_master_and_the_other_defaults():
    ids = order(put(UserRules(), "b", "a"))
    assert ids[:4] == [".m.rule.master", "a", "b", ".m.rule.suppress_notices"]


@pytest.mark.parametrize(
    ("rule_id", "place", "expected"),
    [
        ("new", {}, "new a b c"),
        ("new", {"before": "a"}, "new a b c"),
        ("new", {"before": "c"}, "a b new c"),
        ("new", {"after": "a"}, "a new b c"),
        ("new", {"after": "c"}, "a b c new"),
        ("new", {"before": "b", "after": "c"}, "a new b c"),  # before wins
        ("b", {}, "a b c"),  # an update stays in place
        ("c", {"before": "a"}, "c a b"),
        ("a", {"after": "c"}, "b c a"),
    ],
)
def test_place(rule_id, place, expected):
    rules = put(UserRules(), "c", "b", "a")
    assert order(put(rules, rule_id, **place))[1:5][: len(expected.split())] == expected.split()


@pytest.mark.parametrize("neighbor", ["unknown", ".m.rule.master", ".m.rule.call"])
@pytest.mark.parametrize("side", ["before", "after"])
def test_no_place_beside_unknown_or_default_rules(neighbor, side):
    with pytest.raises(MatrixError) as caught:
        put(UserRules(), "a", **{side: neighbor})
    assert (caught.value.status, caught.value.errcode) == (400, "M_UNKNOWN")


def test_an_update_keeps_a_rule_disabled_and_a_new_rule_is_enabled():
    rules = put(UserRules(), "a")
    assert edit.get_rule(rules, OVERRIDE, "a")[0].enabled
    rules = put(edit.set_enabled(rules, OVERRIDE, "a", enabled=False), "a")
    assert not edit.get_rule(rules, OVERRIDE, "a")[0].enabled


def test_default_rules_change_and_go_back_to_the_shared_ruleset():
    rules = edit.set_enabled(UserRules(), OVERRIDE, ".m.rule.reaction", enabled=False)
    rules = edit.set_actions(rules, OVERRIDE, ".m.rule.reaction", ["notify"])
    changed, is_default = edit.get_rule(rules, OVERRIDE, ".m.rule.reaction")
    assert (changed.enabled, changed.actions, is_default) == (False, ("notify",), True)
    assert compile_ruleset(rules) is not DEFAULT_RULESET
    rules = edit.set_enabled(rules, OVERRIDE, ".m.rule.reaction", enabled=True)
    rules = edit.set_actions(rules, OVERRIDE, ".m.rule.reaction", [])
    assert compile_ruleset(rules) is DEFAULT_RULESET
    assert compile_ruleset(edit.delete_rule(put(UserRules(), "a"), OVERRIDE, "a")) is DEFAULT_RULESET


@pytest.mark.parametrize(
    "change",
    [
        lambda rules: edit.delete_rule(rules, OVERRIDE, "x"),
        lambda rules: edit.delete_rule(rules, OVERRIDE, ".m.rule.master"),
        lambda rules: edit.delete_rule(rules, CONTENT, "a"),
        lambda rules: edit.set_enabled(rules, OVERRIDE, "x", enabled=True),
        lambda rules: edit.set_enabled(rules, RuleKind.UNDERRIDE, ".m.rule.master", enabled=True),
        lambda rules: edit.set_actions(rules, OVERRIDE, "x", []),
        lambda rules: edit.get_rule(rules, OVERRIDE, "x"),
    ],
)
def test_unknown_rules(change):
    with pytest.raises(NotFound):
        change(put(UserRules(), "a"))


@pytest.mark.parametrize("rule_id", ["", ".", ".m.rule.master", ".own", "a/b", "a\\b", "a\0", "x" * 256])
def test_rule_ids_that_nobody_may_give(rule_id):
    with pytest.raises(InvalidParam):
        edit.parse_rule(ROOM, rule_id, {"actions": []})


@pytest.mark.parametrize("kind", ["", "default", "Override", "precontent", "global"])
def test_unknown_kinds(kind):
    with pytest.raises(InvalidParam):
        edit.parse_kind(kind)


@pytest.mark.parametrize(
    ("kind", "body", "error"),
    [
        (ROOM, {}, MissingParam),
        (ROOM, {"actions": None}, BadJsonValue),
        (ROOM, {"actions": "notify"}, BadJsonValue),
        (ROOM, {"actions": ["unknown"]}, BadJsonValue),
        (ROOM, {"actions": [5]}, BadJsonValue),
        (ROOM, {"actions": [{}]}, BadJsonValue),
        (ROOM, {"actions": [{"set_tweak": 5}]}, BadJsonValue),
        (ROOM, {"actions": ["notify"] * 1000}, BadJsonValue),
        (CONTENT, {"actions": []}, MissingParam),
        (CONTENT, {"actions": [], "pattern": 5}, BadJsonValue),
        (CONTENT, {"actions": [], "pattern": "x" * 513}, InvalidParam),
        (CONTENT, {"actions": [], "pattern": "?*" * 17}, InvalidParam),
        (OVERRIDE, {"actions": [], "conditions": {}}, BadJsonValue),
        (OVERRIDE, {"actions": [], "conditions": ["x"]}, BadJsonValue),
        (OVERRIDE, {"actions": [], "conditions": [{}]}, BadJsonValue),
        (OVERRIDE, {"actions": [], "conditions": [{"kind": 5}]}, BadJsonValue),
        (OVERRIDE, {"actions": [], "conditions": [{"kind": "x"}] * 1000}, BadJsonValue),
    ],
)
def test_bodies_that_are_refused(kind, body, error):
    with pytest.raises(error):
        edit.parse_rule(kind, "a", body)


def test_historical_actions_are_kept_as_written_and_do_nothing():
    written = ["dont_notify", "notify", "coalesce", SOUND]
    parsed = edit.parse_rule(ROOM, "!r:x", {"actions": written})
    assert list(parsed.actions) == written
    assert outcome_of(parsed.actions) == outcome_of(("notify", SOUND))
    assert outcome_of(("dont_notify",)) == outcome_of(())


def test_only_the_keys_of_its_kind_are_kept():
    body = {"actions": [], "conditions": [{"kind": "future", "x": 1}], "pattern": "p", "enabled": False}
    assert edit.parse_rule(OVERRIDE, "a", body) == PushRule(
        rule_id="a", actions=(), conditions=({"kind": "future", "x": 1},)
    )
    assert edit.parse_rule(CONTENT, "a", body) == PushRule(rule_id="a", actions=(), pattern="p")
    assert edit.parse_rule(ROOM, "a", body) == PushRule(rule_id="a", actions=())


@pytest.mark.parametrize(("body", "error"), [({}, MissingParam), ({"enabled": 1}, BadJsonValue)])
def test_enabled_is_a_boolean(body, error):
    with pytest.raises(error):
        edit.parse_enabled(body)
    assert edit.parse_enabled({"enabled": False}) is False


def test_rules_are_bounded():
    large = {"kind": "event_match", "key": "x" * 200_000, "pattern": ""}
    rules = UserRules()
    for at in range(5):
        rules = edit.put_rule(rules, OVERRIDE, rule(f"r{at}", conditions=(large,)))
    with pytest.raises(InvalidParam):
        edit.put_rule(rules, OVERRIDE, rule("r5", conditions=(large,)))
    with pytest.raises(BadJsonValue):
        edit.put_rule(UserRules(), OVERRIDE, rule("\ud800"))


@pytest.mark.parametrize(
    ("actions", "notify", "highlight", "sound"),
    [
        ([], False, False, None),
        (["dont_notify", "coalesce"], False, False, None),
        (["notify"], True, False, None),
        (["notify", HIGHLIGHT], True, True, None),
        (["notify", {"set_tweak": "highlight", "value": False}], True, False, None),
        (["notify", {"set_tweak": "highlight", "value": True}, SOUND], True, True, "default"),
        ([HIGHLIGHT, SOUND], False, False, None),
        (["notify", {"set_tweak": "sound", "value": 5}], True, False, None),
        (["notify", {"set_tweak": ["x"]}, {"else": 1}], True, False, None),
    ],
)
def test_outcome_of_actions(actions, notify, highlight, sound):
    outcome = outcome_of(actions)
    assert (outcome.notify, outcome.highlight, outcome.sound) == (notify, highlight, sound)


def test_no_action_is_nothing():
    assert outcome_of(["dont_notify"]) is NOTHING
    assert outcome_of(["notify", HIGHLIGHT, SOUND]).tweaks == {"highlight": True, "sound": "default"}


def test_stored_form_is_read_back():
    rules = put(UserRules(), "b", "a")
    rules = edit.put_rule(rules, CONTENT, rule("k", pattern="cake"))
    rules = edit.set_enabled(rules, RuleKind.UNDERRIDE, ".m.rule.call", enabled=False)
    assert decode_user_rules(encode_user_rules(rules)) == rules
    for broken in (b"", b"[]", b'{"own":{"x":[]}}', b"\xff"):
        with pytest.raises(BadJson):
            decode_user_rules(broken)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["kind", "set_tweak", "key"]), inner)
    ),
    max_leaves=6,
)


@given(
    st.sampled_from(RuleKind),
    st.text(max_size=5),
    st.dictionaries(st.sampled_from(["actions", "conditions", "pattern"]), json_values),
)
@settings(max_examples=200)
def test_hostile_bodies_raise_nothing_but_what_is_declared(kind, rule_id, body):
    with suppress(MissingParam, BadJsonValue, InvalidParam):
        compile_ruleset(edit.put_rule(UserRules(), kind, edit.parse_rule(kind, rule_id, body)))
