"""Pictures of previews: kept as media that nobody uploaded, so that they go when nobody looks at them."""

from typing import Any, Final

from ranvier.core.media.disposition import clean_type, essence, parse_file_name
from ranvier.io.blobs import BlobID, BlobStore, BlobTooLarge
from ranvier.io.clock import Clock
from ranvier.io.pictures import NoPicture, Pictures, Source
from ranvier.io.randomness import Randomness
from ranvier.services.media.storing import StoredContent, Storing
from ranvier.services.media.uploading import MEDIA_ID_CHARS
from ranvier.services.media.web import WebFile
from ranvier.store.database import Database, WriteTxn
from ranvier.store.tables.interned import Interner, intern_servers
from ranvier.store.tables.media import Medium, delete_media, insert_medium

MAX_IMAGE_BYTES: Final = 10 * 1_048_576

IMAGE: Final = "og:image"

Properties = dict[str, Any]
"""What the client is told: texts, and numbers that describe the picture."""


class PreviewImages:
    """Keeps the pictures of previews as media that nobody uploaded."""

    def __init__(
        self,
        db: Database,
        interner: Interner,
        storing: Storing,
        blobs: BlobStore,
        pictures: Pictures,
        clock: Clock,
        randomness: Randomness,
    ) -> None:
        self._db = db
        self._interner = interner
        self._storing = storing
        self._blobs = blobs
        self._pictures = pictures
        self._clock = clock
        self._randomness = randomness

    async def keep(self, file: WebFile) -> Properties | None:
        """What describes the picture, or None when it is none. Raises: RemoteFault."""
        if not essence(file.content_type).startswith("image/"):
            return None

        def record(txn: WriteTxn, content: StoredContent) -> Medium:
            medium = self._medium(txn, file, content)
            insert_medium(txn, medium)
            return medium

        try:
            medium = await self._storing.store(file.response.chunks(), MAX_IMAGE_BYTES, record)
        except BlobTooLarge:
            return None
        try:
            chunks = self._blobs.read(BlobID((medium.blob_hash or b"").hex()))
            picture = await self._pictures.measure(Source(medium.size_bytes, chunks))
        except NoPicture:
            await self._db.write(delete_media, [medium], self._clock.now_ms())
            return None
        return {
            IMAGE: f"mxc://{self._interner.own_server}/{medium.media_id}",
            f"{IMAGE}:type": picture.content_type,
            f"{IMAGE}:width": picture.width,
            f"{IMAGE}:height": picture.height,
            "matrix:image:size": medium.size_bytes,
        }

    def _medium(self, txn: WriteTxn, file: WebFile, content: StoredContent) -> Medium:
        own, now_ms = self._interner.own_server, self._clock.now_ms()
        return Medium(
            server_nid=intern_servers(txn, self._interner, [own])[own],
            media_id=self._randomness.text(MEDIA_ID_CHARS),
            blob_hash=content.blob_hash,
            size_bytes=content.size_bytes,
            content_type=clean_type(file.content_type),
            file_name=parse_file_name(file.response.headers.get("content-disposition")),
            created_ms=now_ms,
            accessed_ms=now_ms,
        )
