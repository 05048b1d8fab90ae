"""What other servers may ask of our rooms, and what they are not told."""

from typing import Any
from urllib.parse import quote

import pytest

from ..http.client import segment
from .network import Network
from .peer import Peer
from .test_receiving import Scene, set_scene

V1 = "/_matrix/federation/v1"


class Asking(Scene):
    """Questions of the peer."""

    async def ask(self, path: str, *, peer: Peer | None = None, **query: Any) -> Any:
        text = "&".join(f"{key}={quote(str(value))}" for key, value in query.items())
        return await (peer or self.peer).request(
            self.server, "GET", f"{V1}/{path}" + (f"?{text}" if text else "")
        )

    async def missing(self, earliest: list[str], latest: list[str], limit: int = 10) -> Any:
        body = b'{"earliest_events":%b,"latest_events":%b,"limit":%d,"min_depth":0}' % (
            repr(earliest).replace("'", '"').encode(),
            repr(latest).replace("'", '"').encode(),
            limit,
        )
        path = f"{V1}/get_missing_events/{segment(self.room.room_id)}"
        return await self.peer.request(self.server, "POST", path, body)

    async def set_state(self, type_: str, content: dict[str, Any]) -> str:
        path = f"/_matrix/client/v3/rooms/{segment(self.room.room_id)}/state/{type_}/"
        answer = await self.alice.put(path, content)
        assert answer.status == 200, answer.body
        return answer.json["event_id"]


@pytest.fixture
async def scene(network: Network) -> Asking:
    plain = await set_scene(network)
    return Asking(plain.network, plain.peer, plain.server, plain.alice, plain.room, plain.bob)


async def test_event(scene: Asking) -> None:
    event_id = await scene.say("hello")
    answer = (await scene.ask(f"event/{segment(event_id)}")).json
    assert answer["origin"] == "one.test"
    assert [pdu["content"]["body"] for pdu in answer["pdus"]] == ["hello"]
    assert (await scene.ask("event/%24nothing")).errcode == "M_NOT_FOUND"
    assert (await scene.ask(f"event/{segment(event_id)}", peer=Peer(scene.network, "stranger"))).status == 404


async def test_state_is_that_before_the_event(scene: Asking) -> None:
    before = await scene.say("before")
    await scene.set_state("m.room.name", {"name": "Named"})
    after = await scene.say("after")
    room = segment(scene.room.room_id)
    states = {
        event_id: (await scene.ask(f"state/{room}", event_id=event_id)).json for event_id in (before, after)
    }
    types = {event_id: {pdu["type"] for pdu in state["pdus"]} for event_id, state in states.items()}
    assert types[after] - types[before] == {"m.room.name"}
    assert {pdu["type"] for pdu in states[after]["auth_chain"]} >= {"m.room.member", "m.room.power_levels"}
    ids = (await scene.ask(f"state_ids/{room}", event_id=after)).json
    assert len(ids["pdu_ids"]) == len(states[after]["pdus"])
    assert len(ids["auth_chain_ids"]) == len(states[after]["auth_chain"])


async def test_event_auth(scene: Asking) -> None:
    event_id = await scene.say("hello")
    answer = (await scene.ask(f"event_auth/{segment(scene.room.room_id)}/{segment(event_id)}")).json
    assert {pdu["type"] for pdu in answer["auth_chain"]} == {"m.room.member", "m.room.power_levels"}


async def test_backfill_and_missing_events(scene: Asking) -> None:
    ids = [await scene.say(f"m{number}") for number in range(6)]
    room = segment(scene.room.room_id)
    filled = (await scene.ask(f"backfill/{room}", v=ids[4], limit=3)).json["pdus"]
    assert [pdu["content"]["body"] for pdu in filled] == ["m4", "m3", "m2"]
    found = (await scene.missing([ids[1]], [ids[5]])).json["events"]
    assert [pdu["content"]["body"] for pdu in found] == ["m2", "m3", "m4"]
    few = (await scene.missing([], [ids[5]], limit=2)).json["events"]
    assert [pdu["content"]["body"] for pdu in few] == ["m3", "m4"]
    assert (await scene.ask(f"backfill/{room}", limit=3)).errcode == "M_MISSING_PARAM"
    everything = (await scene.ask(f"backfill/{room}", v=ids[5], limit=1000)).json["pdus"]
    assert everything[-1]["type"] == "m.room.create"


