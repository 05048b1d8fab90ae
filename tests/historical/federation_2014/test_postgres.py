"""The same on PostgreSQL: each statement of the protocol's tables runs there."""

import asyncio
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import psycopg
import pytest

from ranvier.app.config import DatabaseConfig
from ranvier.io.ports import HttpRequest, HttpResponse

from ...http.homeserver import eventually
from ...store.conftest import postgres_server  # noqa: F401 - a fixture
from .network import OLD, Peers, historical, pdu, state, transaction
from .test_bridge import join, meet, members, reads, say, set_topic, texts, topic


@pytest.fixture
def databases(postgres_server: str) -> Iterator[list[DatabaseConfig]]:  # noqa: F811
    names = [f"bridge_{secrets.token_hex(6)}" for _ in range(2)]
    with psycopg.connect(postgres_server, autocommit=True) as conn:
        for name in names:
            conn.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
        yield [
            DatabaseConfig(url=urlsplit(postgres_server)._replace(path=f"/{name}").geturl()) for name in names
        ]
        for name in names:
            conn.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def test_two_servers_on_postgresql(databases: list[DatabaseConfig], peers: Peers) -> None:
    one = await peers.server("one", historical=historical("two"), database=databases[0])
    two = await peers.server("two", historical=historical("one", "green"), database=databases[1])
    ann, bob, room_id = await meet(one, two)
    await say(ann, room_id, "hello")
    await reads(bob, room_id, "hello")
    await bob.put(
        f"/_matrix/client/v3/rooms/{room_id}/typing/{bob.user_id}", {"typing": True, "timeout": 30000}
    )
    await set_topic(ann, room_id, "common")

    async def has_topic() -> bool:
        return await topic(bob, room_id) == "common"

    await eventually(has_topic)
    await bob.post(f"/_matrix/client/v3/rooms/{room_id}/leave", {})

    async def is_alone() -> bool:
        return await members(ann, room_id) == {ann.user_id}

    await eventually(is_alone)
    for number in range(30):
        await say(ann, room_id, f"m{number}")
    await join(bob, "#room:one.test")
    assert (await texts(bob, room_id))[-30:] == [f"m{number}" for number in range(30)]
    await peers.stop("two")
    await say(ann, room_id, "last")
    await peers.server("two")
    await reads(await (await _restarted(peers)).login("bob"), room_id, "last")
    sent = transaction(pdu("a1"), state("s1", prev=[["green.test", "a1"]], depth=1), prev_ids=["x"])
    server = await _restarted(peers)
    for _ in range(2):
        answer = await server.client.put(f"{OLD}/send/t/", sent)
        assert answer.json == {"pdus": {"a1@green.test": {}, "s1@green.test": {}}}
    for path in ("context/%23example.green/", "backfill/%23example.green/?v=s1,green.test&limit=9"):
        answer = await server.client.request("GET", f"{OLD}/{path}")
        assert {one["pdu_id"] for one in answer.json["pdus"]} == {"a1", "s1"}
    answer = await server.client.request("GET", f"{OLD}/pull/?origin=one.test&v=x")
    assert answer.json["pdus"]


class OneAtATime:
    """Sees to it that a transaction takes long, and counts how many are under way to a server."""

    def __init__(self, peers: Peers) -> None:
        self._pass_on = peers.pass_on
        self.under_way = self.most = 0
        self.askers: set[str] = set()
        peers.pass_on = self  # type: ignore[method-assign]

    async def __call__(self, asker: str, request: HttpRequest) -> HttpResponse:
        if "/send/" not in request.url:
            return await self._pass_on(asker, request)
        self.askers.add(asker)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await asyncio.sleep(0.05)
            return await self._pass_on(asker, request)
        finally:
            self.under_way -= 1


async def test_two_processes_of_one_server_send_in_turn(
    databases: list[DatabaseConfig], peers: Peers, tmp_path: Path
) -> None:
    """Each PDU goes out once, in one transaction at a time; what one process does not bring out, the other one does."""
    first = await peers.server("one", historical=historical("two"), database=databases[0])
    two = await peers.server("two", historical=historical("one"), database=databases[1])
    (tmp_path / "spare").mkdir()
    shutil.copy(tmp_path / "one" / "signing.key", tmp_path / "spare" / "signing.key")
    second = await peers.server(
        "spare", server_name="one.test", historical=historical("two"), database=databases[0]
    )
    ann, bob, room_id = await meet(first, two)
    session = {"access_token": ann.token, "user_id": ann.user_id, "device_id": ann.device_id}
    ann_there = second.user(session)
    line = OneAtATime(peers)
    for number in range(20):
        await say((ann, ann_there)[number % 2], room_id, f"m{number}")
    await reads(bob, room_id, "m19")
    assert [text for text in await texts(bob, room_id) if text.startswith("m")] == [
        f"m{n}" for n in range(20)
    ]
    assert line.most == 1
    sent = [
        pdu["pdu_id"]
        for asker, request in peers.log
        if "/send/" in request.url and asker in ("one.test", "spare.test")
        for pdu in orjson.loads(request.body or b"{}")["pdus"]
    ]
    assert len(sent) == len(set(sent))


async def _restarted(peers: Peers):  # type: ignore[no-untyped-def]  # the server of that name
    return peers._servers["two.test"]
