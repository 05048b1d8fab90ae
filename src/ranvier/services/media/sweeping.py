"""What goes by itself: copies that nobody looks at or that are too many, reservations and previews that expired, and
contents that nothing refers to.
"""

import asyncio
import logging
from typing import Final

from ranvier.io.blobs import BlobID, DiskBlobStore
from ranvier.io.clock import Clock
from ranvier.services.media.deleting import delete_copies
from ranvier.services.media.limits import MediaLimits
from ranvier.services.media.storing import HOLD_S
from ranvier.store.database import Database, StoreFault, WriteTxn
from ranvier.store.tables.media import (
    Medium,
    delete_expired_reservations,
    delete_media,
    list_unused_copies,
    sum_copies,
)
from ranvier.store.tables.media_blobs import claim_abandoned, delete_doomed, doom_unreferenced
from ranvier.store.tables.media_previews import delete_expired_previews

log = logging.getLogger(__name__)

INTERVAL_S: Final = 600.0
BATCH: Final = 200
ABANDONED_MS: Final = 600_000
"""A process that doomed a content and did not delete it in this time is dead."""
PARTIAL_S: Final = 86_400.0
"""Files that came in and to which nothing was written for so long are what a crash left."""
_FOREVER_MS: Final = 2**62


class MediaSweeper:
    """Sweeps every ten minutes. Several processes may do so at once."""

    name = "media sweeper"

    def __init__(self, db: Database, blobs: DiskBlobStore, clock: Clock, limits: MediaLimits) -> None:
        self._db = db
        self._blobs = blobs
        self._clock = clock
        self._limits = limits

    async def run(self) -> None:
        while True:
            await self._clock.sleep(INTERVAL_S)
            try:
                await self.sweep()
            except (OSError, StoreFault):
                log.exception("cannot delete media")

    async def sweep(self) -> None:
        """Everything, once. Raises: OSError, StoreFault; then the rest is done the next time."""
        now_ms = self._clock.now_ms()
        await self._db.write(delete_expired_reservations, now_ms)
        await self._db.write(delete_expired_previews, now_ms)
        if self._limits.remote_retention_ms is not None:
            await delete_copies(self._db, self._clock, now_ms - self._limits.remote_retention_ms)
        await self._shrink_cache()
        await self._delete_contents()
        await asyncio.to_thread(self._blobs.remove_partial_older_than, PARTIAL_S)

    async def _shrink_cache(self) -> None:
        """Delete the copies that nobody looked at for longest, until the rest is small enough."""
        while await self._db.write(_shrink, self._limits.remote_cache_bytes, self._clock.now_ms()):
            pass

    async def _delete_contents(self) -> None:
        """Doom, delete the file, forget: docs/adr/0005-media.md says why in this order."""
        while hashes := await self._db.write(_take, self._clock.now_ms()):
            for blob_hash in hashes:
                await self._blobs.delete(BlobID(blob_hash.hex()))
            await self._db.write(delete_doomed, hashes)


def _shrink(txn: WriteTxn, max_bytes: int, now_ms: int) -> bool:
    """Delete some; whether there may be more to delete. In one transaction: two processes that sweep at once must
    not each delete what is too much."""
    excess = sum_copies(txn) - max_bytes
    if excess <= 0:
        return False
    oldest = list_unused_copies(txn, _FOREVER_MS, BATCH)
    gone: list[Medium] = []
    for medium in oldest:
        if excess <= 0:
            break
        gone.append(medium)
        excess -= medium.size_bytes
    delete_media(txn, gone, now_ms)
    return excess > 0 and bool(oldest)


def _take(txn: WriteTxn, now_ms: int) -> list[bytes]:
    abandoned = claim_abandoned(txn, now_ms - ABANDONED_MS, now_ms, BATCH)
    return abandoned or doom_unreferenced(txn, now_ms - int(HOLD_S * 1000), now_ms, BATCH)
