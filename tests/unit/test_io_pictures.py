"""Pictures are decoded elsewhere: whatever happens there, the next picture is decoded all the same."""

import asyncio
import io
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator

import pytest
from PIL import Image

from ranvier.io import picture_worker
from ranvier.io.pictures import NoPicture, Picture, PictureProcesses, PictureTooLarge, Source


def source(content: bytes, length: int | None = None) -> Source:
    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(content), 1000):
            yield content[start : start + 1000]

    return Source(len(content) if length is None else length, chunks())


def png(width: int = 30, height: int = 20) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
async def pictures() -> AsyncIterator[PictureProcesses]:
    pictures = PictureProcesses(count=2, timeout_s=20)
    running = asyncio.create_task(pictures.run())
    await asyncio.sleep(0)
    yield pictures
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def check_that_it_works(pictures: PictureProcesses) -> None:
    assert await pictures.measure(source(png())) == Picture("image/png", 30, 20)


async def test_several_at_once(pictures: PictureProcesses) -> None:
    sizes = [(number + 1, 9) for number in range(6)]
    found = await asyncio.gather(*(pictures.measure(source(png(*size))) for size in sizes))
    assert [(picture.width, picture.height) for picture in found] == sizes


async def test_a_process_that_takes_too_long_is_killed(pictures: PictureProcesses) -> None:
    await check_that_it_works(pictures)
    pictures._timeout_s = 0.1
    with pytest.raises(PictureTooLarge):
        await pictures.measure(source(png(), length=10_000_000))  # it waits for the rest
    pictures._timeout_s = 20
    await check_that_it_works(pictures)


async def test_a_process_that_dies_while_idle_is_replaced(pictures: PictureProcesses) -> None:
    await check_that_it_works(pictures)
    [worker] = pictures._idle
    worker._process.kill()
    await worker._process.wait()
    await check_that_it_works(pictures)


async def test_a_process_that_dies_at_work_takes_only_its_picture_along(pictures: PictureProcesses) -> None:
    await check_that_it_works(pictures)
    [worker] = pictures._idle

    async def deadly() -> AsyncIterator[bytes]:
        yield b"x"
        worker._process.kill()
        await worker._process.wait()
        yield b"x"

    with pytest.raises(NoPicture):
        await pictures.measure(Source(10_000_000, deadly()))
    await check_that_it_works(pictures)


async def test_a_source_that_breaks_off_does_not_leave_a_process_in_the_middle(
    pictures: PictureProcesses,
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        await pictures.measure(Source(100, broken()))
    await check_that_it_works(pictures)


async def test_memory_has_a_bound(pictures: PictureProcesses) -> None:
    """Both are small as files; the second one is too much when it is decoded."""
    out = io.BytesIO()
    Image.new("L", (7900, 7900)).save(out, "PNG")
    picture, encoded = await pictures.make_thumbnail(
        source(out.getvalue()), (10, 10), crop=True, animated=False
    )
    assert (picture.width, len(encoded) > 0) == (10, True)
    out = io.BytesIO()
    Image.new("1", (22_000, 22_000)).save(out, "PNG")
    with pytest.raises(PictureTooLarge):
        await pictures.make_thumbnail(source(out.getvalue()), (10, 10), crop=True, animated=False)
    await check_that_it_works(pictures)


async def test_pages_are_read_there_too_however_hostile(pictures: PictureProcesses) -> None:
    page = b'<meta property="og:title" content="A &amp; B"><meta property="og:image" content="/a.png">'
    read = await pictures.read_page(source(page), "text/html; charset=utf-8", "https://example.org/x/")
    assert read == {"og:title": "A & B", "og:image": "https://example.org/a.png"}
    for hostile in (
        b"",
        b"<div>" * 200_000,
        b"<p>" * 300_000,
        b"\xff\x00<" * 300_000,
        b"<!DOCTYPE a [<!ENTITY b",
    ):
        await pictures.read_page(source(hostile), "text/html", "https://example.org/")
    await check_that_it_works(pictures)


def test_the_server_itself_does_without_parsers_of_hostile_files() -> None:
    program = "import sys, ranvier.app.build; sys.exit(any(m in sys.modules for m in ('lxml', 'PIL')))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def moving(size: int, count: int) -> bytes:
    out = io.BytesIO()
    frames = [Image.new("RGB", (size, size), (10 * number, 0, 0)) for number in range(count)]
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:], duration=50)
    return out.getvalue()


def frames_without_end(count: int) -> bytes:
    """A GIF of 100 x 100 pixels whose frames have a pixel each."""
    head = b"GIF89a" + b"\x64\x00\x64\x00" + b"\x80\x00\x00" + b"\x00\x00\x00\xff\xff\xff"
    frame = b"\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00" + b"\x02\x02\x44\x01\x00"
    return head + frame * count + b"\x3b"


def test_what_moves_may_cost_so_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty frames of 40 x 40 pixels, and so many of 30 x 30, four times as dear."""
    picture, work = moving(40, 20), 20 * (40 * 40 + 4 * 30 * 30)
    for most, kind in ((work, "image/webp"), (work - 1, "image/png")):
        monkeypatch.setattr(picture_worker, "MAX_ANIMATED_WORK", most)
        answer, encoded = picture_worker.make_thumbnail(picture, (30, 30), crop=False, animated=True)
        assert (answer, len(encoded) > 0) == ({"content_type": kind, "width": 30, "height": 30}, True)


def test_counting_frames_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_worker, "MAX_ANIMATED_S", 0.1)
    picture = frames_without_end(200_000)
    before = time.process_time()
    answer, encoded = picture_worker.make_thumbnail(picture, (30, 30), crop=False, animated=True)
    assert (answer["content_type"], len(encoded) > 0) == ("image/png", True)
    assert time.process_time() - before < 1
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)
