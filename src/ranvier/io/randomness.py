"""Randomness enters here and nowhere else: from the operating system, or from a seed in simulations."""

import base64
import random
from collections.abc import Sequence
from typing import Final, TypeVar

T = TypeVar("T")

_ALPHANUMERIC: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


class Randomness:
    """A source of random values. Make one with `system_randomness` or `seeded_randomness`."""

    def __init__(self, source: random.Random) -> None:
        self._source = source

    def octets(self, count: int) -> bytes:
        """`count` random bytes, e.g. the 32 of a signing key's seed."""
        return self._source.randbytes(count)

    def token(self, byte_count: int = 32) -> str:
        """Unpadded URL-safe base64 of `byte_count` random bytes: access tokens, session ids and the like."""
        return base64.urlsafe_b64encode(self._source.randbytes(byte_count)).rstrip(b"=").decode("ascii")

    def text(self, length: int, alphabet: str = _ALPHANUMERIC) -> str:
        """`length` characters of `alphabet`: room ids, device ids, codes that a person types."""
        return "".join(self._source.choices(alphabet, k=length))

    def below(self, limit: int) -> int:
        """A whole number from 0 to `limit` - 1."""
        return self._source.randrange(limit)

    def fraction(self) -> float:
        """From 0 (included) to 1 (excluded): jitter, sampling, weights."""
        return self._source.random()

    def choice(self, items: Sequence[T]) -> T:
        """One of `items`. Raises: IndexError when there are none."""
        return self._source.choice(items)


def system_randomness() -> Randomness:
    """Unpredictable, from the operating system: the only source that may make secrets."""
    return Randomness(random.SystemRandom())


def seeded_randomness(seed: int | str) -> Randomness:
    """The same values for the same seed. For tests and simulations: anybody can predict them."""
    return Randomness(random.Random(seed))  # noqa: S311
