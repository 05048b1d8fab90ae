"""The program that decodes pictures and reads web pages, in a process of its own:
`python -m ranvier.io.picture_worker`.

It reads jobs from standard input and writes results to standard output, each a line of JSON and then so many bytes,
and ends with its input. It opens no file: limits of the kernel hold it. What it is given may be hostile.
"""

import json
import resource
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any, BinaryIO, Final, NoReturn

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageOps,
    ImageSequence,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)

from ranvier.io.open_graph import decode_page, read_properties

# Decoders that are needed, and no more: each is a way in. They are loaded before the limits are set.
DECODERS: Final = (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)
FORMATS: Final = ("PNG", "JPEG", "GIF", "WEBP", "AVIF", "BMP")
LOSSLESS: Final = frozenset({"PNG", "GIF", "BMP"})
SERVED: Final = frozenset({"PNG", "JPEG", "GIF", "WEBP"})
"""What a thumbnail may be. Spec: client-server API, GET /media/thumbnail."""

MAX_PIXELS: Final = 64_000_000
"""Of a picture as it is decoded (a JPEG may be decoded at an eighth of its size)."""
MAX_DECLARED_PIXELS: Final = 500_000_000
MAX_FRAMES: Final = 500
MAX_ANIMATED_WORK: Final = 100_000_000
"""Pixels of all frames together, those that are made counted four times, for so much longer they take. Above that the
first frame must do. So much takes 2 to 3 s."""
MAX_ANIMATED_S: Final = 4.0
"""Of processor time, for what takes longer than it should: merely counting the frames of a GIF may."""
MEMORY_BYTES: Final = 2_000_000_000
"""Of address space, libraries included."""
JPEG_QUALITY: Final = 80
_ORIENTATION: Final = 0x0112
_TURNED: Final = frozenset({5, 6, 7, 8})


class TooLarge(Exception):
    """More pixels than are decoded."""


def limit_process() -> None:
    """Memory, and no new files or processes. Time is limited from outside."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))
    # The parent decides when this process ends: a terminal's Ctrl-C is for the parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def open_picture(source: bytes) -> Image.Image:
    """Raises: TooLarge; OSError, ValueError or others of Pillow's when it is no picture."""
    picture = Image.open(BytesIO(source), formats=FORMATS)
    if picture.width * picture.height > MAX_DECLARED_PIXELS:
        raise TooLarge
    return picture


def measure(source: bytes) -> dict[str, Any]:
    """Type and size as it is shown, from the head of the file alone."""
    picture = open_picture(source)
    width, height = picture.size
    if _orientation(picture) in _TURNED:
        width, height = height, width
    return {"content_type": _type_of(picture), "width": width, "height": height}


def make_thumbnail(
    source: bytes, box: tuple[int, int], *, crop: bool, animated: bool
) -> tuple[dict[str, Any], bytes]:
    """A smaller picture: one that fits into `box`, or that fills it. What is small enough is not encoded anew: then
    there are no bytes.

    Raises: as `open_picture`.
    """
    picture = open_picture(source)
    moves = getattr(picture, "is_animated", False)
    described = measure(source)
    is_small = described["width"] <= box[0] and described["height"] <= box[1]
    if is_small and picture.format in SERVED and (animated or not moves):
        return described, b""
    if picture.format == "JPEG":
        picture.draft(None, (2 * max(box), 2 * max(box)))
    if picture.width * picture.height > MAX_PIXELS:
        raise TooLarge
    if animated and moves:
        try:
            with _limited_time(MAX_ANIMATED_S):
                if _may_move(picture, box):
                    frames = [_shrink(frame, box, crop) for frame in ImageSequence.Iterator(picture)]
                    return _encode_frames(frames, picture)
        except _TooSlow:
            pass
        picture = open_picture(source)
    shrunk = _shrink(picture, box, crop)
    kind = "PNG" if picture.format in LOSSLESS or "A" in shrunk.getbands() else "JPEG"
    return _encode(shrunk, kind)


def _may_move(picture: Image.Image, box: tuple[int, int]) -> bool:
    frames = getattr(picture, "n_frames", 1)
    pixels = picture.width * picture.height
    return frames <= MAX_FRAMES and frames * (pixels + 4 * min(pixels, box[0] * box[1])) <= MAX_ANIMATED_WORK


