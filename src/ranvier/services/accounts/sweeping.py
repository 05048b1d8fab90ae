"""What has expired goes: sessions of user-interactive authentication, login tokens, OpenID tokens, visits of people
who sign in elsewhere, and what devices wrote for each other.
"""

from ranvier.services.accounts.uia import SESSION_LIFETIME_MS
from ranvier.store.database import WriteTxn
from ranvier.store.tables.passing_tokens import delete_expired
from ranvier.store.tables.rendezvous import delete_expired_rendezvous_sessions
from ranvier.store.tables.sso import delete_expired_visits
from ranvier.store.tables.uia import delete_stale_uia_sessions


def sweep(txn: WriteTxn, now_ms: int) -> None:
    """Delete what has expired."""
    delete_stale_uia_sessions(txn, now_ms - SESSION_LIFETIME_MS)
    delete_expired(txn, now_ms)
    delete_expired_visits(txn, now_ms)
    delete_expired_rendezvous_sessions(txn, now_ms)
