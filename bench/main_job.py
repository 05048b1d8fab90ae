"""The main job beside Synapse, in one run: messages in, messages out, history, first and later syncs, joins.

Each server runs alone on one core with its database on disk; the load runs on another core.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final
from urllib.parse import quote

from bench.figure import Figure, compare
from bench.peers import Name, Peer, running, use_other_cores
from bench.wire import Connection

SECONDS: Final = 5.0
WAITING_CLIENTS: Final = 100
ROOMS: Final = 100
SYNCING_CLIENTS: Final = 4


def run() -> Sequence[Figure]:
    """Both servers, one after the other, and how many times Synapse Ranvier is."""
    synapse = asyncio.run(measure("synapse", 18_101))
    ranvier = asyncio.run(measure("ranvier", 18_102))
    return compare(synapse, ranvier, is_rate=True)


async def measure(name: Name, port: int) -> dict[str, float]:
    """Every figure of one server, in units a second unless its name says otherwise."""
    use_other_cores()
    async with running(name, port) as peer:
        await asyncio.sleep(1)
        figures = {"start to first answer, s": peer.started_s, "idle memory, MiB": peer.memory_mib()}
        alice = peer.connect(await peer.register("alice"))
        room = await _create_room(alice)
        for connections in (1, 16):
            figures[f"messages accepted, {connections} connections"] = await _send(
                peer, alice, room, connections
            )
        await peer.settle()
        figures["/messages pages of 100"] = await _pages(alice, room)
        await peer.settle()
        figures["deliveries to 100 waiting clients"] = await _deliveries(peer, alice)
        await peer.settle()
        figures["local joins"] = await _joins(peer, alice)
        bob = peer.connect(await peer.register("bob"))
        since = await _join_many_rooms(bob)
        await peer.settle()
        figures["initial syncs of 100 rooms"] = await _syncs(peer, bob, "")
        figures["empty incremental syncs"] = await _syncs(peer, bob, f"&since={since}")
        figures["memory afterwards, MiB"] = peer.memory_mib()
        return figures


async def _create_room(user: Connection, **options: Any) -> str:
    answer = await user.call("POST", "/_matrix/client/v3/createRoom", {"preset": "public_chat", **options})
    return str(answer["room_id"])


async def _rate(once: Callable[[], Awaitable[Any]], seconds: float = SECONDS) -> float:
    await once()
    count = 0
    started = time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        await once()
        count += 1
    return count / elapsed


async def _syncs(peer: Peer, user: Connection, since: str) -> float:
    """Syncs of one user over a few connections, so that the server and not the client is what is measured."""
    target = f"/_matrix/client/v3/sync?timeout=0{since}"
    stop_at = time.perf_counter() + SECONDS

    async def client() -> int:
        connection = peer.connect(user.token)
        count = 0
        while time.perf_counter() < stop_at:
            status, _ = await connection.request("GET", target)
            assert status == 200, target
            count += 1
        connection.close()
        return count

    return sum(await asyncio.gather(*[client() for _ in range(SYNCING_CLIENTS)])) / SECONDS


async def _send(peer: Peer, user: Connection, room: str, connections: int) -> float:
    """Messages of one user into one room over some connections at once."""
    stop_at = time.perf_counter() + SECONDS
    path = f"/_matrix/client/v3/rooms/{quote(room, safe='')}/send/m.room.message"

    async def sender(number: int) -> int:
        connection = peer.connect(user.token)
        count = 0
        while time.perf_counter() < stop_at:
            body = {"msgtype": "m.text", "body": f"message {count} of {number}"}
            await connection.call("PUT", f"{path}/{connections}-{number}-{count}", body)
            count += 1
        connection.close()
        return count

    return sum(await asyncio.gather(*[sender(number) for number in range(connections)])) / SECONDS


async def _pages(user: Connection, room: str) -> float:
    target = f"/_matrix/client/v3/rooms/{quote(room, safe='')}/messages?dir=b&limit=100"
    position = ""

    async def page() -> None:
        nonlocal position
        answer = await user.call("GET", target + (f"&from={quote(position)}" if position else ""))
        position = answer.get("end", "")

    return await _rate(page)


async def _deliveries(peer: Peer, sender: Connection) -> float:
    """Events that reach clients which all wait in /sync for one room."""
    room = await _create_room(sender)
    members = [peer.connect(await peer.register(f"waiting{number}")) for number in range(WAITING_CLIENTS)]
    for member in members:
        await member.call("POST", f"/_matrix/client/v3/join/{quote(room, safe='')}", {})
    stop_at = time.perf_counter() + 2 * SECONDS
    seen = 0

    async def wait(member: Connection) -> None:
        nonlocal seen
        answer = await member.call("GET", "/_matrix/client/v3/sync?timeout=0")
        while time.perf_counter() < stop_at:
            since = answer["next_batch"]
            answer = await member.call("GET", f"/_matrix/client/v3/sync?timeout=1000&since={quote(since)}")
            joined = answer.get("rooms", {}).get("join", {}).get(room, {})
            seen += len(joined.get("timeline", {}).get("events", ()))

    async def send() -> None:
        count = 0
        path = f"/_matrix/client/v3/rooms/{quote(room, safe='')}/send/m.room.message"
        while time.perf_counter() < stop_at - 0.5:
            await sender.call("PUT", f"{path}/d{count}", {"msgtype": "m.text", "body": "hello"})
            count += 1

    waiting = [asyncio.create_task(wait(member)) for member in members]
    await asyncio.sleep(1)
    seen = 0
    started = time.perf_counter()
    await send()
    elapsed = time.perf_counter() - started
    await asyncio.gather(*waiting)
    for member in members:
        member.close()
    return seen / elapsed


async def _joins(peer: Peer, owner: Connection) -> float:
    """One user joins rooms of another, one after the other."""
    joiner = peer.connect(await peer.register("joiner"))
    rooms = iter([await _create_room(owner) for _ in range(ROOMS)])
    started = time.perf_counter()
    for room in rooms:
        await joiner.call("POST", f"/_matrix/client/v3/join/{quote(room, safe='')}", {})
    return ROOMS / (time.perf_counter() - started)


async def _join_many_rooms(user: Connection) -> str:
    """Put the user into rooms with a few messages each; the position after that."""
    for _ in range(ROOMS):
        room = await _create_room(user)
        for number in range(5):
            target = f"/_matrix/client/v3/rooms/{quote(room, safe='')}/send/m.room.message/{number}"
            await user.call("PUT", target, {"msgtype": "m.text", "body": "hello"})
    answer = await user.call("GET", "/_matrix/client/v3/sync?timeout=0")
    await asyncio.sleep(1)  # the user's own presence is told a moment later
    answer = await user.call("GET", f"/_matrix/client/v3/sync?timeout=0&since={quote(answer['next_batch'])}")
    return str(answer["next_batch"])
