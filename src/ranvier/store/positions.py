"""Which positions are settled on PostgreSQL, where several processes commit out of order.

A reader that follows changes remembers how far it has read. If it reads up to position 7 while the
transaction that took 6 is still open, it never sees 6. So readers stop at a *settled* position: one such that
every transaction that took a position up to it has ended.

**Rules.** A writing transaction is given its transaction id (`pg_current_xact_id()`) before its first
`nextval`, and positions do not outlive the transaction that took them. The sequence has CACHE 1. An
observation is, in this order: L, the sequence's last value; X, a new transaction id of the observer's own.

**Claim.** Once every transaction that is open has an id of at least X, L is settled.

1. Let T be a transaction that took a position p <= L. Numbers of the sequence are handed out in order, so T's
   `nextval` came before the observer read L.
2. T had its id before that `nextval`, the observer got X after reading L, and ids are handed out in ascending
   order. So T's id is less than X.
3. No open transaction has an id below X, so T has ended.
4. A transaction that takes a position after L was read gets one greater than L, so nothing up to L is to
   come.

A snapshot taken after that (as each reading transaction's is) sees all of it.

X has to be an id of the observer's own. `pg_snapshot_xmax` will not do: it is one past the newest *ended*
transaction, so an open one may well have a greater id.

**Which transactions are open** is asked of pg_stat_activity, for this database alone: its ids are those of the
processes themselves, taken away in the same step that lets snapshots see the commit. `pg_snapshot_xmin` would
count every database of the cluster, and somebody else's long transaction would hold up all people here. It is
asked all the same where another role is connected to this database whose transactions we may not see.
"""

import threading
from typing import Final

import msgspec

OBSERVE: Final = b"""
SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM positions;
SELECT pg_current_xact_id()::text::bigint;
SELECT CASE
    WHEN bool_or(usename <> session_user) AND NOT pg_has_role(session_user, 'pg_read_all_stats', 'USAGE')
    THEN 'all ' || pg_snapshot_xmin(pg_current_snapshot())::text
    ELSE 'here ' || COALESCE(string_agg(backend_xid::text, ' ') FILTER (WHERE pid <> pg_backend_pid()), '')
END FROM pg_stat_activity WHERE datname = current_database()
"""
"""Three statements, not one: their order is what the claim rests on, and each has a snapshot of its own."""

MAX_OBSERVATIONS: Final = 64
"""Kept while they are not settled. Further ones replace the newest, which costs latency only."""


class Observation(msgspec.Struct, frozen=True):
    last: int  # the sequence's last value
    xid: int  # an id given out after that
    xmin: int  # below it, no transaction is open after that


def observation_of(last: int, xid: int, open_ones: str) -> Observation:
    """What the three statements of OBSERVE answered."""
    kind, _, ids = open_ones.partition(" ")
    if kind == "all":
        return Observation(last, xid, int(ids))
    return Observation(last, xid, min([xid, *(_whole(int(one), xid) for one in ids.split())]))


def _whole(short: int, near: int) -> int:
    """A transaction id from its lower 32 bits: the one that is nearest to another."""
    behind = (near - short) % 2**32
    return near - (behind if behind < 2**31 else behind - 2**32)


class Settlement:
    """The newest settled position. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: list[Observation] = []
        self.settled = 0

    @property
    def is_waiting(self) -> bool:
        """Whether another observation would help somebody."""
        return bool(self._pending)

    def observe(self, seen: Observation) -> int:
        """Take an observation into account; the newest settled position."""
        with self._lock:
            if len(self._pending) == MAX_OBSERVATIONS:
                self._pending.pop()
            self._pending.append(seen)
            settled = max((past.last for past in self._pending if past.xid <= seen.xmin), default=0)
            self.settled = max(self.settled, settled)
            self._pending = [past for past in self._pending if past.last > self.settled]
            return self.settled
