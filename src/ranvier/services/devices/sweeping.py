"""What nobody waits for goes: messages to devices that are gone, and which requests to send some were made."""

from typing import Final

from ranvier.store.database import WriteTxn
from ranvier.store.tables.devices import sweep_deleted_devices
from ranvier.store.tables.to_device import delete_expired_requests

REMEMBERED_MS: Final = 3 * 24 * 3_600_000
"""How long a repeated request, or a message that another server sends twice, is known as a repetition."""


def sweep_devices(txn: WriteTxn, now_ms: int) -> bool:
    """Delete a part. True: there may be more, for of one device there may be a million messages."""
    delete_expired_requests(txn, now_ms - REMEMBERED_MS)
    return sweep_deleted_devices(txn)
