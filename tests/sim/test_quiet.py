"""A few seeds of the world in which nobody says anything for others to hear what they missed; `make sim ARGS=--quiet`
tries more.
"""

import pytest

from .quiet import make_quiet_plan, simulate_quiet

CASES: dict[str, tuple[int, int]] = {
    "two servers, two rooms": (12, 40),
    "three servers": (24, 16),
    "three servers, a join beside a message": (5, 3),
    "four servers": (8, 3),
}
"""What it is about: the seed and its steps."""


@pytest.mark.parametrize("name", CASES)
def test_everybody_hears_everything_by_itself(name: str) -> None:
    seed, steps = CASES[name]
    result = simulate_quiet(make_quiet_plan(seed, steps=steps))
    assert not result.complaints, "\n".join(result.complaints)
    assert result.steps > 100
