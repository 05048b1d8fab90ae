"""Asking for a look at states that were taken without events that could not be checked: see `rechecking`."""

from collections.abc import Iterable
from typing import Final

import msgspec

from ranvier.core.identifiers import RoomID
from ranvier.services.remote.keyring import KeyWanted
from ranvier.store.database import WriteTxn
from ranvier.store.tables import jobs
from ranvier.store.tables.unchecked_states import WantedKey

RECHECK: Final = "recheck-states"
"""The kind of the job. Its key is the room's id."""

FIRST_PAUSE_MS: Final = 10_000
MAX_PAUSE_MS: Final = 3_600_000


class Recheck(msgspec.Struct, frozen=True):
    """What the job is asked to do."""

    room_id: RoomID
    attempt: int  # 1 is the first


def ask_for_recheck(txn: WriteTxn, room_id: RoomID, now_ms: int, attempt: int = 1) -> None:
    """Queue the job: each attempt comes after twice the pause, up to an hour."""
    pause_ms = min(FIRST_PAUSE_MS << min(attempt - 1, 10), MAX_PAUSE_MS)
    jobs.enqueue_job(txn, RECHECK, room_id, msgspec.json.encode(Recheck(room_id, attempt)), now_ms + pause_ms)


def hurry_recheck(txn: WriteTxn, room_id: RoomID, now_ms: int) -> None:
    """Let the job wait no longer, if it does."""
    jobs.hurry_job(txn, RECHECK, room_id, now_ms)


def list_wanted(keys: Iterable[KeyWanted]) -> list[WantedKey]:
    """The keys as the table has them, in an order that is always the same."""
    wanted = [WantedKey(key.server, key.key_id, key.valid_at_ms) for key in keys]
    return sorted(wanted, key=lambda key: (key.server, key.key_id, key.valid_at_ms or 0))
