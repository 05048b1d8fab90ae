"""Filters: what is refused, what passes, and a compiled filter against a plain reading of the text."""

import json
import re
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranvier.core.errors import BadJsonValue, NotJson
from ranvier.core.filters import (
    EventFields,
    EventFilter,
    FilterableEvent,
    compile_event_filter,
    compile_filter,
    parse_event_filter,
    parse_filter,
)

EXAMPLE = {
    "room": {
        "state": {"types": ["m.room.*"], "not_rooms": ["!726s6s6q:example.com"], "lazy_load_members": True},
        "timeline": {
            "limit": 10,
            "types": ["m.room.message"],
            "not_senders": ["@spam:example.com"],
            "unread_thread_notifications": True,
        },
        "ephemeral": {"types": ["m.receipt", "m.typing"]},
        "rooms": ["!a:x", "!b:x"],
        "not_rooms": ["!b:x"],
        "include_leave": True,
    },
    "presence": {"types": ["m.presence"], "not_senders": ["@alice:example.com"]},
    "event_format": "federation",
    "event_fields": ["type", "content.body", "sender"],
    "some.new.key": {"types": 5},
}


def test_example():
    compiled = compile_filter(parse_filter(json.dumps(EXAMPLE)))
    assert compiled.federation_format
    assert compiled.include_leave
    assert "!a:x" in compiled.rooms
    assert "!b:x" not in compiled.rooms
    assert "!c:x" not in compiled.rooms
    assert compiled.state.lazy_load_members
    assert not compiled.state.include_redundant_members
    assert not compiled.state.types_are_exact
    assert compiled.timeline.limit == 10
    assert compiled.timeline.types_are_exact
    assert compiled.timeline.types.only == {"m.room.message"}
    assert compiled.timeline.unread_thread_notifications
    assert compiled.account_data.is_everything
    assert compiled.room_account_data.is_everything
    assert compiled.state.matches(FilterableEvent("m.room.topic", "@a:x", "!a:x"))
    assert not compiled.state.matches(FilterableEvent("m.room.topic", "@a:x", "!726s6s6q:example.com"))
    assert not compiled.state.matches(FilterableEvent("x.m.room.topic", "@a:x", "!a:x"))
    assert not compiled.timeline.matches(FilterableEvent("m.room.message", "@spam:example.com", "!a:x"))
    assert compiled.ephemeral.matches(FilterableEvent("m.typing", None, "!a:x"))


def test_the_empty_filter_lets_everything_pass():
    compiled = compile_filter(parse_filter("{}"))
    assert compiled.fields is None
    assert not compiled.federation_format
    assert compiled.rooms.is_everything
    for part in (
        compiled.presence,
        compiled.state,
        compiled.timeline,
        compiled.ephemeral,
        compiled.account_data,
    ):
        assert part.is_everything
        assert not part.is_nothing
        assert part.limit is None


@pytest.mark.parametrize("raw", ["", "{", "{]", "nope", b"\xff", "\ud800", '{"a":"\\ud800"}'])
def test_not_json(raw):
    with pytest.raises(NotJson):
        parse_filter(raw)


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        5,
        {"presence": "not_an_object"},
        {"room": []},
        {"room": {"timeline": {"rooms": ["not_a_room_id"]}}},
        {"room": {"rooms": ["#alias:x"]}},
        {"room": {"not_rooms": [5]}},
        {"room": {"timeline": {"senders": ["not_a_user_id"]}}},
        {"room": {"state": {"not_senders": ["@no-server"]}}},
        {"room": {"timeline": {"related_by_senders": ["bob"]}}},
        {"room": {"timeline": {"types": "m.room.message"}}},
        {"room": {"timeline": {"limit": -1}}},
        {"room": {"timeline": {"limit": "10"}}},
        {"room": {"timeline": {"limit": 10**30}}},
        {"room": {"timeline": {"limit": 1.5}}},
        {"room": {"timeline": {"lazy_load_members": 1}}},
        {"event_format": "other"},
        {"event_fields": "type"},
        {"event_fields": ["x" * 70_000]},
    ],
)
def test_wrong_values(wrong):
    with pytest.raises(BadJsonValue):
        parse_filter(json.dumps(wrong))


def test_deep_nesting_is_refused():
    with pytest.raises(BadJsonValue):
        parse_filter('{"x":' + "[" * 60_000)


