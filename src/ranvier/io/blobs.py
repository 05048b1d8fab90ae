"""Files by content: a blob's id is the SHA-256 of its bytes, so a blob never changes and is stored once.

A blob appears under its name only when all of it is on disk; a crash leaves at most a file under `partial/`.
"""

import asyncio
import contextlib
import hashlib
import os
import re
import tempfile
import time
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path
from typing import BinaryIO, Final, NewType, Protocol

import msgspec

BlobID = NewType("BlobID", str)
"""64 lower-case hexadecimal digits."""

_BLOB_ID: Final = re.compile(r"[0-9a-f]{64}")
_READ_BYTES: Final = 262_144


class BlobTooLarge(Exception):
    """More bytes came than the caller allowed. Nothing is stored."""


class BlobMissing(LookupError):
    """There is no such blob."""


class StoredBlob(msgspec.Struct, frozen=True):
    """What `put` stored."""

    blob_id: BlobID
    size: int  # bytes


class BlobStore(Protocol):
    """Where media and other large bytes are kept."""

    async def put(self, chunks: AsyncIterable[bytes], max_bytes: int) -> StoredBlob:
        """Store all of `chunks`; on return they survive a crash.

        Raises: BlobTooLarge above `max_bytes`; OSError when the disk fails; what `chunks` raises.
        """
        ...

    def read(self, blob_id: BlobID, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from `start` (0 or more), `length` of them or up to the end, in pieces.

        Raises: BlobMissing at the first piece.
        """
        ...

    async def find_size(self, blob_id: BlobID) -> int | None:
        """In bytes; None if there is no such blob."""
        ...

    async def delete(self, blob_id: BlobID) -> bool:
        """Whether there was one. Whoever still reads it can go on."""
        ...


def parse_blob_id(text: str) -> BlobID:
    """Raises: ValueError when it is none; so no path can come out of it."""
    if not _BLOB_ID.fullmatch(text):
        raise ValueError("a blob id is 64 lower-case hexadecimal digits")
    return BlobID(text)


class DiskBlobStore:
    """A `BlobStore` in a directory: `<root>/ab/cd/abcd…`. Several processes may share it."""

    def __init__(self, root: Path) -> None:
        """Create the directory if it is not there. Raises: OSError."""
        self._root = root
        self._partial = root / "partial"
        self._partial.mkdir(parents=True, exist_ok=True)

    async def put(self, chunks: AsyncIterable[bytes], max_bytes: int) -> StoredBlob:
        partial = await asyncio.to_thread(_Partial, self._partial)
        size = 0
        try:
            async for chunk in chunks:
                size += len(chunk)
                if size > max_bytes:
                    raise BlobTooLarge(f"more than {max_bytes} bytes")
                await asyncio.to_thread(partial.append, chunk)
            blob_id = BlobID(partial.digest.hexdigest())
            await asyncio.to_thread(self._publish, partial, blob_id)
        finally:
            # Not in a thread: a cancelled upload must not leave before its file is gone.
            partial.discard()
        return StoredBlob(blob_id, size)

    async def read(self, blob_id: BlobID, start: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        file = await asyncio.to_thread(self._open, blob_id, start)
        remaining = length
        try:
            while remaining is None or remaining > 0:
                wanted = _READ_BYTES if remaining is None else min(_READ_BYTES, remaining)
                chunk = await asyncio.to_thread(file.read, wanted)
                if not chunk:
                    return
                if remaining is not None:
                    remaining -= len(chunk)
                yield chunk
        finally:
            file.close()

    async def find_size(self, blob_id: BlobID) -> int | None:
        try:
            return (await asyncio.to_thread(self._path(blob_id).stat)).st_size
        except FileNotFoundError:
            return None

    async def delete(self, blob_id: BlobID) -> bool:
        try:
            await asyncio.to_thread(self._path(blob_id).unlink)
        except FileNotFoundError:
            return False
        return True

    def remove_partial_older_than(self, seconds: float) -> int:
        """Delete what crashes left behind: files that nobody has written to for so long. Returns how many."""
        limit = time.time() - seconds
        removed = 0
        for path in self._partial.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another process came first
                if path.stat().st_mtime < limit:
                    path.unlink()
                    removed += 1
        return removed

    def _path(self, blob_id: BlobID) -> Path:
        parse_blob_id(blob_id)
        return self._root / blob_id[:2] / blob_id[2:4] / blob_id

    def _open(self, blob_id: BlobID, start: int) -> BinaryIO:
        try:
            file = self._path(blob_id).open("rb")
        except FileNotFoundError as error:
            raise BlobMissing(blob_id) from error
        file.seek(start)
        return file

    def _publish(self, partial: "_Partial", blob_id: BlobID) -> None:
        """Make the partial file the blob. A crash may come between any two steps: bytes, then name."""
        partial.file.flush()
        os.fsync(partial.file.fileno())
        target = self._path(blob_id)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.path.replace(target)
        for directory in (target.parent, target.parent.parent, self._root):
            _sync_directory(directory)


class _Partial:
    """A file that is being written, and the digest of what is in it."""

    def __init__(self, directory: Path) -> None:
        descriptor, path = tempfile.mkstemp(dir=directory)
        self.path = Path(path)
        self.file = os.fdopen(descriptor, "wb")
        self.digest = hashlib.sha256()

    def append(self, chunk: bytes) -> None:
        self.file.write(chunk)
        self.digest.update(chunk)

    def discard(self) -> None:
        self.file.close()
        self.path.unlink(missing_ok=True)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
