"""Passwords: how long they must be, and how they are stored and compared.

Hashing takes long and much memory on purpose, so it runs on threads (argon2 lets go of the interpreter),
a few at a time, and the queue for them is bounded.
"""

import asyncio
import unicodedata
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import msgspec
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from ranvier.core.errors import InvalidParam, LimitExceeded, WeakPassword

DEFAULT_MIN_CHARS: Final = 8
MAX_PASSWORD_CHARS: Final = 512
AT_ONCE: Final = 2
"""Hashes computed at the same time: each takes memory and a core."""
MAX_WAITING: Final = 200
"""Who comes when so many wait is told to come again."""


class PasswordCost(msgspec.Struct, frozen=True):
    """How dear one attempt is, in the terms of argon2id."""

    memory_kib: int
    iterations: int


# OWASP Password Storage Cheat Sheet, 2024: at least 19 MiB and two iterations.
DEFAULT_COST: Final = PasswordCost(memory_kib=32_768, iterations=2)


class Passwords:
    """Hashes and verifies with argon2id."""

    def __init__(self, cost: PasswordCost, min_chars: int = DEFAULT_MIN_CHARS) -> None:
        self._hasher = PasswordHasher(time_cost=cost.iterations, memory_cost=cost.memory_kib, parallelism=1)
        self._min_chars = min_chars
        self._free = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0
        self._nobodys = _nobodys_hash(cost)

    def check_new(self, password: str) -> None:
        """Whether somebody may choose this password. Raises: WeakPassword, InvalidParam."""
        if len(password) < self._min_chars:
            raise WeakPassword(f"A password has at least {self._min_chars} characters.")
        if len(password) > MAX_PASSWORD_CHARS:
            raise InvalidParam(f"A password has at most {MAX_PASSWORD_CHARS} characters.")

    async def hash(self, password: str) -> str:
        """What is stored of a password. Raises: LimitExceeded when too many wait."""
        async with self._turn():
            return await asyncio.to_thread(self._hasher.hash, _octets(password))

    async def is_correct(self, stored: str | None, password: str) -> bool:
        """Whether `password` is the one behind `stored`.

        With None (nobody, or no password) it takes as long and says no, so that the time tells nothing.
        Raises: LimitExceeded when too many wait.
        """
        if len(password) > MAX_PASSWORD_CHARS:
            return False
        async with self._turn():
            is_correct = await asyncio.to_thread(self._verify, stored or self._nobodys, _octets(password))
        return is_correct and stored is not None

    async def renew(self, stored: str | None, password: str) -> str | None:
        """A new hash of a password whose stored one was made at another cost than today's; else None.

        Raises: LimitExceeded when too many wait.
        """
        is_outdated = stored is not None and self._hasher.check_needs_rehash(stored)
        return await self.hash(password) if is_outdated else None

    def _verify(self, stored: str, password: bytes) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except VerifyMismatchError:
            return False
        except (InvalidHashError, VerificationError) as error:
            raise ValueError("a stored password hash is not what argon2 makes") from error

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        if self._waiting >= MAX_WAITING:
            raise LimitExceeded("Too many logins at once.", retry_after_ms=2000)
        self._waiting += 1
        try:
            async with self._free:
                yield
        finally:
            self._waiting -= 1


def _nobodys_hash(cost: PasswordCost) -> str:
    """The form of a stored hash, without the work of making one: nothing hashes to it that anybody could guess,
    and to find that out takes as long as with any other.
    """
    salt, digest = "A" * 22, "A" * 43  # 16 and 32 octets, all of them zero
    return f"$argon2id$v=19$m={cost.memory_kib},t={cost.iterations},p=1${salt}${digest}"


def _octets(password: str) -> bytes:
    # The same text has to be the same password whichever keyboard composed its letters.
    return unicodedata.normalize("NFKC", password).encode("utf-8", "surrogatepass")
