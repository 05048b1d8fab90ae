"""From a stream of bytes to a blob that a row of the database refers to: the one way in for all media.

The order of its steps is what makes it safe against crashes and against the sweeper: docs/adr/0005-media.md.
"""

from collections.abc import AsyncIterable, Callable
from typing import Final, TypeVar

import msgspec

from ranvier.core.errors import Unavailable
from ranvier.io.blobs import BlobStore
from ranvier.io.clock import Clock
from ranvier.store.database import Database, WriteTxn
from ranvier.store.tables.media_blobs import hold_blob

T = TypeVar("T")

HOLD_S: Final = 3600.0
"""How long a held content is not doomed, though no row refers to it."""

_WAIT_S: Final = 0.1
_MAX_WAITS: Final = 100


class StoredContent(msgspec.Struct, frozen=True):
    """What a row is to refer to."""

    blob_hash: bytes
    size_bytes: int


Record = Callable[[WriteTxn, StoredContent], T]
"""Writes the row. Retains the content, and may refuse by raising."""


class Storing:
    """Brings contents in."""

    def __init__(self, db: Database, blobs: BlobStore, clock: Clock) -> None:
        self._db = db
        self._blobs = blobs
        self._clock = clock

    async def store(self, chunks: AsyncIterable[bytes], max_bytes: int, record: Record[T]) -> T:
        """Keep all of `chunks` and write the row that refers to them. On return both survive a crash.

        Raises: BlobTooLarge above `max_bytes`; what `chunks` and `record` raise; then nothing is referred to.
        """
        async with self._blobs.stage(chunks, max_bytes) as staged:
            content = StoredContent(bytes.fromhex(staged.blob_id), staged.size)
            await self._hold(content)
            await staged.publish()
            return await self._db.write(record, content)

    async def _hold(self, content: StoredContent) -> None:
        for _ in range(_MAX_WAITS):
            now_ms = self._clock.now_ms()
            if await self._db.write(hold_blob, content.blob_hash, content.size_bytes, now_ms):
                return
            # The same content is being deleted at this moment.
            await self._clock.sleep(_WAIT_S)
        raise Unavailable("This file cannot be stored right now. Try again in some minutes.")
