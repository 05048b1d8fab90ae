"""Three homeservers, a bad network, and users who do not care: in the end all agree.

What cheaper tests miss: events that overtake each other, transactions whose answers are lost, servers that
come back with histories of their own, and state set on both sides of a partition.
"""

import asyncio
import random
from typing import Any

import pytest

from ranvier.core import state_map
from ranvier.core.identifiers import RoomID
from ranvier.store.database import ReadTxn
from ranvier.store.tables import events, rooms, timeline
from ranvier.store.tables.state_nodes import SnapshotNodes

from ..http.client import segment
from ..http.homeserver import Homeserver
from .network import Network

C = "/_matrix/client/v3"
NAMES = ("one", "two", "three")


async def _room(network: Network, version: str) -> tuple[str, list[Homeserver], list[Any]]:
    servers = [await network.server(name) for name in NAMES]
    users = [await server.register("user") for server in servers]
    body = {
        "preset": "public_chat",
        "room_version": version,
        "power_level_content_override": {"state_default": 0, "events": {"m.room.name": 0}},
    }
    answer = await users[0].post(f"{C}/createRoom", body)
    assert answer.status == 200, answer.body
    room_id = answer.json["room_id"]
    for user in users[1:]:
        joined = await user.post(f"{C}/join/{segment(room_id)}?server_name=one.test", {})
        assert joined.status == 200, joined.body
    # A join that meets a change of the join rules may be undone everywhere but on its own server.
    for _ in range(500):
        if await _agree(servers, room_id):
            return room_id, servers, users
        await asyncio.sleep(0.02)
    raise AssertionError("the joins did not reach everybody")


def _read(txn: ReadTxn, server: Homeserver, room_id: str) -> tuple[dict[str, str], set[str]]:
    """The state now, and the messages. (What state events a timeline shows may differ: on one server an event
    was there before the power levels that forbid it, on another one it came after them and soft-failed.)"""
    room = rooms.find_room(txn, RoomID(room_id))
    assert room is not None
    nids = state_map.to_dict(SnapshotNodes(txn, server.foundation.nodes), room.state_root).values()
    stored = events.list_events(txn, nids).values()
    page = timeline.list_page(txn, room.room_nid, backwards=True, limit=1000)
    state = {record.event_id: record.type for record in stored}
    return state, {record.event_id for record in page if record.type == "m.room.message"}


async def _agree(servers: list[Homeserver], room_id: str) -> bool:
    views = await _views(servers, room_id)
    return all(view == views[0] for view in views)


async def _views(servers: list[Homeserver], room_id: str) -> list[Any]:
    return [await server.foundation.ports.db.read(_read, server, room_id) for server in servers]


async def _act(rng: random.Random, user: Any, room_id: str, number: int, version: str) -> None:
    """One thing that a user does; what the room does not allow at the moment is refused, and that is all."""
    path = f"{C}/rooms/{segment(room_id)}"
    match rng.randrange(5):
        case 2:
            levels = {
                "state_default": 0,
                "users": {"@user:one.test": 100, "@user:two.test": rng.choice((0, 100))},
                "events": {"m.room.topic": rng.choice((0, 50)), "m.room.power_levels": 100},
            }
            if version == "12":
                del levels["users"]["@user:one.test"]
            answer = await user.put(f"{path}/state/m.room.power_levels/", levels)
        case 0:
            answer = await user.put(f"{path}/state/m.room.topic/", {"topic": f"{number}"})
        case 1:
            answer = await user.put(f"{path}/state/m.room.name/", {"name": f"{number}"})
        case _:
            answer = await user.put(f"{path}/send/m.room.message/{number}", {"body": f"{number}"})
    assert answer.status in (200, 403), answer.body


@pytest.mark.parametrize(("seed", "version"), [(1, "12"), (2, "10"), (3, "12"), (4, "6")])
async def test_all_agree_in_the_end(network: Network, seed: int, version: str) -> None:
    rng = random.Random(seed)
    room_id, servers, users = await _room(network, version)
    for number in range(40):
        match rng.randrange(10):
            case 0:
                network.isolate(rng.choice(NAMES))
            case 1:
                network.heal()
            case 2:
                network.disturb(seed=rng.randrange(1000), delay_s=0.01, loss=0.2)
        await _act(rng, rng.choice(users), room_id, number, version)
        if rng.random() < 0.3:
            await asyncio.sleep(0.01)
    network.heal()
    await _settle(network, servers, users, room_id)


async def _settle(network: Network, servers: list[Homeserver], users: list[Any], room_id: str) -> None:
    """Let everybody speak once more until all have heard all."""
    for round_ in range(15):
        network.clock.skip(86_400)
        for user in users:
            path = f"{C}/rooms/{segment(room_id)}/send/m.room.message/end{round_}"
            assert (await user.put(path, {"body": "end"})).status == 200
            await asyncio.sleep(0.05)
        for _ in range(20):
            if await _agree(servers, room_id):
                return
            await asyncio.sleep(0.05)
    views = await _views(servers, room_id)
    states = [view[0] for view in views]
    assert states[0] == states[1] == states[2]
    timelines = [view[1] for view in views]
    assert timelines[0] == timelines[1] == timelines[2]
