"""What the ways of telling a user have in common: push gateways, and mail."""

from typing import Protocol

import msgspec

from ranvier.services.push.notices import Notices


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """How it went."""

    pushed_nid: int  # events up to this one are dealt with
    fault: str | None = None  # what went wrong: the rest is to be tried again
    is_rejected: bool = False  # nobody is there any more: the pusher has to go
    gap_ms: int = 0  # for how long not to tell again, as long as nothing is read


class Teller(Protocol):
    """One kind of pusher."""

    def when(self, found: Notices, now_ms: int) -> int | None:
        """When to tell; None: there is nothing to tell."""
        ...

    async def tell(self, found: Notices) -> Told: ...
