"""Files in and out, in one process with everything synced to disk, beside Synapse: throughput, small files, memory."""

import asyncio
import io
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

import orjson
from PIL import Image

from bench.figure import Figure
from bench.peers import Name, Peer, running, use_other_cores

LARGE_BYTES: Final = 49 * 1_048_576
"""Synapse takes no file above 50 MiB."""
LARGE_FILES: Final = 6
SMALL_BYTES: Final = 50_000
SECONDS: Final = 3.0
CONNECTIONS: Final = 8
_PIECE: Final = bytes(range(256)) * 256


def run() -> Sequence[Figure]:
    """Both servers, one after the other, and how many times Synapse Ranvier is. Synapse does not sync files."""
    ranvier = asyncio.run(measure("ranvier", 18_111))
    synapse = asyncio.run(measure("synapse", 18_112))
    figures = []
    for name, value in ranvier.items():
        figures.append(Figure(f"{name}: Ranvier", value, ""))
        figures.append(Figure(f"{name}: Synapse", synapse[name], ""))
        if "memory" not in name:
            figures.append(Figure(f"{name}: ratio", value / synapse[name], "x"))
    return figures


async def measure(name: Name, port: int) -> dict[str, float]:
    """Every figure of one server."""
    use_other_cores()
    async with running(name, port) as peer:
        token = await peer.register("alice")
        before = peer.memory_mib()
        figures = {}
        started = time.perf_counter()
        places = [await upload(port, token, LARGE_BYTES, number) for number in range(LARGE_FILES)]
        figures["large uploads, MB/s"] = LARGE_FILES * LARGE_BYTES / 1e6 / (time.perf_counter() - started)
        started = time.perf_counter()
        for place in places:
            received = await fetch(port, token, f"/_matrix/client/v1/media/download/{place}")
            if received != LARGE_BYTES:
                raise RuntimeError(f"{received} bytes came instead of {LARGE_BYTES}")
        figures["large downloads, MB/s"] = LARGE_FILES * LARGE_BYTES / 1e6 / (time.perf_counter() - started)
        figures["memory that large files took, MiB"] = highest_memory_mib(peer) - before
        figures |= await measure_small(port, token)
        return figures


async def measure_small(port: int, token: str) -> dict[str, float]:
    """Files of the size of a photo that a client made smaller, and thumbnails of one."""
    numbers = iter(range(10**9, 2 * 10**9))
    figures = {"small uploads, 1/s": await _rate(lambda: upload(port, token, SMALL_BYTES, next(numbers)))}
    place = await upload(port, token, SMALL_BYTES, next(numbers))
    path = f"/_matrix/client/v1/media/download/{place}"
    figures["small downloads, 1/s"] = await _rate(lambda: fetch(port, token, path))
    photo = io.BytesIO()
    Image.effect_noise((2000, 1500), 60).convert("RGB").save(photo, "JPEG")
    started = time.perf_counter()
    place = await send(port, token, photo.getvalue())
    path = f"/_matrix/client/v1/media/thumbnail/{place}?width=320&height=240"
    await fetch(port, token, path)
    figures["first thumbnails of a photo with its upload, 1/s"] = 1 / (time.perf_counter() - started)
    figures["thumbnails that are there, 1/s"] = await _rate(lambda: fetch(port, token, path))
    return figures


async def _rate(once: Callable[[], Awaitable[object]]) -> float:
    """How often a second, from several connections."""
    count = 0
    deadline = time.perf_counter() + SECONDS

    async def repeat() -> None:
        nonlocal count
        while time.perf_counter() < deadline:
            await once()
            count += 1

    started = time.perf_counter()
    await asyncio.gather(*(repeat() for _ in range(CONNECTIONS)))
    return count / (time.perf_counter() - started)


async def upload(port: int, token: str, size: int, number: int) -> str:
    """Upload `size` bytes that no other number gives; server and media id as they stand in paths."""
    return await _upload(port, token, "application/octet-stream", size, _pieces(size, number))


async def send(port: int, token: str, content: bytes) -> str:
    """Upload a picture."""

    async def once() -> AsyncIterator[bytes]:
        yield content

    return await _upload(port, token, "image/jpeg", len(content), once())


async def _upload(port: int, token: str, content_type: str, length: int, pieces: AsyncIterator[bytes]) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        "POST /_matrix/media/v3/upload HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Authorization: Bearer {token}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n"
    )
    writer.write(head.encode())
    async for piece in pieces:
        writer.write(piece)
        await writer.drain()
    answer = await reader.read()
    writer.close()
    body = answer[answer.index(b"{") : answer.rindex(b"}") + 1]
    return str(orjson.loads(body)["content_uri"]).removeprefix("mxc://")


async def fetch(port: int, token: str, path: str) -> int:
    """How many bytes the body of an answer has. Raises: RuntimeError for a refusal."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Authorization: Bearer {token}\r\n\r\n".encode()
    )
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if b" 200 " not in head[:20]:
        raise RuntimeError(head.decode("latin-1"))
    start = head.index(b"content-length:") + 15
    left = length = int(head[start : head.index(b"\r", start)])
    while left and (piece := await reader.read(1_048_576)):
        left -= len(piece)
    writer.close()
    return length - left


async def _pieces(size: int, number: int) -> AsyncIterator[bytes]:
    first = number.to_bytes(8, "big")[:size]
    yield first
    left = size - len(first)
    while left > 0:
        yield _PIECE[:left]
        left -= len(_PIECE)


def highest_memory_mib(peer: Peer) -> float:
    """The most that the server ever had resident."""
    with open(f"/proc/{peer.pid}/status") as status:
        line = next(line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