ids = st.lists(st.sampled_from(["@a:x", "@b:x"]), max_size=2) | st.none()
rooms = st.lists(st.sampled_from(["!a:x", "!b:x"]), max_size=2) | st.none()
types = st.lists(st.sampled_from(["m.a", "m.b", "m.*", "*b", "*", "m.?", "*.*"]), max_size=3) | st.none()
rel_types = st.lists(st.sampled_from(["m.thread", "m.replace"]), max_size=2) | st.none()
filters = st.builds(
    EventFilter,
    types=types,
    not_types=types,
    senders=ids,
    not_senders=ids,
    rooms=rooms,
    not_rooms=rooms,
    contains_url=st.booleans() | st.none(),
    rel_types=rel_types,
    not_rel_types=rel_types,
)
contents = st.sampled_from(
    [
        {},
        {"url": "mxc://a/b"},
        {"url": None},
        {"m.relates_to": {"rel_type": "m.thread"}},
        {"m.relates_to": {"rel_type": ["m.thread"]}},
        {"m.relates_to": "m.thread"},
    ]
)
events = st.builds(
    FilterableEvent,
    type=st.sampled_from(["m.a", "m.b", "x", "", "m.?"]),
    sender=st.sampled_from(["@a:x", "@b:x", None]),
    room_id=st.sampled_from(["!a:x", "!b:x", None]),
    content=contents,
)


def one_of(value, patterns, *, wildcard=False):
    if not wildcard:
        return value in patterns
    return any(re.fullmatch(".*".join(map(re.escape, p.split("*"))), value, re.DOTALL) for p in patterns)


def naive_matches(wanted: EventFilter, event: FilterableEvent) -> bool:
    relation = event.content.get("m.relates_to")
    rel_type = relation["rel_type"] if isinstance(relation, dict) else None
    for value, only, never, wildcard in (
        (event.type, wanted.types, wanted.not_types, True),
        (event.sender, wanted.senders, wanted.not_senders, False),
        (event.room_id, wanted.rooms, wanted.not_rooms, False),
        (rel_type, wanted.rel_types, wanted.not_rel_types, False),
    ):
        if only is not None and not one_of(value, only, wildcard=wildcard):
            return False
        if never is not None and one_of(value, never, wildcard=wildcard):
            return False
    return wanted.contains_url is None or wanted.contains_url == ("url" in event.content)


@given(filters, events)
@settings(max_examples=400)
def test_compiled_is_what_the_text_says(wanted, event):
    selector = compile_event_filter(wanted)
    matches = selector.matches(event)
    assert matches == naive_matches(wanted, event)
    if selector.is_everything:
        assert matches
    if selector.is_nothing:
        assert not matches


def test_an_empty_list_lets_nothing_pass():
    for name in ("types", "senders", "rooms"):
        assert compile_event_filter(parse_event_filter(json.dumps({name: []}))).is_nothing


@pytest.mark.parametrize("wanted", [{"related_by_senders": ["@a:x"]}, {"related_by_rel_types": []}])
def test_relations_have_a_say(wanted):
    selector = compile_event_filter(parse_event_filter(json.dumps(wanted)))
    assert selector.needs_relations
    assert not selector.is_everything


def test_rel_types_have_their_unstable_names():
    selector = compile_event_filter(parse_event_filter('{"org.matrix.msc3874.rel_types":["m.thread"]}'))
    assert selector.matches(FilterableEvent("m", content={"m.relates_to": {"rel_type": "m.thread"}}))
    assert not selector.matches(FilterableEvent("m"))


EVENT = {
    "type": "m.x",
    "sender": "@a:x",
    "content": {"body": "hi", "m.relates_to": {"rel_type": "m.thread", "event_id": "$1"}, "list": [{"a": 1}]},
}


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        (["type"], {"type": "m.x"}),
        (["content"], {"content": EVENT["content"]}),
        (["content.body", "content"], {"content": EVENT["content"]}),
        (["content", "content.body"], {"content": EVENT["content"]}),
        (["content.body", "sender"], {"sender": "@a:x", "content": {"body": "hi"}}),
        ([r"content.m\.relates_to.rel_type"], {"content": {"m.relates_to": {"rel_type": "m.thread"}}}),
        (["content.m.relates_to"], {}),
        (["content.body.deeper"], {}),
        (["content.list.a"], {}),
        (["unknown", "", "."], {}),
        (["a" + ".a" * 20_000], {}),
    ],
)
def test_event_fields(fields, kept):
    assert EventFields(fields).project(EVENT) == kept


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["types", "rooms", "limit"]), inner)
    ),
    max_leaves=6,
)
shapes = st.dictionaries(st.sampled_from(["event_fields", "event_format", "presence", "room"]), json_values)


@given(
    shapes
    | st.fixed_dictionaries({"room": st.dictionaries(st.sampled_from(["timeline", "state"]), json_values)})
)
@settings(max_examples=200)
def test_hostile_json_raises_nothing_but_what_is_declared(value):
    with suppress(BadJsonValue):
        compile_filter(parse_filter(json.dumps(value)))
