"""Blobs: all or nothing on disk, whatever goes wrong on the way; and no path but its own."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ranvier.io.blobs import BlobID, BlobMissing, BlobTooLarge, DiskBlobStore, parse_blob_id


async def _chunks(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def _put(store: DiskBlobStore, chunks: AsyncIterator[bytes], max_bytes: int) -> BlobID:
    async with store.stage(chunks, max_bytes) as staged:
        await staged.publish()
        return staged.blob_id


async def _read(store: DiskBlobStore, blob_id: BlobID, start: int = 0, length: int | None = None) -> bytes:
    return b"".join([chunk async for chunk in store.read(blob_id, start, length)])


def _files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.is_file()]


async def test_a_blob_is_named_by_its_content_and_stored_once(tmp_path: Path) -> None:
    store = DiskBlobStore(tmp_path)
    digest = hashlib.sha256(b"hello").hexdigest()
    async with store.stage(_chunks(b"hel", b"lo"), 5) as staged:
        assert (staged.blob_id, staged.size) == (digest, 5)
        await staged.publish()
    assert await _put(store, _chunks(b"hello"), 100) == digest
    assert _files(tmp_path) == [tmp_path / digest[:2] / digest[2:4] / digest]
    assert await _read(store, staged.blob_id) == b"hello"
    assert await store.find_size(staged.blob_id) == 5


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 20), st.none() | st.integers(0, 20))
def test_ranges(tmp_path: Path, start: int, length: int | None) -> None:
    async def check() -> None:
        store = DiskBlobStore(tmp_path)
        content = b"0123456789"
        blob_id = await _put(store, _chunks(content), 10)
        end = None if length is None else start + length
        assert await _read(store, blob_id, start, length) == content[start:end]

    asyncio.run(check())


async def test_a_large_blob_comes_back_in_pieces(tmp_path: Path) -> None:
    store = DiskBlobStore(tmp_path)
    content = os.urandom(700_000)
    blob_id = await _put(store, _chunks(content[:300_000], b"", content[300_000:]), 700_000)
    pieces = [chunk async for chunk in store.read(blob_id, 1)]
    assert len(pieces) > 1
    assert b"".join(pieces) == content[1:]


async def test_too_much_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(BlobTooLarge):
        await _put(DiskBlobStore(tmp_path), _chunks(b"123", b"456"), 5)
    assert _files(tmp_path) == []


async def test_what_is_not_published_leaves_nothing(tmp_path: Path) -> None:
    async with DiskBlobStore(tmp_path).stage(_chunks(b"123"), 5) as staged:
        assert await DiskBlobStore(tmp_path).find_size(staged.blob_id) is None
    assert _files(tmp_path) == []


async def test_an_upload_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"123"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await _put(DiskBlobStore(tmp_path), broken(), 5)
    assert _files(tmp_path) == []


async def test_a_cancelled_upload_leaves_nothing(tmp_path: Path) -> None:
    stuck = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"123"
        stuck.set()
        await asyncio.Event().wait()

    task = asyncio.ensure_future(_put(DiskBlobStore(tmp_path), endless(), 5))
    await stuck.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert _files(tmp_path) == []


async def test_the_name_comes_after_the_bytes_are_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut between any two steps must not leave a name without its bytes."""
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (steps.append("sync"), fsync(fd))[1])
    monkeypatch.setattr(Path, "replace", lambda self, to: (steps.append("name"), replace(self, to))[1])
    await _put(DiskBlobStore(tmp_path), _chunks(b"x"), 5)
    assert steps[:2] == ["sync", "name"]
    assert steps[2:].count("sync") == 3, "each directory on the way to the name"


async def test_a_failing_disk_stores_nothing_under_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        await _put(DiskBlobStore(tmp_path), _chunks(b"x"), 5)
    assert _files(tmp_path) == []


async def test_what_a_crash_left_is_removed_but_not_what_is_being_written(tmp_path: Path) -> None:
    store = DiskBlobStore(tmp_path)
    left, fresh = tmp_path / "partial" / "left", tmp_path / "partial" / "fresh"
    left.write_bytes(b"x")
    fresh.write_bytes(b"x")
    os.utime(left, (1, 1))
    assert store.remove_partial_older_than(3600) == 1
    assert _files(tmp_path) == [fresh]


async def test_deleted_and_unknown_blobs_are_missing(tmp_path: Path) -> None:
    store = DiskBlobStore(tmp_path)
    blob_id = await _put(store, _chunks(b"x"), 5)
    assert await store.delete(blob_id) is True
    assert await store.delete(blob_id) is False
    assert await store.find_size(blob_id) is None
    with pytest.raises(BlobMissing):
        await _read(store, blob_id)


@pytest.mark.parametrize(
    "text", ["", "../../etc/passwd", "a" * 63, "A" * 64, "a" * 65, "a" * 63 + "\n", "a/" * 32]
)
async def test_only_a_digest_becomes_a_path(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match="hexadecimal"):
        parse_blob_id(text)
    store = DiskBlobStore(tmp_path)
    for attempt in (_read(store, BlobID(text)), store.find_size(BlobID(text)), store.delete(BlobID(text))):
        with pytest.raises(ValueError, match="hexadecimal"):
            await attempt
