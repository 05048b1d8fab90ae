"""How often one caller may ask, by class of request: a token bucket for each (class, caller).

Spec: client-server API, "Rate limiting".
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from ranvier.core.errors import LimitExceeded
from ranvier.http.endpoint import Endpoint, Rate
from ranvier.http.request import Request
from ranvier.services.turns import network_of

MAX_BUCKETS: Final = 100_000
"""How many callers are remembered; the one not seen for longest is forgotten first, and then starts full."""


class Allowance(msgspec.Struct, frozen=True):
    """`burst` requests at once, and `per_second` more as time goes by."""

    per_second: float
    burst: int


DEFAULT_ALLOWANCES: Final[Mapping[Rate, Allowance]] = {
    Rate.READ: Allowance(per_second=50, burst=300),
    Rate.WRITE: Allowance(per_second=10, burst=100),
    Rate.MESSAGE: Allowance(per_second=5, burst=50),
    Rate.JOIN: Allowance(per_second=0.5, burst=20),
    Rate.INVITE: Allowance(per_second=0.3, burst=20),
    Rate.LOGIN: Allowance(per_second=0.1, burst=10),
    # One account takes three requests: one for the flows, one with the wish, one with the proof.
    Rate.REGISTRATION: Allowance(per_second=0.3, burst=30),
    Rate.FEDERATION: Allowance(per_second=100, burst=1000),
    Rate.UPLOAD: Allowance(per_second=1, burst=30),
    Rate.MEDIA: Allowance(per_second=50, burst=1000),
    Rate.PREVIEW: Allowance(per_second=0.5, burst=30),
}


class TokenBuckets:
    """The limiter of a process."""

    def __init__(self, monotonic: Callable[[], float], allowances: Mapping[Rate, Allowance]) -> None:
        """`monotonic`: seconds, never going back."""
        self._monotonic = monotonic
        self._allowances = allowances
        self._buckets: OrderedDict[tuple[Rate, str], tuple[float, float]] = OrderedDict()

    def check(self, endpoint: Endpoint, request: Request) -> None:
        """Take one token. Application services may be exempt, as their registrations say.

        Raises: LimitExceeded with the time after which the next token is there.
        """
        allowance = self._allowances.get(endpoint.rate)
        if allowance is None:
            return
        requester = request.requester_or_none
        if requester is not None and requester.is_unlimited:
            return
        if requester is not None and requester.message_rate is not None and endpoint.rate is Rate.MESSAGE:
            per_second, burst = requester.message_rate
            allowance = Allowance(per_second, max(burst, 1))
        caller = request.origin or (requester.user_id if requester is not None else network_of(request.ip))
        self._take((endpoint.rate, caller), allowance)

    def _take(self, key: tuple[Rate, str], allowance: Allowance) -> None:
        now = self._monotonic()
        tokens, seen = self._buckets.pop(key, (float(allowance.burst), now))
        tokens = min(allowance.burst, tokens + (now - seen) * allowance.per_second)
        self._buckets[key] = (max(tokens - 1, 0), now) if tokens >= 1 else (tokens, now)
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        if tokens < 1:
            retry_after_ms = int((1 - tokens) / allowance.per_second * 1000) + 1
            raise LimitExceeded("Too many requests.", retry_after_ms=retry_after_ms)


class NoLimits:
    """The limiter where `rate_limits.enabled` is false."""

    def check(self, endpoint: Endpoint, request: Request) -> None:
        return
