"""Where memberships decide who sees what, a member of today does not see what was said on a branch of the room on
which they were not in it: neither live nor later, nor are they notified of it.
"""

import asyncio
from typing import Any

import pytest

from ..http.client import Client, segment
from .network import Network
from .peer import Peer, RoomCopy

C = "/_matrix/client/v3"


class Scene:
    """alice's room on one.test, which bob of peer.test has joined, and then carol of one.test, of which bob's server
    did not hear."""

    def __init__(self, peer: Peer, server: Any, alice: Client, carol: Client, room: RoomCopy):
        self.peer, self.server, self.alice, self.carol, self.room = peer, server, alice, carol, room
        self.bob = peer.user("bob")
        self.last = list(room.pdus.values())[-1]

    @property
    def path(self) -> str:
        return f"{C}/rooms/{segment(self.room.room_id)}"

    async def say_aside(self, text: str) -> str:
        """bob says something behind all that his server knows."""
        pdu = self.peer.message(self.room, self.bob, text, self.last)
        self.last = pdu
        answer = await self.peer.send(self.server, [pdu])
        assert answer.json["pdus"] == {pdu.event_id: {}}, answer.body
        return pdu.event_id


async def set_scene(network: Network, visibility: str, *, is_invited: bool) -> Scene:
    server = await network.server("one")
    alice, carol = await server.register("alice"), await server.register("carol")
    state = {"type": "m.room.history_visibility", "content": {"history_visibility": visibility}}
    answer = await alice.post(f"{C}/createRoom", {"preset": "public_chat", "initial_state": [state]})
    room_id = answer.json["room_id"]
    if is_invited:
        invited = await alice.post(f"{C}/rooms/{segment(room_id)}/invite", {"user_id": carol.user_id})
        assert invited.status == 200, invited.body
    peer = Peer(network)
    room = await peer.copy(server, room_id)
    joined = peer.join(room, "bob", list(room.pdus.values())[-1])
    answer = await peer.send(server, [joined])
    assert answer.json["pdus"] == {joined.event_id: {}}
    answer = await carol.post(f"{C}/rooms/{segment(room_id)}/join", {})
    assert answer.status == 200, answer.body
    return Scene(peer, server, alice, carol, room)


async def _synced(client: Client, since: str | None = None, wait_ms: int = 0) -> tuple[str, set[str]]:
    params: dict[str, Any] = {} if since is None else {"since": since, "timeout": wait_ms}
    answer = await client.get(f"{C}/sync", **params)
    assert answer.status == 200, answer.body
    rooms = answer.json.get("rooms", {}).get("join", {})
    events = [event for room in rooms.values() for event in room.get("timeline", {}).get("events", [])]
    return answer.json["next_batch"], {event["event_id"] for event in events}


async def _slid(client: Client, conn_id: str, pos: str | None = None) -> tuple[str, set[str]]:
    body = {
        "conn_id": conn_id,
        "lists": {"all": {"ranges": [[0, 9]], "timeline_limit": 20, "required_state": []}},
    }
    params = {"timeout": 0} if pos is None else {"timeout": 0, "pos": pos}
    answer = await client.post("/_matrix/client/unstable/org.matrix.simplified_msc3575/sync", body, **params)
    assert answer.status == 200, answer.body
    rooms = answer.json["rooms"].values()
    return answer.json["pos"], {event["event_id"] for room in rooms for event in room.get("timeline", [])}


async def _listed(scene: Scene, client: Client) -> set[str]:
    answer = await client.get(f"{scene.path}/messages", dir="b", limit=100)
    return {event["event_id"] for event in answer.json["chunk"]}


async def _notified(client: Client) -> set[str]:
    answer = await client.get(f"{C}/notifications")
    assert answer.status == 200, answer.body
    return {one["event"]["event_id"] for one in answer.json["notifications"]}


async def _unread(client: Client) -> int:
    """By a sync from nothing."""
    answer = await client.get(f"{C}/sync")
    (room,) = answer.json["rooms"]["join"].values()
    count: int = room["unread_notifications"]["notification_count"]
    return count


@pytest.mark.parametrize(
    ("visibility", "is_invited", "is_seen"),
    [
        ("joined", False, False),
        ("joined", True, False),
        ("invited", False, False),
        ("invited", True, True),
        ("shared", False, True),
        ("world_readable", False, True),
    ],
)
async def test_what_was_said_where_the_reader_was_not_in_the_room(
    network: Network, visibility: str, is_invited: bool, is_seen: bool
) -> None:
    scene = await set_scene(network, visibility, is_invited=is_invited)
    carol, alice = scene.carol, scene.alice
    since, _ = await _synced(carol)
    alices, _ = await _synced(alice)
    pos, _ = await _slid(carol, "live")
    before = await _unread(carol)
    waiting = asyncio.ensure_future(_synced(carol, since, 200))
    aside = await scene.say_aside("who is carol?")
    own = {aside} if is_seen else set()

    # Live; the others are not kept from it.
    assert aside in (await _synced(alice, alices))[1]
    assert {aside} & (await waiting)[1] == own
    since, told = await _synced(carol, since)
    assert {aside} & told == own
    pos, told = await _slid(carol, "live", pos)
    assert {aside} & told == own
    # From nothing, once and from memory.
    for _ in range(2):
        assert {aside} & (await _synced(carol))[1] == own
        assert aside in (await _synced(alice))[1]
    assert {aside} & (await _slid(carol, "anew"))[1] == own
    assert aside in (await _slid(alice, "anew"))[1]
    # Later.
    assert {aside} & await _listed(scene, carol) == own
    event = await carol.get(f"{scene.path}/event/{segment(aside)}")
    assert event.status == (200 if is_seen else 404)
    context = await carol.get(f"{scene.path}/context/{segment(aside)}")
    assert context.status == (200 if is_seen else 404)
    assert {aside} & await _notified(carol) == own
    assert aside in await _notified(alice)
    assert await _unread(carol) == before + len(own)
    found = await carol.post(f"{C}/search", {"search_categories": {"room_events": {"search_term": "carol"}}})
    results = found.json["search_categories"]["room_events"]["results"]
    assert {one["result"]["event_id"] for one in results} == own

    # What comes after both branches were merged is for all.
    sent = await alice.put(f"{scene.path}/send/m.room.message/1", {"msgtype": "m.text", "body": "Hello"})
    hello = sent.json["event_id"]
    assert hello in (await _synced(carol, since))[1]
    assert hello in (await _slid(carol, "live", pos))[1]
    assert hello in await _notified(carol)
