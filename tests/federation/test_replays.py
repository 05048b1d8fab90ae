"""What was before a server entered a room is sent to it by somebody who means no good: it says nothing about now."""

import pytest

from ..http.client import segment
from .agreement import view_of
from .network import Network
from .test_receiving import C, set_scene


@pytest.mark.parametrize("version", ["12", "11", "10", "3"])
async def test_state_from_before_the_entrance_is_no_extremity(network: Network, version: str) -> None:
    """All but the last of it, so that nothing shows how it and the entrance hang together. By state resolution, who
    came by a join rule of then would be in the room no more."""
    scene = await set_scene(network, version)
    path = f"{C}/rooms/{segment(scene.room.room_id)}"
    two = await network.server("two")
    carol = await two.register("carol")
    await scene.say("hello")
    assert (await scene.alice.post(f"{path}/invite", {"user_id": carol.user_id})).status == 200
    rules = await scene.alice.put(f"{path}/state/m.room.join_rules", {"join_rule": "invite"})
    assert rules.status == 200, rules.body
    room = await scene.peer.copy(scene.server, scene.room.room_id)
    old = [pdu for pdu in room.pdus.values() if pdu.is_state][:-2]
    answer = await carol.post(f"{C}/join/{segment(scene.room.room_id)}?server_name=one.test", {})
    assert answer.status == 200, answer.body
    before = await view_of(two, scene.room.room_id)
    assert not any((await scene.peer.send(two, old)).json["pdus"].values())
    after = await view_of(two, scene.room.room_id)
    assert {pdu.event_id for pdu in old} <= after.before.keys(), "it was taken"
    assert (after.extremities, after.state) == (before.extremities, before.state)


@pytest.mark.parametrize("is_accepted", [True, False])
async def test_nor_is_what_lies_behind_it_through_what_soft_fails(
    network: Network, is_accepted: bool
) -> None:
    """Somebody who has left said something between state that was replaced and state that is in force."""
    scene = await set_scene(network, "11")
    path = f"{C}/rooms/{segment(scene.room.room_id)}"
    visibility = f"{path}/state/m.room.history_visibility"
    two = await network.server("two")
    carol = await two.register("carol")
    dave = scene.peer.join(scene.room, "dave", scene.last)
    await scene.send(dave)
    assert (await scene.alice.put(visibility, {"history_visibility": "joined"})).status == 200
    room = await scene.peer.copy(scene.server, scene.room.room_id)
    said = scene.peer.message(room, dave.sender, "said", list(room.pdus.values())[-1])
    await scene.send(said)
    if is_accepted:
        assert (await scene.alice.put(f"{path}/state/m.room.name", {"name": "a name"})).status == 200
        room = await scene.peer.copy(scene.server, scene.room.room_id)
    old = list(room.pdus.values())
    left = scene.peer.event(
        room, dave.sender, "m.room.member", {"membership": "leave"}, prev=old[-1:], state_key=dave.sender
    )
    await scene.send(left)
    assert (await scene.alice.put(visibility, {"history_visibility": "shared"})).status == 200
    answer = await carol.post(f"{C}/join/{segment(scene.room.room_id)}?server_name=one.test", {})
    assert answer.status == 200, answer.body
    before = await view_of(two, scene.room.room_id)
    replayed = old if is_accepted else [*old, left]
    assert not any((await scene.peer.send(two, replayed)).json["pdus"].values())
    after = await view_of(two, scene.room.room_id)
    assert {pdu.event_id for pdu in replayed} <= after.before.keys(), "it was taken"
    assert (after.extremities, after.state) == (before.extremities, before.state)
