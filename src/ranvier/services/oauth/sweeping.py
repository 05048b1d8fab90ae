"""What has expired goes: codes, browsers that were signed in long ago, clients that nobody uses."""

from typing import Final

from ranvier.store.database import WriteTxn
from ranvier.store.tables.browser_sessions import delete_expired_browsers
from ranvier.store.tables.oauth_clients import delete_unused_oauth_clients
from ranvier.store.tables.oauth_codes import delete_codes
from ranvier.store.tables.oauth_device_codes import delete_device_codes

KEPT_MS: Final = 3_600_000
"""For so long an expired code is known: a second use of it still ends its session."""
UNUSED_CLIENT_MS: Final = 7 * 24 * 3_600_000


def sweep_oauth(txn: WriteTxn, now_ms: int) -> None:
    """Delete what has expired. Clients with a session stay."""
    delete_codes(txn, now_ms - KEPT_MS)
    delete_device_codes(txn, now_ms - KEPT_MS)
    delete_expired_browsers(txn, now_ms)
    delete_unused_oauth_clients(txn, now_ms - UNUSED_CLIENT_MS)
