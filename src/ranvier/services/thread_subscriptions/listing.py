"""What changed in a user's subscriptions, the newest first. Spec: MSC4308."""

from collections.abc import Sequence
from typing import Final

import msgspec

from ranvier.services.requester import Requester
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables.thread_subscriptions import SubscriptionChange, list_subscription_changes

MAX_CHANGES: Final = 100
"""In one answer."""


class SubscriptionsPage(msgspec.Struct, frozen=True):
    changes: Sequence[SubscriptionChange]
    earlier: int | None  # changes below this position were left out; None: there are none


def read_page(txn: ReadTxn, user_nid: int, after: int, below: int, limit: int) -> SubscriptionsPage:
    """The newest changes between two positions, both left out. Cost: 1 query."""
    limit = max(1, min(limit, MAX_CHANGES))
    found = list_subscription_changes(txn, user_nid, after, below, limit + 1)
    if len(found) <= limit:
        return SubscriptionsPage(found, None)
    return SubscriptionsPage(found[:limit], found[limit - 1].position)


class ThreadSubscriptionList:
    """Pages back through the changes."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def list(
        self, requester: Requester, after: int, below: int | None, limit: int
    ) -> SubscriptionsPage:
        """From `below` (None: from now) back to `after`."""
        return await self._db.read(_read, requester.user_nid, after, below, limit)


def _read(txn: ReadTxn, user_nid: int, after: int, below: int | None, limit: int) -> SubscriptionsPage:
    return read_page(txn, user_nid, after, txn.position + 1 if below is None else below, limit)