async def test_timestamp_to_event(scene: Asking) -> None:
    event_id = await scene.say("hello")
    room = segment(scene.room.room_id)
    found = await scene.ask(f"timestamp_to_event/{room}", ts=2**50, dir="b")
    assert found.json["event_id"] == event_id
    assert (await scene.ask(f"timestamp_to_event/{room}", ts=2**50, dir="f")).errcode == "M_NOT_FOUND"
    assert (await scene.ask(f"timestamp_to_event/{room}", ts=1, dir="x")).errcode == "M_INVALID_PARAM"


async def test_servers_outside_learn_nothing(scene: Asking) -> None:
    """The answer is the same for a room that there is, and for one that there is not."""
    event_id = await scene.say("hello")
    stranger = Peer(scene.network, "stranger")
    for room in (segment(scene.room.room_id), segment("!" + "a" * 43)):
        answers = [
            await scene.ask(f"state/{room}", peer=stranger, event_id=event_id),
            await scene.ask(f"state_ids/{room}", peer=stranger, event_id=event_id),
            await scene.ask(f"event_auth/{room}/{segment(event_id)}", peer=stranger),
            await scene.ask(f"backfill/{room}", peer=stranger, v=event_id, limit=3),
            await scene.ask(f"timestamp_to_event/{room}", peer=stranger, ts=1, dir="f"),
        ]
        assert {answer.body for answer in answers} == {
            b'{"errcode":"M_FORBIDDEN","error":"Your server is not in this room."}'
        }


async def test_access_control_list(scene: Asking) -> None:
    event_id = await scene.say("hello")
    await scene.set_state("m.room.server_acl", {"allow": ["*"], "deny": ["peer.test"]})
    room = segment(scene.room.room_id)
    for answer in (
        await scene.ask(f"state/{room}", event_id=event_id),
        await scene.ask(f"backfill/{room}", v=event_id, limit=3),
        await scene.missing([], [event_id]),
        await scene.ask(f"make_join/{room}/{segment(scene.bob)}", ver="12"),
    ):
        assert answer.errcode == "M_FORBIDDEN"


async def test_history_from_before_a_server_joined_comes_redacted(network: Network) -> None:
    """With `joined`, a server may have what was said while one of its users was there, and no more."""
    server = await network.server("one")
    alice = await server.register("alice")
    visibility = {"type": "m.room.history_visibility", "content": {"history_visibility": "joined"}}
    answer = await alice.post(
        "/_matrix/client/v3/createRoom", {"preset": "public_chat", "initial_state": [visibility]}
    )
    room_id = answer.json["room_id"]
    path = f"/_matrix/client/v3/rooms/{segment(room_id)}/send/m.room.message/1"
    secret = (await alice.put(path, {"msgtype": "m.text", "body": "secret"})).json["event_id"]
    peer = Peer(network)
    room = await peer.copy(server, room_id)
    bob = peer.user("bob")
    scene = Asking(network, peer, server, alice, room, bob)
    joined = peer.join(room, "bob", scene.last)
    assert await scene.send(joined) == {joined.event_id: {}}
    open_id = await scene.say("for all")
    pdus = (await scene.ask(f"backfill/{segment(room_id)}", v=open_id, limit=3)).json["pdus"]
    contents = [pdu["content"] for pdu in pdus if pdu["type"] == "m.room.message"]
    assert contents == [{"msgtype": "m.text", "body": "for all"}, {}]
    hidden = (await scene.ask(f"event/{segment(secret)}")).json["pdus"][0]
    assert hidden["content"] == {}
    assert (await scene.ask(f"event/{segment(open_id)}")).json["pdus"][0]["content"]["body"] == "for all"


async def test_redacted_events_go_out_redacted(scene: Asking) -> None:
    event_id = await scene.say("regretted")
    path = f"/_matrix/client/v3/rooms/{segment(scene.room.room_id)}/redact/{segment(event_id)}/1"
    assert (await scene.alice.put(path, {})).status == 200
    answer = (await scene.ask(f"event/{segment(event_id)}")).json
    assert answer["pdus"][0]["content"] == {}
