"""Sliding sync beside Synapse, in one run: the first window of 20 rooms, what follows, and polls in which nothing
happened, for accounts in ever more rooms.

Each server runs alone on one core with its database on disk; the load runs on another core. Both are asked in the
form of 2024, as Element X asks.
"""

import asyncio
import os
import time
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote

from bench.figure import Figure, compare
from bench.peers import Name, Peer, running, use_other_cores
from bench.wire import Connection

SIZES: Final = tuple(int(size) for size in os.environ.get("BENCH_SLIDING_ROOMS", "100,1000").split(","))
"""Rooms of an account."""
REPEATS: Final = 20
CREATORS: Final = 8

_SYNC: Final = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
_STATE: Final = (
    *(("m.room.name", ""), ("m.room.encryption", ""), ("m.room.member", "$LAZY"), ("m.room.member", "$ME")),
    *(
        ("m.room.topic", ""),
        ("m.room.canonical_alias", ""),
        ("m.room.power_levels", ""),
        ("m.room.create", ""),
    ),
)
_EXTENSIONS: Final = {
    name: {"enabled": True} for name in ("to_device", "e2ee", "account_data", "receipts", "typing")
}


def run() -> Sequence[Figure]:
    """Both servers, one after the other, and how many times as fast as Synapse Ranvier is."""
    synapse = asyncio.run(measure("synapse", 18_111))
    ranvier = asyncio.run(measure("ranvier", 18_112))
    return compare(synapse, ranvier, "ms", is_rate=False)


async def measure(name: Name, port: int) -> dict[str, float]:
    """The mean milliseconds of each kind of request."""
    use_other_cores()
    async with running(name, port) as peer:
        await asyncio.sleep(1)
        figures: dict[str, float] = {}
        for size in SIZES:
            user = peer.connect(await peer.register(f"user{size}"))
            rooms = await _enter_rooms(peer, user, size)
            figures |= await _ask(user, rooms, f"{size:,} rooms, ")
        return figures


async def _enter_rooms(peer: Peer, user: Connection, count: int) -> list[str]:
    rooms: list[str] = []

    async def creator(share: int) -> None:
        connection = peer.connect(user.token)
        for number in range(share):
            # Else rooms made in one millisecond would be the same one: their ids are hashes.
            unlike = {"bench.number": f"{share} {number} {time.monotonic_ns()}"}
            body = {"preset": "private_chat", "name": f"Room {number}", "creation_content": unlike}
            answer = await connection.call("POST", "/_matrix/client/v3/createRoom", body)
            rooms.append(str(answer["room_id"]))
            await _say(connection, rooms[-1], "hello")
        connection.close()

    shares = [count // CREATORS + (number < count % CREATORS) for number in range(CREATORS)]
    await asyncio.gather(*[creator(share) for share in shares])
    return rooms


async def _say(user: Connection, room: str, text: str) -> None:
    path = f"/_matrix/client/v3/rooms/{quote(room, safe='')}/send/m.room.message/{time.monotonic_ns()}"
    await user.call("PUT", path, {"msgtype": "m.text", "body": text})


async def _ask(user: Connection, rooms: Sequence[str], prefix: str) -> dict[str, float]:
    figures = {}
    window = _body(19, 1)
    started = time.perf_counter()
    told = await user.call("POST", _SYNC, window | {"conn_id": "cold"})
    figures[f"{prefix}first window of 20, cold"] = _ms(started)
    assert len(told["rooms"]) == 20, "the newest 20 rooms"
    started = time.perf_counter()
    for number in range(REPEATS):
        told = await user.call("POST", _SYNC, window | {"conn_id": f"c{number % 4}"})
    figures[f"{prefix}first window of 20"] = _ms(started) / REPEATS
    started = time.perf_counter()
    for _ in range(REPEATS):
        told = await user.call(
            "POST", f"{_SYNC}?timeout=0&pos={quote(told['pos'])}", window | {"conn_id": "c3"}
        )
    figures[f"{prefix}nothing new"] = _ms(started) / REPEATS
    elapsed = 0.0
    for number in range(REPEATS):
        room = rooms[number * 7 % len(rooms)]
        await _say(user, room, f"news {number}")
        started = time.perf_counter()
        told = await user.call(
            "POST", f"{_SYNC}?timeout=0&pos={quote(told['pos'])}", window | {"conn_id": "c3"}
        )
        elapsed += _ms(started)
        assert room in told["rooms"]
    figures[f"{prefix}one message"] = elapsed / REPEATS
    started = time.perf_counter()
    await user.call(
        "POST", f"{_SYNC}?timeout=0&pos={quote(told['pos'])}", _body(len(rooms) - 1, 1) | {"conn_id": "c3"}
    )
    figures[f"{prefix}all rooms"] = _ms(started)
    return figures


def _body(last: int, limit: int) -> dict[str, Any]:
    config = {
        "ranges": [[0, last]],
        "timeline_limit": limit,
        "required_state": [list(pair) for pair in _STATE],
    }
    filters = {"not_room_types": ["m.space"]}
    return {"lists": {"all_rooms": config | {"filters": filters}}, "extensions": _EXTENSIONS}


def _ms(started: float) -> float:
    return (time.perf_counter() - started) * 1000
