"""Servers that come into a room while others speak hear what was said, though nobody says anything afterwards."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pytest

from ranvier.io.ports import HttpRequest, HttpResponse
from ranvier.services.federation.outbound import Outbound
from ranvier.services.flows.remote_joining import RoomStore

from ..http.homeserver import Homeserver, User
from .network import Network
from .peer import Peer
from .test_handshakes import hand_in, make, sign
from .test_outbound import Three, sent, three
from .test_receiving import set_scene
from .test_rooms import act, becomes, create_room, join, reads, say, until

__all__ = ["three"]  # a fixture


class Listener(Peer):
    """It takes whatever it is sent."""

    def __init__(self, network: Network, name: str = "peer") -> None:
        super().__init__(network, name)
        self.heard: list[dict[str, Any]] = []

    def _answer(self, path: Sequence[str], query: Mapping[str, list[str]], body: bytes) -> Any:
        if path[:2] == ["v1", "send"]:
            self.heard += orjson.loads(body).get("pdus", [])
            return {"pdus": {}}
        return super()._answer(path, query, body)

    async def hears(self, what: str) -> dict[str, Any]:
        """The event that it is told, which has a text or an id in it."""

        async def find() -> list[dict[str, Any]]:
            return [pdu for pdu in self.heard if what in orjson.dumps(pdu).decode()]

        found: list[dict[str, Any]] = await until(find, f"{self.name} hears {what}")
        return found[0]


@pytest.fixture
async def one(network: Network) -> Homeserver:
    return await network.server("one")


@pytest.fixture
async def alice(one: Homeserver) -> User:
    return await one.register("alice")


@pytest.mark.parametrize("visibility", ["shared", "joined"])
async def test_what_is_said_beside_a_join(
    network: Network, one: Homeserver, alice: User, visibility: str
) -> None:
    """Between the offer and the join alice speaks: nobody else would tell the server that comes. Where it may not read
    that, it gets what a redaction leaves: the room's state follows from that as well."""
    initial = [{"type": "m.room.history_visibility", "content": {"history_visibility": visibility}}]
    room_id = await create_room(alice, "12", preset="public_chat", initial_state=initial)
    peer = Listener(network)
    joining = sign(peer, await make(peer, one, room_id, peer.user("bob")))
    await say(alice, room_id, "meanwhile")
    assert (await hand_in(peer, one, joining)).status == 200

    pdu = await peer.hears("m.room.message")
    assert pdu["type"] == "m.room.message"
    assert pdu["content"] == ({"body": "meanwhile", "msgtype": "m.text"} if visibility == "shared" else {})


async def test_what_is_said_beside_a_join_is_made_up_for(
    network: Network, one: Homeserver, alice: User
) -> None:
    """The server that comes cannot be reached then, and the one that is to tell it ends."""
    room_id = await create_room(alice, "12", preset="public_chat")
    peer = Listener(network)
    joining = sign(peer, await make(peer, one, room_id, peer.user("bob")))
    await say(alice, room_id, "meanwhile")
    network.cut("one", "peer")
    assert (await hand_in(peer, one, joining)).status == 200
    await network.stop("one")
    assert not peer.heard
    network.heal()
    network.clock.skip(3600)
    await network.server("one")

    await peer.hears("meanwhile")


async def test_two_who_come_beside_each_other(network: Network, one: Homeserver, alice: User) -> None:
    room_id = await create_room(alice, "12", preset="public_chat")
    peers = [Listener(network, "peer"), Listener(network, "other")]
    joins = [sign(peer, await make(peer, one, room_id, peer.user("bob"))) for peer in peers]
    for peer, joining in zip(peers, joins, strict=True):
        assert (await hand_in(peer, one, joining)).status == 200
    await peers[0].hears(peers[1].user("bob"))
    await peers[1].hears(peers[0].user("bob"))


async def test_what_comes_while_a_server_enters(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others know of a join before the server that joins has the room: what they send by then is not lost."""
    scene = await set_scene(network)
    two = await network.server("two")
    cid = await two.register("cid")
    is_entering, may_enter, enter = asyncio.Event(), asyncio.Event(), RoomStore.enter

    async def enter_late(self: RoomStore, *args: Any) -> None:
        is_entering.set()
        await may_enter.wait()
        await enter(self, *args)

    monkeypatch.setattr(RoomStore, "enter", enter_late)
    joining = asyncio.create_task(join(cid, scene.room.room_id))
    await is_entering.wait()
    early = scene.peer.message(scene.room, scene.bob, "early", scene.last)
    answer = await scene.peer.send(two, [early])
    assert answer.json == {"pdus": {}}
    may_enter.set()
    assert (await joining).status == 200
    await reads(cid, scene.room.room_id, "early")


async def test_who_left_since_hears_of_what_was_said_before(three: Three) -> None:
    """What is read to be sent may be older than the room's state by then; nothing but the state at the event counts,
    also where nothing is remembered of the room."""
    alice, bob, _ = three.users
    db = three.servers[0].foundation.ports.db
    await three.all_read()
    before = db.position()
    await say(alice, three.room_id, "farewell")
    upto = db.position()
    four = await three.network.server("four")
    dave = await four.register("dave")
    assert (await join(dave, three.room_id)).status == 200
    assert (await act(bob, three.room_id, "leave")).status == 200
    await becomes(alice, three.room_id, bob.user_id, "leave")
    (outbound,) = [one for one in three.servers[0].workers if isinstance(one, Outbound)]
    cold = Outbound(outbound._wires, outbound._interner, outbound._passing, "cold-")
    pulled = await db.read(cold._read, before, upto, set(), set())
    (farewell,) = [one for one in pulled.events if b"farewell" in one.pdu]
    assert {pulled.names[nid] for nid in farewell.server_nids} == {"two.test", "three.test"}


async def test_an_event_that_is_refused_is_not_sent_again(three: Three) -> None:
    """A server that answers for one event that it does not take has taken the transaction."""
    alice, bob, _ = three.users
    refused: list[str] = []

    def refuse(request: HttpRequest) -> HttpResponse | None:
        if "/v1/send/" not in request.url or b"unwanted" not in (request.body or b"") or refused:
            return None
        refused.append(request.url)
        event_id = "$unwanted"
        return HttpResponse(200, {}, orjson.dumps({"pdus": {event_id: {"error": "I do not like this."}}}))

    three.network.before["two.test"] = refuse
    await say(alice, three.room_id, "unwanted")
    await until(lambda: _is(bool(refused)), "the refusal")
    await say(alice, three.room_id, "next")
    await reads(bob, three.room_id, "next")
    told = [one for one in sent(three.network, "one", "two") if "unwanted" in str(one["pdus"])]
    assert len(told) == 1
    assert "next" not in str(told), "it comes in a transaction of its own"
    # It is part of what the next event follows, and asked for with that.
    await reads(bob, three.room_id, "unwanted")


async def _is(value: bool) -> bool:
    return value