class _TooSlow(BaseException):
    """No Exception, for Pillow goes on after some of those."""


@contextmanager
def _limited_time(seconds: float) -> Iterator[None]:
    """Raises: _TooSlow in the block, between two steps of Python, once it took so much processor time."""

    def expire(_number: int, _frame: object) -> NoReturn:
        raise _TooSlow

    before = signal.signal(signal.SIGVTALRM, expire)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _shrink(picture: Image.Image, box: tuple[int, int], crop: bool) -> Image.Image:
    """One frame, upright and in a mode that can be saved. Never larger than it was."""
    orientation = _orientation(picture)
    wanted = (box[1], box[0]) if orientation in _TURNED else box
    plain = _plain(picture)
    if crop:
        target = (min(wanted[0], plain.width), min(wanted[1], plain.height))
        shrunk = ImageOps.fit(plain, target, Image.Resampling.LANCZOS)
    else:
        factor = min(wanted[0] / plain.width, wanted[1] / plain.height, 1.0)
        target = (max(1, round(plain.width * factor)), max(1, round(plain.height * factor)))
        shrunk = plain.resize(target, Image.Resampling.LANCZOS, reducing_gap=2.0)
    turn = _TURNS.get(orientation)
    return shrunk if turn is None else shrunk.transpose(turn)


_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(_ORIENTATION, 1))
    except Exception:  # whatever is wrong in there, the picture can be shown without it
        return 1


def _plain(picture: Image.Image) -> Image.Image:
    if picture.mode in ("RGB", "RGBA", "L", "LA"):
        return picture
    is_transparent = "A" in picture.getbands() or "a" in picture.mode or "transparency" in picture.info
    return picture.convert("RGBA" if is_transparent else "RGB")


def _encode(picture: Image.Image, kind: str) -> tuple[dict[str, Any], bytes]:
    out = BytesIO()
    if kind == "JPEG":
        picture.save(out, "JPEG", quality=JPEG_QUALITY, optimize=True)
    else:
        picture.save(out, kind)
    return _described(picture, f"image/{kind.lower()}"), out.getvalue()


def _encode_frames(frames: list[Image.Image], picture: Image.Image) -> tuple[dict[str, Any], bytes]:
    out = BytesIO()
    durations = [int(frame.info.get("duration", 100)) for frame in ImageSequence.Iterator(picture)]
    frames[0].save(
        out,
        "WEBP",
        save_all=True,
        append_images=frames[1:],
        duration=[max(20, min(duration, 60_000)) for duration in durations],
        loop=int(picture.info.get("loop", 0)),
        quality=JPEG_QUALITY,
    )
    return _described(frames[0], "image/webp"), out.getvalue()


def _described(picture: Image.Image, content_type: str) -> dict[str, Any]:
    return {"content_type": content_type, "width": picture.width, "height": picture.height}


def _type_of(picture: Image.Image) -> str:
    return Image.MIME.get(picture.format or "", "application/octet-stream")


def do_job(job: dict[str, Any], source: bytes) -> tuple[dict[str, Any], bytes]:
    """The answer to a job, whatever the bytes are."""
    try:
        if job["do"] == "measure":
            return measure(source), b""
        if job["do"] == "read page":
            page = decode_page(source, job["content_type"])
            return {}, json.dumps(read_properties(page, job["url"])).encode()
        return make_thumbnail(
            source, (job["width"], job["height"]), crop=job["crop"], animated=job["animated"]
        )
    except (TooLarge, Image.DecompressionBombError, MemoryError):
        return {"fault": "too large"}, b""
    except Exception as error:  # decoders raise whatever they like over a hostile file
        return {"fault": f"not decoded: {type(error).__name__}"}, b""


def serve(jobs: BinaryIO, results: BinaryIO) -> None:
    """Until there are no more jobs."""
    while line := jobs.readline():
        job = json.loads(line)
        answer, body = do_job(job, jobs.read(job["length"]))
        results.write(json.dumps(answer | {"length": len(body)}).encode() + b"\n" + body)
        results.flush()


def main() -> None:
    # Our own bounds tell more, and warn nobody.
    Image.MAX_IMAGE_PIXELS = None
    limit_process()
    serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
