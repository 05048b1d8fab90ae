"""The tree of a space of 200 rooms beside Synapse, in one run: a page of 50, and all of it page by page.

Each server runs alone on one core with its database on disk; the load runs on another core.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

import orjson

from bench.figure import Figure, compare
from bench.peers import Name, running, use_other_cores
from bench.wire import Connection

ROOMS: Final = 200
SPACES: Final = 10
"""The rooms are in so many spaces in the space."""
ALL: Final = ROOMS + SPACES + 1
PAGE: Final = 50
REPEATS: Final = 10


def run() -> Sequence[Figure]:
    """Both servers, one after the other, and how many times as fast as Synapse Ranvier is."""
    synapse = asyncio.run(_measure("synapse", 18_131))
    ranvier = asyncio.run(_measure("ranvier", 18_132))
    return compare(synapse, ranvier, "ms", is_rate=False)


async def _measure(name: Name, port: int) -> dict[str, float]:
    use_other_cores()
    async with running(name, port) as peer:
        await asyncio.sleep(1)
        owner = peer.connect(await peer.register("owner"))
        top = await _make_tree(owner)
        await peer.settle()
        figures = {}
        for who, user in (("a member", owner), ("a stranger", peer.connect(await peer.register("stranger")))):
            figures[f"{who}: {ALL} rooms page by page, the first time"] = await _walk(user, top)
            pages = [(await _page(user, top, ""))[0] for _ in range(REPEATS)]
            figures[f"{who}: a page of {PAGE}"] = sum(pages) / REPEATS
            walks = [await _walk(user, top) for _ in range(REPEATS)]
            figures[f"{who}: {ALL} rooms page by page"] = sum(walks) / REPEATS
        return figures


async def _make_tree(owner: Connection) -> str:
    """A space with spaces with rooms, all public; the topmost space."""
    top = await _make_room(owner, "Everything", "m.space")
    for number in range(SPACES):
        space = await _make_room(owner, f"Space {number}", "m.space")
        await _adopt(owner, top, space)
        for child in range(ROOMS // SPACES):
            await _adopt(owner, space, await _make_room(owner, f"Room {number}.{child}", None))
    return top


async def _make_room(owner: Connection, name: str, room_type: str | None) -> str:
    # Else rooms made in one millisecond would be the same one: their ids are hashes.
    creation: dict[str, Any] = {"bench.number": str(time.monotonic_ns())}
    body = {
        "preset": "public_chat",
        "name": name,
        "topic": f"About {name}",
        "creation_content": creation | ({"type": room_type} if room_type else {}),
    }
    return str((await owner.call("POST", "/_matrix/client/v3/createRoom", body))["room_id"])


async def _adopt(owner: Connection, space: str, child: str) -> None:
    path = f"/_matrix/client/v3/rooms/{quote(space, safe='')}/state/m.space.child/{quote(child, safe='')}"
    await owner.call("PUT", path, {"via": ["bench"]})


async def _page(user: Connection, top: str, begin: str) -> tuple[float, dict[str, Any]]:
    """How many ms it took, and the page. Synapse answers a user only some five times a second: the time in which it
    does not is not counted.
    """
    rest = f"&from={quote(begin)}" if begin else ""
    path = f"/_matrix/client/v1/rooms/{quote(top, safe='')}/hierarchy?limit={PAGE}{rest}"
    while True:
        started = time.perf_counter()
        status, body = await user.request("GET", path)
        if status == 200:
            return (time.perf_counter() - started) * 1000, orjson.loads(body)
        assert status == 429, body
        await asyncio.sleep(orjson.loads(body)["retry_after_ms"] / 1000)


async def _walk(user: Connection, top: str) -> float:
    """How many ms all pages together took."""
    found, took, begin = 0, 0.0, ""
    while True:
        page_took, page = await _page(user, top, begin)
        took += page_took
        found += len(page["rooms"])
        begin = page.get("next_batch", "")
        if not begin:
            assert found == ALL, found
            return took
