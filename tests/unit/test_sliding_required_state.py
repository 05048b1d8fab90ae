"""Which state clients of sliding sync want, and when wanting more means sending more. Spec: MSC4186."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ranvier.services.sliding.required_state import MEMBER, RequiredState, Rule, require

TYPES = st.sampled_from(["m.room.name", "m.room.topic", MEMBER])
KEYS = st.sampled_from(["", "@alice:test", "@bob:test"])
PATTERNS = st.frozensets(st.tuples(st.none() | TYPES, st.none() | KEYS), max_size=3)
RULES = st.builds(Rule, PATTERNS, PATTERNS, st.booleans())
STATES = st.builds(RequiredState, st.frozensets(RULES, max_size=3))


@pytest.mark.parametrize(
    ("wanted", "slot", "matches"),
    [
        (require([]), ("m.room.name", ""), False),
        (require([("m.room.name", "")]), ("m.room.name", ""), True),
        (require([("m.room.name", "")]), ("m.room.name", "x"), False),
        (require([("m.room.name", None)]), ("m.room.name", "x"), True),
        (require([(None, "x")]), ("anything", "x"), True),
        (require([(None, None)]), (MEMBER, "@alice:test"), True),
        (require([(None, None)], exclude=[(MEMBER, None)]), (MEMBER, "@alice:test"), False),
        (require([(None, None)], exclude=[(MEMBER, None)]), ("m.room.name", ""), True),
        # Members in general come lazily, but for those who are named.
        (require([(None, None)], lazy=True), (MEMBER, "@alice:test"), False),
        (require([(None, None), (MEMBER, "@alice:test")], lazy=True), (MEMBER, "@alice:test"), True),
        (require([(None, None)], lazy=True), ("m.room.name", ""), True),
    ],
)
def test_what_a_rule_matches(wanted: RequiredState, slot: tuple[str, str], matches: bool) -> None:
    assert wanted.matches(*slot) is matches


def test_all_members_make_laziness_pointless() -> None:
    lazy, everybody = require([], lazy=True), require([(MEMBER, None)])
    assert lazy.is_lazy
    assert not (lazy | everybody).is_lazy
    assert (lazy | everybody).wants_all_members
    assert require([(MEMBER, "@alice:test"), ("m.room.name", "")]).named_members() == {
        (MEMBER, "@alice:test")
    }


@given(STATES, STATES, TYPES, KEYS)
def test_a_union_wants_what_either_wants(
    one: RequiredState, other: RequiredState, kind: str, key: str
) -> None:
    union = one | other
    assert union.matches(kind, key) == (one.matches(kind, key) or other.matches(kind, key))
    assert union.covers(one)
    assert union.covers(other)


@given(STATES, STATES, TYPES, KEYS)
@example(
    require([(None, None)], lazy=True), require([(None, "@alice:test")], lazy=True), MEMBER, "@alice:test"
)
def test_what_covers_wants_no_less(one: RequiredState, other: RequiredState, kind: str, key: str) -> None:
    if one.covers(other) and other.matches(kind, key):
        assert one.matches(kind, key)
