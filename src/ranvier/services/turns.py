"""Who may do a thing at the same time: so many of each, so that nobody takes what all share.

What one client makes this server ask of others is bounded by client. Whoever asks without a token or a signature is an
address, and IPv6 addresses of one network are one client: a network is what one person has.
"""

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Final, Generic, TypeVar

import msgspec

from ranvier.core.errors import LimitExceeded

K = TypeVar("K", bound=Hashable)

ASKER: Final[ContextVar[str]] = ContextVar("asker", default="")
"""For whom the request is that is being answered: a user, a server, or a network. Empty: for nobody but ourselves."""

BUSY_MS: Final = 10_000
_IPV6_NETWORK_BITS: Final = 64


class Turns(Generic[K]):
    """At most `each` at a time of one key; the others wait, `waiting` at most (None: all of them)."""

    def __init__(self, each: int, waiting: int | None = None) -> None:
        self._each = each
        self._most = None if waiting is None else each + waiting
        self._queues: dict[K, _Queue] = {}

    @asynccontextmanager
    async def take(self, key: K) -> AsyncIterator[None]:
        """Wait for a turn, and have it for the length of the block. Raises: LimitExceeded: too many wait already."""
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = _Queue(asyncio.Semaphore(self._each))
        if self._most is not None and queue.count >= self._most:
            raise LimitExceeded("Too many requests wait for other servers.", retry_after_ms=BUSY_MS)
        queue.count += 1
        try:
            async with queue.slots:
                yield
        finally:
            queue.count -= 1
            if not queue.count:
                del self._queues[key]


class _Queue(msgspec.Struct):
    slots: asyncio.Semaphore
    count: int = 0  # of those who have a turn or wait for one


def network_of(ip: str) -> str:
    """What an address counts as: itself, or the /64 that it is of."""
    if ":" not in ip:
        return ip
    try:
        address = ipaddress.IPv6Address(ip)
    except ValueError:
        return ip
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address), _IPV6_NETWORK_BITS), strict=False))
