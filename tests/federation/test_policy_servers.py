"""What users of this server send where the room has a policy server."""

import asyncio
from typing import Any

import orjson
import pytest

from ranvier.core.canonical_json import parse_object
from ranvier.core.identifiers import EventID
from ranvier.core.room_versions import RoomVersion, get_room_version
from ranvier.core.signing import SigningKey
from ranvier.store.tables import events

from ..http.client import Answer, segment
from ..http.homeserver import Homeserver, User
from .network import Network
from .peer import Peer
from .test_handshakes import hand_in, make, sign
from .test_rooms import create_room, membership


class Scene:
    """A room of alice's whose policy server is the peer."""

    def __init__(self, server: Homeserver, alice: User, peer: Peer, room_id: str) -> None:
        self.server, self.alice, self.peer, self.room_id = server, alice, peer, room_id

    async def say(self, text: str) -> Answer:
        path = f"/_matrix/client/v3/rooms/{segment(self.room_id)}/send/m.room.message/{segment(text)}"
        return await self.alice.put(path, {"msgtype": "m.text", "body": text})

    async def set_policy(self, content: dict[str, Any]) -> Answer:
        path = f"/_matrix/client/v3/rooms/{segment(self.room_id)}/state/m.room.policy/"
        return await self.alice.put(path, content)

    async def stored(self, event_id: str) -> Any:
        record = await self.server.foundation.ports.db.read(events.find_event, EventID(event_id))
        assert record is not None
        return orjson.loads(record.json)

    @property
    def asks(self) -> int:
        return sum(path.startswith("/_matrix/policy/") for _, path in self.peer.asked)


def policy(peer: Peer) -> dict[str, Any]:
    return {"via": peer.name, "public_keys": {"ed25519": peer.policy_key.verify_key.encode()}}


@pytest.fixture(params=["1", "12"])
async def scene(network: Network, request: pytest.FixtureRequest) -> Scene:
    server = await network.server("one")
    alice, peer = await server.register("alice"), Peer(network)
    room_id = await create_room(alice, request.param, preset="public_chat")
    version: RoomVersion = get_room_version(request.param)
    offer = await make(peer, server, room_id, peer.user("bob"), ver=f"?ver={request.param}")
    assert (await hand_in(peer, server, sign(peer, offer, version))).status == 200
    await peer.copy(server, room_id)
    scene = Scene(server, alice, peer, room_id)
    assert (await scene.set_policy(policy(peer))).status == 200
    assert scene.asks == 0, "the event that names a policy server is not for it to judge"
    return scene


async def test_events_carry_its_signature(scene: Scene) -> None:
    scene.peer.recommends = True
    answer = await scene.say("hello")
    assert answer.status == 200, answer.body
    stored = await scene.stored(answer.json["event_id"])
    assert set(stored["signatures"]) == {"one.test", "peer.test"}
    assert list(stored["signatures"]["peer.test"]) == ["ed25519:policy_server"]
    again = await scene.say("hello")
    assert (again.json, scene.asks) == (answer.json, 1), "the transaction has its event"


async def test_what_it_refuses_is_not_sent(scene: Scene) -> None:
    """The client is told in the words of the policy server."""
    scene.peer.refusal = {"errcode": "ORG.EXAMPLE_SPAM", "error": "That looks like spam"}
    answer = await scene.say("buy")
    assert (answer.status, answer.json) == (400, scene.peer.refusal)
    assert await membership(scene.alice, scene.room_id, scene.alice.user_id) == "join"
    path = f"/_matrix/client/v3/rooms/{segment(scene.room_id)}/messages"
    page = (await scene.alice.get(path, dir="b", limit=10)).json["chunk"]
    assert not [event for event in page if event["type"] == "m.room.message"]
    scene.peer.recommends = True
    assert (await scene.say("buy")).status == 200, "the transaction was not used up"


async def test_bad_answers_send_nothing(scene: Scene, network: Network) -> None:
    scene.peer.recommends = True
    key, scene.peer.policy_key = scene.peer.policy_key, SigningKey(b"x" * 32, "policy_server")
    assert (await scene.say("forged")).errcode == "M_FORBIDDEN"
    scene.peer.policy_key = key
    network.cut("one", "peer")
    assert (await scene.say("unreached")).status == 502
    assert (await scene.set_policy({})).status == 200, "it can be dismissed without asking it"
    assert (await scene.say("free")).status == 200


async def test_many_send_at_a_time(scene: Scene) -> None:
    scene.peer.recommends = True
    answers = await asyncio.gather(*(scene.say(f"m{count}") for count in range(15)))
    assert [answer.status for answer in answers] == [200] * 15


async def test_whoever_joins_gets_its_signature_through_us(scene: Scene, network: Network) -> None:
    two = await network.server("two")
    carol = await two.register("carol")
    path = f"/_matrix/client/v3/join/{segment(scene.room_id)}?via=one.test"
    scene.peer.refusal = {"errcode": "M_FORBIDDEN", "error": "no"}
    assert (await carol.post(path, {})).status == 403
    scene.peer.recommends = True
    assert (await carol.post(path, {})).status == 200
    answer = await carol.get(f"/_matrix/client/v3/rooms/{segment(scene.room_id)}/members")
    (own,) = [e for e in answer.json["chunk"] if e["state_key"] == carol.user_id]
    for server in (scene.server, two):
        record = await server.foundation.ports.db.read(events.find_event, EventID(own["event_id"]))
        assert record is not None
        assert "peer.test" in parse_object(record.json)["signatures"]
