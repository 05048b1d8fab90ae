"""One homeserver that is two processes on one PostgreSQL: what it sends goes out once, and what it gets comes in
once, whichever process it goes through."""

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from ranvier.app.config import DatabaseConfig
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import RoomID, ServerName
from ranvier.services.federation.leases import LEASE_MS, Holding, Leases
from ranvier.services.federation.outbound import Outbound
from ranvier.store.connect import open_database
from ranvier.store.tables import destination_leases, rooms
from ranvier.store.tables.interned import Interner, find_server_nids, intern_servers

from ..http.client import segment
from ..http.homeserver import Homeserver, User, eventually
from ..store.conftest import PostgresDatabase
from .network import FEDERATION_APIS, Network, SkippingClock
from .peer import Peer
from .test_handshakes import hand_in, make, sign
from .test_rooms import create_room, join, reads, say, texts, until


class Pair:
    """Two processes of one.test; the network knows the second one as spare.test when it asks."""

    def __init__(self, network: Network, first: Homeserver, second: Homeserver, alice: User) -> None:
        self.network, self.first, self.second = network, first, second
        self.alice = alice
        session = {"access_token": alice.token, "user_id": alice.user_id, "device_id": alice.device_id}
        self.alice_there = second.user(session)

    def sent_events(self) -> list[tuple[str, bytes]]:
        """Which process sent which event."""
        return [
            (asker, orjson.dumps(pdu))
            for asker, request in self.network.log
            if asker in ("one.test", "spare.test") and "/send/" in request.url
            for pdu in orjson.loads(request.body or b"{}")["pdus"]
        ]


@pytest.fixture
async def pair(network: Network, tmp_path: Path, postgres_database: PostgresDatabase) -> AsyncIterator[Pair]:
    config = DatabaseConfig(url=postgres_database.url)
    first = await network.server("one", database=config)
    (tmp_path / "spare").mkdir()
    shutil.copy(tmp_path / "one" / "signing.key", tmp_path / "spare" / "signing.key")
    second = await network.server("spare", server_name="one.test", database=config)
    yield Pair(network, first, second, await first.register("alice"))
    await network.close()
    postgres_database.reset()


async def test_everything_goes_out_once(pair: Pair, network: Network) -> None:
    """Through the process that holds the lease; when that ends, through the other."""
    bob = await (await network.server("two")).register("bob")
    room_id = await create_room(pair.alice, "12", preset="public_chat")
    assert (await join(bob, room_id)).status == 200
    network.log.clear()
    for count in range(10):
        user = (pair.alice, pair.alice_there)[count % 2]
        await say(user, room_id, f"m{count}")
    await reads(bob, room_id, "m9")
    assert await texts(bob, room_id) == [f"m{count}" for count in range(10)]
    sent = pair.sent_events()
    assert len(sent) == len({pdu for _, pdu in sent}) == 10
    (sender,) = {asker for asker, _ in sent}
    # The process that sends ends, and gives its leases back.
    await network.stop(sender.removesuffix(".test"))
    if sender == "one.test":
        network.add("one.test", pair.second.app(FEDERATION_APIS))
    left = pair.alice_there if sender == "one.test" else pair.alice
    await say(left, room_id, "and on")
    network.clock.skip(61)
    await reads(bob, room_id, "and on")


async def test_a_dead_process_is_succeeded(pair: Pair, network: Network) -> None:
    bob = await (await network.server("two")).register("bob")
    room_id = await create_room(pair.alice, "12", preset="public_chat")
    assert (await join(bob, room_id)).status == 200
    db, interner = pair.first.foundation.ports.db, pair.first.foundation.interner
    senders = [
        worker for one in (pair.first, pair.second) for worker in one.workers if isinstance(worker, Outbound)
    ]
    assert len(senders) == 2
    two = ServerName("two.test")
    nid = (await db.read(find_server_nids, interner, (two,)))[two]

    async def dies_with_the_lease() -> bool:
        now_ms = network.clock.now_ms()
        lease = await db.write(destination_leases.take_lease, nid, "dead", now_ms, now_ms + 100_000)
        if not lease.is_own:  # something is being sent to two.test: that lease ends first
            network.clock.skip(200)
        return lease.is_own

    async def nothing_is_on_its_way() -> bool:
        return not any(process.count().sending for process in senders)

    await eventually(dies_with_the_lease)
    # Time was made to leap: what was begun before that has its lease for longer than it has.
    await eventually(nothing_is_on_its_way)
    await say(pair.alice, room_id, "unsent")
    # Nothing tells that it never comes; that it has not come after a few turns is what can be seen.
    for _ in range(20):
        await asyncio.sleep(0.01)
        assert await texts(bob, room_id) == []
    network.clock.skip(200)
    await reads(bob, room_id, "unsent")
    # Who takes a lease over may send what was sent before, the join for one.
    assert len([pdu for _, pdu in pair.sent_events() if b"unsent" in pdu]) == 1


