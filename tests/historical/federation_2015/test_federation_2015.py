"""`/event/{id}/` and `/backfill/{room}/` as a server of the end of 2015 asks for them, in rooms of today."""

from typing import Any

import pytest

from ...federation.network import Network
from ...federation.peer import Peer
from ...federation.test_receiving import set_scene
from ...federation.test_serving import Asking
from ...http.client import segment

KEYS = {"origin", "origin_server_ts", "pdus"}


@pytest.fixture
async def network(tmp_path: Any) -> Any:
    network = Network(tmp_path)
    yield network
    await network.close()


@pytest.fixture
async def scene(network: Network) -> Asking:
    plain = await set_scene(network)
    return Asking(plain.network, plain.peer, plain.server, plain.alice, plain.room, plain.bob)


@pytest.mark.parametrize("slash", ["", "/"])
async def test_an_event_comes_in_a_partial_transaction(scene: Asking, slash: str) -> None:
    event_id = await scene.say("hello")
    answer = (await scene.ask(f"event/{segment(event_id)}{slash}")).json
    assert answer.keys() == KEYS
    assert answer["origin"] == "one.test"
    assert type(answer["origin_server_ts"]) is int
    assert [pdu["content"]["body"] for pdu in answer["pdus"]] == ["hello"]


async def test_who_may_not_have_an_event_is_told_so(scene: Asking) -> None:
    event_id = await scene.say("hello")
    answer = await scene.ask("event/%24nothing/")
    assert (answer.status, answer.errcode) == (404, "M_NOT_FOUND")
    stranger = Peer(scene.network, "stranger")
    answer = await scene.ask(f"event/{segment(event_id)}/", peer=stranger)
    assert (answer.status, answer.errcode) == (403, "M_FORBIDDEN")
    path = f"backfill/{segment(scene.room.room_id)}/"
    answer = await scene.ask(path, peer=stranger, v=event_id, limit=5)
    assert (answer.status, answer.errcode) == (403, "M_FORBIDDEN")
    unsigned = await scene.server.client.get(f"/_matrix/federation/v1/event/{segment(event_id)}/")
    assert unsigned.status == 401


@pytest.mark.parametrize("slash", ["", "/"])
async def test_history_begins_with_the_event_that_is_named(scene: Asking, slash: str) -> None:
    ids = [await scene.say(f"m{number}") for number in range(8)]
    path = f"backfill/{segment(scene.room.room_id)}{slash}"
    answer = (await scene.ask(path, v=ids[-1], limit=5)).json
    assert answer.keys() == KEYS
    assert [pdu["content"]["body"] for pdu in answer["pdus"]] == ["m7", "m6", "m5", "m4", "m3"]
    depths = [pdu["depth"] for pdu in answer["pdus"]]
    assert depths == sorted(depths, reverse=True)
    assert len((await scene.ask(path, v=ids[-1], limit=100_000)).json["pdus"]) <= 100
    unknown = (await scene.ask(path, v="$unknown:one.test", limit=5)).json
    assert unknown["pdus"] == []


async def test_each_event_of_a_fork_comes_once(scene: Asking) -> None:
    """Two events behind the same one, then one that merges them: each comes once, the newer depth first."""
    peer, room = scene.peer, scene.room
    base = peer.message(room, scene.bob, "base", scene.last)
    left, right = (peer.message(room, scene.bob, side, base) for side in ("left", "right"))
    merge = peer.message(room, scene.bob, "merge", left, right)
    await scene.send(base, left, right, merge)
    path = f"backfill/{segment(room.room_id)}/"
    pdus = (await scene.ask(path, v=merge.event_id, limit=100)).json["pdus"]
    bodies = [pdu["content"].get("body") for pdu in pdus]
    assert (bodies[0], set(bodies[1:3]), bodies[3]) == ("merge", {"left", "right"}, "base")
    depths = [pdu["depth"] for pdu in pdus]
    assert depths == sorted(depths, reverse=True)
    assert len({str(pdu) for pdu in pdus}) == len(pdus)


async def test_several_events_may_be_named(scene: Asking) -> None:
    """What lies behind more than one of them comes once, all the same."""
    for text in ("base", "ours"):
        ours = await scene.say(text)
    last = await scene.say("last")
    path = f"backfill/{segment(scene.room.room_id)}/"
    alone = (await scene.ask(path, v=last, limit=100)).json["pdus"]
    two = f"{path}?v={segment(last)}&v={segment(ours)}&limit=100"
    answer = await scene.peer.request(scene.server, "GET", f"/_matrix/federation/v1/{two}")
    bodies = [pdu["content"].get("body") for pdu in answer.json["pdus"]]
    assert bodies[:3] == ["last", "ours", "base"]
    assert len(bodies) == len(alone)


@pytest.mark.parametrize("limit", [None, "", "x", "-1", "0"])
async def test_a_limit_is_needed(scene: Asking, limit: str | None) -> None:
    event_id = await scene.say("hello")
    query = {"v": event_id} | ({} if limit is None else {"limit": limit})
    answer = await scene.ask(f"backfill/{segment(scene.room.room_id)}/", **query)
    assert answer.status == 400
    assert (await scene.ask(f"backfill/{segment(scene.room.room_id)}/", limit=5)).status == 400
