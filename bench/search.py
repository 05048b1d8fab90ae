"""Searches among 1,000,000 messages and 100,000 users, on SQLite and PostgreSQL: a request's time, HTTP included.

Half of the messages are in 5 rooms, half in 1,000. One account is in the 5, the other one in all.
"""

import asyncio
import os
import secrets
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import psycopg

from bench.figure import Figure
from bench.filling import RARE, fill_messages, fill_users, opened
from bench.peers import Peer, running_ranvier, use_other_cores
from bench.wire import Connection

ON_DEMAND: Final = True
MESSAGES: Final = int(os.environ.get("BENCH_SEARCH_MESSAGES", "1000000"))
USERS: Final = int(os.environ.get("BENCH_SEARCH_USERS", "100000"))
LARGE_ROOMS: Final = 5
SMALL_ROOMS: Final = 1_000
REPEATS: Final = 15
PORT: Final = 18_121

TERMS: Final = {
    "a rare word": RARE,
    "a common word": "alpha",
    "two common words": "alpha beta",
    "a common word and a rarer one": "alpha gamma",
    "words never said together": f"alpha {RARE} nobody",
    "an unknown word": "nobody",
}
NAMES: Final = {"one letter": "a", "a beginning": "anbe", "a name and a beginning": "anbecar do"}


def run() -> Iterator[Figure]:
    engines = ["sqlite", *(["postgresql"] if "RANVIER_TEST_POSTGRES" in os.environ else [])]
    wanted = os.environ.get("BENCH_SEARCH_ENGINES", ",".join(engines)).split(",")
    for engine in engines:
        if engine in wanted:
            yield from asyncio.run(_measure(engine))


async def _measure(engine: str) -> Sequence[Figure]:
    use_other_cores()
    with (
        tempfile.TemporaryDirectory(prefix="bench-search-") as folder,
        _database(engine, Path(folder)) as url,
    ):
        async with running_ranvier(Path(folder), PORT, url) as peer:
            few, many = await peer.register("few"), await peer.register("many")
            rooms = await _make_rooms(peer, few, many)
            await asyncio.sleep(2)  # what follows the rooms has seen them
        begin = time.perf_counter()
        _fill(url if engine == "postgresql" else f"sqlite:{folder}/data/ranvier.db", rooms)
        figures = [Figure(f"{engine}: filling the database", time.perf_counter() - begin, "s")]
        async with running_ranvier(Path(folder), PORT, url) as peer:
            await peer.settle()
            for account, token in (
                (f"{LARGE_ROOMS} rooms", few),
                (f"{LARGE_ROOMS + SMALL_ROOMS} rooms", many),
            ):
                for name, (path, body) in _requests().items():
                    label = f"{engine}: {name}, account in {account}"
                    figures += await _time(label, peer.connect(token), path, body)
        return figures


def _requests() -> dict[str, tuple[str, dict[str, Any]]]:
    searches = {
        f"{name}, {order}": (_SEARCH, _search(term, order))
        for name, term in TERMS.items()
        for order in ("recent", "rank")
    }
    return searches | {f"users by {name}": (_USERS, {"search_term": term}) for name, term in NAMES.items()}


_SEARCH: Final = "/_matrix/client/v3/search"
_USERS: Final = "/_matrix/client/v3/user_directory/search"


def _search(term: str, order: str) -> dict[str, Any]:
    events = {"search_term": term, "keys": ["content.body"], "order_by": order}
    context = {"before_limit": 1, "after_limit": 1, "include_profile": True}  # as Element asks
    return {"search_categories": {"room_events": events | {"event_context": context}}}


async def _time(name: str, user: Connection, path: str, body: dict[str, Any]) -> list[Figure]:
    took = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        await user.call("POST", path, body)
        took.append((time.perf_counter() - begin) * 1000)
    user.close()
    return [Figure(name, statistics.median(took), "ms"), Figure(f"{name}, the first time", took[0], "ms")]


async def _make_rooms(peer: Peer, few: str, many: str) -> list[tuple[str, int]]:
    """Rooms with how many messages each is to have."""
    owner, other = peer.connect(few), peer.connect(many)
    large = [await _make_room(owner, number) for number in range(LARGE_ROOMS)]
    for room in large:
        await other.call("POST", f"/_matrix/client/v3/join/{quote(room, safe='')}", {})
    small = [await _make_room(other, number) for number in range(SMALL_ROOMS)]
    half = MESSAGES // 2
    return [(room, half // LARGE_ROOMS) for room in large] + [(room, half // SMALL_ROOMS) for room in small]


async def _make_room(owner: Connection, number: int) -> str:
    unlike = {"bench.number": f"{number} {time.monotonic_ns()}"}
    body = {"preset": "public_chat", "name": f"Room {number}", "creation_content": unlike}
    room = str((await owner.call("POST", "/_matrix/client/v3/createRoom", body))["room_id"])
    path = f"/_matrix/client/v3/rooms/{quote(room, safe='')}/send/m.room.message/{time.monotonic_ns()}"
    await owner.call("PUT", path, {"msgtype": "m.text", "body": "hello"})
    return room


def _fill(url: str, rooms: Sequence[tuple[str, int]]) -> None:
    with opened(url) as target:
        fill_messages(target, rooms)
        fill_users(target, rooms[0][0], USERS)


@contextmanager
def _database(engine: str, folder: Path) -> Iterator[str]:
    """The URL of a new database, for the server's configuration."""
    if engine == "sqlite":
        yield "sqlite:ranvier.db"
        return
    server, name = os.environ["RANVIER_TEST_POSTGRES"], f"bench_{secrets.token_hex(4)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'".encode())
        try:
            yield urlsplit(server)._replace(path=f"/{name}").geturl()
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())
