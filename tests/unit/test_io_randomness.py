"""Randomness: the shapes of tokens; a seed decides everything, the system nothing twice."""

import re

from ranvier.io.randomness import Randomness, seeded_randomness, system_randomness


def _draw(rng: Randomness) -> list[object]:
    return [
        rng.octets(8),
        rng.token(16),
        rng.text(10),
        rng.below(10**9),
        rng.fraction(),
        rng.choice("abcdefgh"),
    ]


def test_a_seed_decides_everything() -> None:
    assert _draw(seeded_randomness("x")) == _draw(seeded_randomness("x"))
    assert _draw(seeded_randomness("x")) != _draw(seeded_randomness("y"))


def test_the_system_never_repeats_itself() -> None:
    assert _draw(system_randomness()) != _draw(system_randomness())


def test_shapes() -> None:
    rng = system_randomness()
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", rng.token())
    assert re.fullmatch(r"[A-Za-z0-9]{18}", rng.text(18))
    assert set(rng.text(200, "01")) == {"0", "1"}
    assert len(rng.octets(32)) == 32
    assert {rng.below(3) for _ in range(200)} == {0, 1, 2}
    assert all(0 <= rng.fraction() < 1 for _ in range(200))
