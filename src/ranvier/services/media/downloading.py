"""Finding media: here, on its way in, or on another server."""

import logging
from typing import Final

import msgspec

from ranvier.core.errors import NotFound, NotYetUploaded
from ranvier.core.identifiers import ServerName, parse_mxc
from ranvier.core.media.disposition import DEFAULT_TYPE
from ranvier.io.blobs import BlobID, BlobStore
from ranvier.io.clock import Clock
from ranvier.services.media.content import Content
from ranvier.services.media.remote import Elsewhere
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables.interned import Interner, find_server_nids
from ranvier.store.tables.media import Medium, find_medium, touch_medium

log = logging.getLogger(__name__)

DEFAULT_TIMEOUT_MS: Final = 20_000
MAX_TIMEOUT_MS: Final = 60_000
TOUCH_MS: Final = 3_600_000
"""How exactly it is known when somebody last looked at a medium."""

_LOOK_AGAIN_S: Final = 0.25


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What whoever asks wants, and may have. `is_open_only`: asked without a token."""

    timeout_ms: int = DEFAULT_TIMEOUT_MS
    allow_remote: bool = True
    is_open_only: bool = False
    despite_quarantine: bool = False


class Downloads:
    """Finds media for whoever may see them."""

    def __init__(
        self,
        db: Database,
        interner: Interner,
        blobs: BlobStore,
        elsewhere: Elsewhere,
        clock: Clock,
        *,
        opens_new: bool,
    ) -> None:
        """`opens_new`: whether what comes in now may be downloaded without a token."""
        self._db = db
        self._interner = interner
        self._blobs = blobs
        self._elsewhere = elsewhere
        self._clock = clock
        self._opens_new = opens_new

    async def get(self, server: ServerName, media_id: str, wish: Wish) -> Content:
        """A medium's content.

        Raises: as `find`.
        """
        medium = await self.find(server, media_id, wish)
        return await self.open(
            medium.blob_hash or b"", medium.size_bytes, medium.content_type or DEFAULT_TYPE, medium.file_name
        )

    async def find(self, server: ServerName, media_id: str, wish: Wish) -> Medium:
        """A medium that is complete.

        Raises: BadIdentifier; NotFound, also for what is quarantined; NotYetUploaded; for other servers' media
        RemoteMediaTooLarge, LimitExceeded, BadGateway.
        """
        parse_mxc(f"mxc://{server}/{media_id}")
        medium = await self._db.read(self._read, server, media_id)
        if server == self._interner.own_server:
            medium = await self._wait(medium, wish)
        elif medium is None and wish.allow_remote and (self._opens_new or not wish.is_open_only):
            medium = await self._elsewhere.fetch(server, media_id, min(wish.timeout_ms, MAX_TIMEOUT_MS))
        if medium is None or not _may_see(medium, wish):
            raise NotFound("There is no such media.")
        now_ms = self._clock.now_ms()
        if now_ms - medium.accessed_ms > TOUCH_MS:
            await self._db.write(touch_medium, medium.server_nid, media_id, now_ms)
        return medium

    async def open(
        self, blob_hash: bytes, size_bytes: int, content_type: str, file_name: str | None
    ) -> Content:
        """What is kept under a hash. Raises: NotFound when the file is not there."""
        blob_id = BlobID(blob_hash.hex())
        if await self._blobs.find_size(blob_id) != size_bytes:
            log.error("the file %s is not there, or not whole", blob_id)
            raise NotFound("There is no such media.")
        return Content(
            blob_id=blob_id,
            size_bytes=size_bytes,
            content_type=content_type,
            file_name=file_name,
            blobs=self._blobs,
        )

    async def _wait(self, medium: Medium | None, wish: Wish) -> Medium | None:
        """Until a reserved medium is uploaded. Raises: NotYetUploaded."""
        if medium is None or (wish.is_open_only and not self._opens_new):
            return medium
        deadline = self._clock.monotonic() + min(wish.timeout_ms, MAX_TIMEOUT_MS) / 1000
        server = self._interner.own_server
        while medium is not None and medium.blob_hash is None:
            if (medium.expires_ms or 0) <= self._clock.now_ms():
                return None
            left_s = deadline - self._clock.monotonic()
            if left_s <= 0:
                raise NotYetUploaded("This media has not been uploaded yet.")
            await self._clock.sleep(min(left_s, _LOOK_AGAIN_S))
            medium = await self._db.read(self._read, server, medium.media_id)
        return medium

    def _read(self, txn: ReadTxn, server: ServerName, media_id: str) -> Medium | None:
        nid = find_server_nids(txn, self._interner, [server]).get(server)
        return None if nid is None else find_medium(txn, nid, media_id)


def _may_see(medium: Medium, wish: Wish) -> bool:
    if medium.blob_hash is None or (wish.is_open_only and not medium.is_open):
        return False
    return medium.quarantined_by is None or wish.despite_quarantine
