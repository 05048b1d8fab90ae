"""Each kind of condition, by the examples and the rules of the text."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranvier.core.push.conditions import compile_condition, compile_conditions, compile_content_pattern
from ranvier.core.push.event import PushEvent, RoomContext, parse_notification_levels

EVENT = {
    "type": "m.room.topic",
    "sender": "@example:example.org",
    "room_id": "!r:x",
    "state_key": "",
    "origin_server_ts": 5,
    "content": {
        "topic": "Lunch plans",
        "m.federate": True,
        "one": 1,
        "null": None,
        "float": 1.0,
        "huge": 2**53,
        "list": ["#myroom:example.com", 1, None, {"a": 1}, [2]],
        "nested": {"back\\slash": "x"},
        "number": 5,
    },
}
ROOM = RoomContext(member_count=10, sender_power=40, notification_levels={"low": 40, "high": 41})


def holds(condition, event=EVENT, room=ROOM):
    return compile_condition(condition)(PushEvent(event, room))


def match(key, pattern):
    return {"kind": "event_match", "key": key, "pattern": pattern}


@pytest.mark.parametrize(
    ("key", "pattern", "expected"),
    [
        ("content.topic", "lunc?*", True),
        ("content.topic", "LUNCH PLANS", True),
        ("content.topic", "lunch", False),  # the entire value
        ("content.topic", "plans", False),
        ("content.topic", "*PLANS", True),
        ("state_key", "", True),
        ("state_key", "*", True),
        ("content.absent", "*", False),
        ("content.null", "*", False),
        ("content.one", "1", False),  # not a string
        ("content", "*", False),
        (r"content.nested.back\\slash", "x", True),
        ("content.topic.deeper", "*", False),
    ],
)
def test_event_match(key, pattern, expected):
    assert holds(match(key, pattern)) is expected


@pytest.mark.parametrize(("topic", "expected"), [("LUNCH", True), (" lunch", False), ("lunc", False)])
def test_event_match_examples(topic, expected):
    assert holds(match("content.topic", "lunc?*"), {"content": {"topic": topic}}) is expected


@pytest.mark.parametrize(
    ("pattern", "body", "expected"),
    [
        ("ex*ple", "An example event.", True),
        ("ex*ple", "exple", True),
        ("ex*ple", "An exciting triple-whammy", True),
        ("ex*ple", "An exciting tripled whammy", False),
        ("ex*ple", "text triple", False),
        ("cake", "CAKE!", True),
        ("cake", "cakes", False),
        ("cake*lie", "the cake is a lie", True),
        ("foo?ar", "a foobar b", True),
        ("foo?ar", "a foobarx b", False),
        ("É", "caf\N{LATIN SMALL LETTER E WITH ACUTE}", True),
    ],
)
def test_content_body_is_matched_by_words(pattern, body, expected):
    event = {"content": {"body": body}}
    assert holds(match("content.body", pattern), event) is expected
    assert compile_content_pattern(pattern)(PushEvent(event, ROOM)) is expected


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        (r"content.m\.federate", True, True),
        (r"content.m\.federate", "true", False),
        (r"content.m\.federate", 1, False),
        ("content.one", True, False),
        ("content.one", 1, True),
        ("content.float", 1, False),
        ("content.null", None, True),
        ("content.absent", None, False),
        ("content.huge", 2**53, False),  # beyond what a condition may ask for
        ("content.list", None, False),
        ("content.topic", "lunch plans", False),  # exactly
        ("content.topic", "Lunch plans", True),
        ("content.topic", ["Lunch plans"], False),
    ],
)
def test_event_property_is(key, value, expected):
    assert holds({"kind": "event_property_is", "key": key, "value": value}) is expected


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("content.list", "#myroom:example.com", True),
        ("content.list", ":example.com", False),
        ("content.list", 1, True),
        ("content.list", True, False),
        ("content.list", None, True),
        ("content.list", {"a": 1}, False),
        ("content.list", [2], False),
        ("content.topic", "Lunch plans", False),  # not an array
        ("content.absent", None, False),
    ],
)
def test_event_property_contains(key, value, expected):
    assert holds({"kind": "event_property_contains", "key": key, "value": value}) is expected


@pytest.mark.parametrize(
    ("comparison", "expected"),
    [
        ("10", True),
        ("==10", True),
        ("9", False),
        ("<10", False),
        ("<=10", True),
        (">9", True),
        (">=11", False),
    ]
    + [(wrong, False) for wrong in ("", "=10", "> 9", "!=9", "٣", ">-1", "1.0", "9" * 5000, 10, None)],
)
def test_room_member_count(comparison, expected):
    assert holds({"kind": "room_member_count", "is": comparison}) is expected


@pytest.mark.parametrize(("key", "expected"), [("low", True), ("high", False), ("room", False), (5, False)])
def test_sender_notification_permission(key, expected):
    assert holds({"kind": "sender_notification_permission", "key": key}) is expected


def test_an_unlisted_notification_needs_50():
    for power, expected in ((49, False), (50, True), (float("inf"), True)):
        room = RoomContext(member_count=2, sender_power=power)
        assert holds({"kind": "sender_notification_permission", "key": "room"}, room=room) is expected


@pytest.mark.parametrize(
    ("power_levels", "levels"),
    [
        (None, {}),
        ({}, {}),
        ({"notifications": []}, {}),
        (
            {"notifications": {"room": 20, "a": "30", "b": True, "c": 1.5, "d": None, "e": "x", "f": [1]}},
            {"room": 20, "a": 30},
        ),
    ],
)
def test_notification_levels(power_levels, levels):
    assert parse_notification_levels(power_levels) == levels


@pytest.mark.parametrize(
    "condition",
    [
        {"kind": "unknown"},
        {"kind": "contains_display_name"},  # not the same for everybody: compile_conditions knows it
        {"kind": ["event_match"]},
        {},
        None,
        {"kind": "event_match", "key": "type"},
        {"kind": "event_match", "pattern": "*"},
        {"kind": "event_match", "key": "type", "pattern": "*" * 513},
        {"kind": "event_property_is", "key": "content.null"},
        {"kind": "event_property_contains", "key": "content.list"},
        {"kind": "sender_notification_permission"},
    ],
)
def test_unknown_or_broken_conditions_never_match(condition):
    assert holds(condition) is False
    assert compile_conditions([condition, {"kind": "room_member_count", "is": "10"}]).match(
        PushEvent(EVENT, ROOM)
    ) is (condition == {"kind": "contains_display_name"})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["body", "type", "content", "m.mentions"]), inner)
    ),
    max_leaves=6,
)
conditions = st.fixed_dictionaries(
    {},
    optional={
        "kind": st.sampled_from(
            ["event_match", "event_property_is", "event_property_contains", "room_member_count", "x"]
        )
        | json_values,
        "key": st.sampled_from(["content.body", "type", r"content.m\.mentions", "content"]) | json_values,
        "pattern": json_values,
        "value": json_values,
        "is": json_values,
    },
)


@given(conditions, st.dictionaries(st.sampled_from(["content", "type", "room_id", "sender"]), json_values))
@settings(max_examples=200)
def test_never_raises(condition, event):
    assert holds(condition, event) in (True, False)
