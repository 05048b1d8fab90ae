"""What is shown of a medium: its bytes, and what headers say about them."""

from collections.abc import AsyncIterator

import msgspec

from ranvier.io.blobs import BlobID, BlobStore


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that are here, by the name under which they are kept."""

    blob_id: BlobID
    size_bytes: int
    content_type: str
    file_name: str | None
    blobs: BlobStore

    def read(self, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """Raises: BlobMissing at the first piece."""
        return self.blobs.read(self.blob_id, start, length)