async def test_both_receive_for_one_room(pair: Pair, network: Network) -> None:
    """The same events and different ones at once, of a room that changes meanwhile."""
    peer = Peer(network)
    room_id = await create_room(pair.alice, "12", preset="public_chat")
    joined = sign(peer, await make(peer, pair.first, room_id, peer.user("bob")))
    assert (await hand_in(peer, pair.first, joined)).status == 200
    room = await peer.copy(pair.first, room_id)
    last: Pdu = joined
    pdus: list[Pdu] = []
    for count in range(12):
        last = peer.message(room, peer.user("bob"), f"p{count}", last)
        pdus.append(last)
    apps = [server.app(FEDERATION_APIS) for server in (pair.first, pair.second)]

    async def send(app: Any, events: list[Pdu]) -> None:
        network.add("one.test", app)  # until the request is made, nobody else runs
        answer = await peer.send(pair.first, events)
        assert answer.status == 200, answer.body
        assert all(result == {} for result in answer.json["pdus"].values()), answer.json

    waiting = [send(app, pdus[start : start + 4]) for start in (0, 4, 8) for app in apps]
    saying = [say(user, room_id, f"own{user is pair.alice}") for user in (pair.alice, pair.alice_there)]
    await asyncio.gather(*waiting, *saying)

    async def all_there() -> bool:
        found = await texts(pair.alice, room_id)
        return {f"p{count}" for count in range(12)} | {"ownTrue", "ownFalse"} <= set(found)

    await until(all_there)
    found = await texts(pair.alice_there, room_id)
    assert len(found) == len(set(found)) == 14
    row = await pair.first.foundation.ports.db.read(rooms.find_room, RoomID(room_id))
    assert row is not None
    assert 1 <= len(row.extremities) <= 3
    path = f"/_matrix/client/v3/rooms/{segment(room_id)}/state/m.room.member/{segment(peer.user('bob'))}"
    assert (await pair.alice_there.get(path)).json["membership"] == "join"


@pytest.mark.parametrize("jump_s", [-86_400, 86_400])
async def test_leases_survive_a_clock_that_is_set(tmp_path: Path, jump_s: int) -> None:
    """One process sends at a time, also afterwards, and nobody waits for a lease of another day."""
    db, clock = await open_database(f"sqlite:{tmp_path / 'leases.db'}"), SkippingClock()
    try:
        interner = Interner(ServerName("one.test"))
        nids = await db.write(intern_servers, interner, [ServerName(f"{n}.test") for n in range(2)])
        alive, dead = nids.values()
        first, second, gone = (Leases(db, clock, owner, is_shared=True) for owner in ("a", "b", "c"))
        assert await first.hold(alive) is Holding.NEW
        assert await gone.hold(dead) is Holding.NEW
        assert [await second.hold(nid) for nid in (alive, dead)] == [Holding.LOST] * 2
        clock.jump(jump_s)
        assert await first.hold(alive) is Holding.OWN, "the one that sends goes on"
        assert await second.hold(alive) is Holding.LOST
        assert await second.hold(dead) is Holding.NEW, "what a dead process held is free"
        assert await first.list_others() == {dead}
        clock.skip(LEASE_MS / 1000 + 1)
        assert await second.hold(alive) is Holding.NEW
        assert await first.hold(alive) is Holding.LOST
    finally:
        await db.close()
