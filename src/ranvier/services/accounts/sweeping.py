"""What has expired goes: sessions of user-interactive authentication, login tokens, OpenID tokens, visits of people
who sign in elsewhere, and what devices wrote for each other.
"""

from typing import Final

from ranvier.io.clock import Clock
from ranvier.services.accounts.uia import SESSION_LIFETIME_MS
from ranvier.store.database import Database, WriteTxn
from ranvier.store.tables.passing_tokens import delete_expired
from ranvier.store.tables.rendezvous import delete_expired_rendezvous_sessions
from ranvier.store.tables.sso import delete_expired_visits
from ranvier.store.tables.uia import delete_stale_uia_sessions

INTERVAL_S: Final = 3600.0


class Sweeper:
    """Sweeps once an hour. Nothing depends on it: whoever reads checks the time, too."""

    name = "expired tokens"

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def run(self) -> None:
        while True:
            await self._clock.sleep(INTERVAL_S)
            await self._db.write(sweep, self._clock.now_ms())


def sweep(txn: WriteTxn, now_ms: int) -> None:
    """Delete what has expired."""
    delete_stale_uia_sessions(txn, now_ms - SESSION_LIFETIME_MS)
    delete_expired(txn, now_ms)
    delete_expired_visits(txn, now_ms)
    delete_expired_rendezvous_sessions(txn, now_ms)
