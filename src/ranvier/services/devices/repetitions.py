"""Requests to send to devices are remembered only for as long as they may come again."""

from typing import Final

from ranvier.store.database import WriteTxn
from ranvier.store.tables.to_device import delete_expired_requests

REMEMBERED_MS: Final = 3 * 24 * 3_600_000
"""How long a repeated request, or a message that another server sends twice, is known as a repetition."""


def forget_requests(txn: WriteTxn, now_ms: int) -> None:
    delete_expired_requests(txn, now_ms - REMEMBERED_MS)
