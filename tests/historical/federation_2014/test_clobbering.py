"""Which of two PDUs holds a slot: the vectors of 2014, and that the order of arrival does not matter."""

import hashlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranvier.historical.federation_2014.clobbering import MissingPdu, replaces
from ranvier.historical.federation_2014.pdu import OldPdu, parse_pdu

ORIGIN = "example.com"


def state(
    pdu_id: str, prev: str | None = None, depth: int = 0, power: int | None = None, **more: Any
) -> OldPdu:
    kept = {} if prev is None else {"prev_state_id": prev, "prev_state_origin": ORIGIN}
    return parse_pdu(
        {
            "pdu_id": pdu_id,
            "origin": ORIGIN,
            "context": "c",
            "ts": 1,
            "pdu_type": "t",
            "content": {},
            "depth": depth,
            "is_state": True,
            "state_key": "",
            "power_level": power,
            **kept,
            **more,
        }
    )


def decide(new: OldPdu, current: OldPdu, *others: OldPdu) -> bool:
    held = {pdu.name: pdu for pdu in (new, current, *others)}
    return replaces(new, current, held.get)


A = state("A")


def test_the_vectors_of_2014() -> None:
    b, c = state("B", "A", 1), state("C", "A", 1)
    assert hashlib.sha1(b"Cexample.comAexample.com").hexdigest() == "e1f833192d7590fe8050a9c533202e9ad6c69910"
    assert hashlib.sha1(b"Bexample.comAexample.com").hexdigest() == "2643e4f3f7684c7edf3416d3e5f4aa5b557de161"
    assert decide(c, b, A)
    assert not decide(b, c, A)


@pytest.mark.parametrize(
    ("current", "new", "wins"), [(10, 5, False), (10, 15, True), (9, 10, True), (None, 0, True)]
)
def test_the_greater_power_wins(current: int | None, new: int, wins: bool) -> None:
    """As numbers: 9 is less than 10. The hash would say otherwise in half of the cases."""
    for names in ("BC", "CB"):
        held, came = state(names[0], "A", 1, current), state(names[1], "A", 1, new)
        assert decide(came, held, A) is wins
        assert decide(held, came, A) is not wins


def test_the_greatest_power_of_a_branch_counts() -> None:
    strong, weak = state("S", "A", 1, 50), state("W", "S", 2, 0)
    other = state("O", "A", 1, 40)
    assert decide(weak, other, A, strong)
    assert not decide(other, weak, A, strong)


def test_the_longer_branch_wins_at_equal_power() -> None:
    first, second = state("N1", "A", 1, 5), state("N2", "N1", 2, 5)
    for name in "XYZ":
        current = state(name, "A", 1, 5)
        assert decide(second, current, A, first)
        assert not decide(current, second, A, first)


def test_what_follows_the_holder_replaces_it_whatever_its_power() -> None:
    assert decide(state("N", "A", 1, 0), state("A", power=100))
    assert decide(state("N2", "N", 2, 0), state("A", power=100), state("N", "A", 1, 0))


def test_what_the_holder_followed_is_old() -> None:
    assert not decide(state("A", power=100), state("N", "A", 1, 0))
    assert not decide(state("A"), state("N2", "N", 2), state("N", "A", 1))


def test_what_is_not_held_is_asked_for() -> None:
    def lookup(name: tuple[str, str]) -> OldPdu | None:
        raise MissingPdu(name)

    with pytest.raises(MissingPdu) as missing:
        replaces(state("N", "gone", 5), state("C"), lookup)
    assert missing.value.name == (ORIGIN, "gone")


def test_without_a_common_past_whole_branches_are_compared() -> None:
    assert decide(state("N", "gone", 5, 10), state("C", power=5))
    assert not decide(state("N", "gone", 5, 5), state("C", power=10))


@pytest.mark.parametrize("more", [{"state_key": "other"}, {"pdu_type": "other"}, {"context": "other"}])
def test_a_past_in_another_slot_is_none(more: dict[str, Any]) -> None:
    """Else whoever claims a strong one from elsewhere would win."""
    elsewhere = state("E", power=100, **more)
    assert not decide(state("N", "E", 1, 1), state("C", power=5), elsewhere)


def test_a_past_that_runs_in_circles_ends() -> None:
    one, other = state("X", "Y", 3), state("Y", "X", 3)
    assert decide(one, state("C"), other)
    assert not decide(state("C"), one, other)


@st.composite
def histories(draw: st.DrawFn) -> list[OldPdu]:
    """A tree of states, each with the one that it replaced."""
    pdus = [state("p0")]
    for number in range(1, draw(st.integers(2, 8))):
        parent = draw(st.sampled_from(pdus))
        power = draw(st.sampled_from([None, 0, 5, 10]))
        pdus.append(state(f"p{number}", parent.name[1], parent.depth + 1, power))
    return pdus


@settings(max_examples=200, deadline=None)
@given(histories(), st.data())
def test_two_servers_decide_alike(pdus: list[OldPdu], data: st.DataObject) -> None:
    one, other = data.draw(st.permutations(pdus))[:2]
    held = {pdu.name: pdu for pdu in pdus}
    assert replaces(one, other, held.get) is not replaces(other, one, held.get)
