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
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import BinaryIO, Final, NewType, Protocol

BlobID = NewType("BlobID", str)
"""64 lower-case hexadecimal digits."""

_BLOB_ID: Final = re.compile(r"[0-9a-f]{64}")
_READ_BYTES: Final = 262_144
_WRITE_BYTES: Final = 524_288


class BlobTooLarge(Exception):
    """More bytes came than the caller allowed. Nothing is stored."""


class BlobMissing(LookupError):
    """There is no such blob."""


class StagedBlob(Protocol):
    """Bytes that are all here, but are no blob yet."""

    @property
    def blob_id(self) -> BlobID: ...

    @property
    def size(self) -> int:
        """In bytes."""
        ...

    async def publish(self) -> None:
        """Make them a blob; on return it survives a crash. Raises: OSError when the disk fails."""
        ...


class BlobStore(Protocol):
    """Where media and other large bytes are kept."""

    def stage(self, chunks: AsyncIterable[bytes], max_bytes: int) -> AbstractAsyncContextManager[StagedBlob]:
        """Take all of `chunks`; what is not published when the block is left is gone.

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
        self._synced: set[Path] = set()  # directories of blobs whose own names are on disk: 65,536 at most
        self._partial.mkdir(parents=True, exist_ok=True)

    @asynccontextmanager
    async def stage(self, chunks: AsyncIterable[bytes], max_bytes: int) -> AsyncIterator[StagedBlob]:
        partial = await asyncio.to_thread(_Partial, self._partial)
        try:
            await _fill(partial, chunks, max_bytes)
            yield _Staged(partial, self._publish)
        finally:
            # Not in a thread: a cancelled upload must not leave before its file is gone.
            partial.discard()

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
        _sync_directory(target.parent)
        if target.parent not in self._synced:
            # Whoever made them: their names may not be on disk yet.
            _sync_directory(target.parent.parent)
            _sync_directory(self._root)
            self._synced.add(target.parent)


class _Partial:
    """A file that is being written, and the digest of what is in it."""

    def __init__(self, directory: Path) -> None:
        descriptor, path = tempfile.mkstemp(dir=directory)
        self.path = Path(path)
        self.file = os.fdopen(descriptor, "wb")
        self.digest = hashlib.sha256()
        self.size = 0

    def append(self, chunks: Sequence[bytes]) -> None:
        for chunk in chunks:
            self.file.write(chunk)
            self.digest.update(chunk)
            self.size += len(chunk)

    def discard(self) -> None:
        self.file.close()
        self.path.unlink(missing_ok=True)


class _Staged:
    """A partial file that is complete."""

    def __init__(self, partial: _Partial, publish: Callable[[_Partial, BlobID], None]) -> None:
        self._partial = partial
        self._publish = publish
        self.blob_id: Final = BlobID(partial.digest.hexdigest())
        self.size: Final = partial.size

    async def publish(self) -> None:
        await asyncio.to_thread(self._publish, self._partial, self.blob_id)


async def _fill(partial: _Partial, chunks: AsyncIterable[bytes], max_bytes: int) -> None:
    """Write everything, many small chunks in one visit to another thread. Raises: BlobTooLarge."""
    waiting: list[bytes] = []
    waiting_bytes = received = 0
    async for chunk in chunks:
        received += len(chunk)
        if received > max_bytes:
            raise BlobTooLarge(f"more than {max_bytes} bytes")
        waiting.append(chunk)
        waiting_bytes += len(chunk)
        if waiting_bytes >= _WRITE_BYTES:
            await asyncio.to_thread(partial.append, waiting)
            waiting, waiting_bytes = [], 0
    await asyncio.to_thread(partial.append, waiting)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
