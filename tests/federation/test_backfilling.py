"""What was said before this server came is fetched when a user looks for it, and stands where it belongs."""

from typing import Any

from ..http.client import segment
from .network import Network
from .peer import Peer
from .test_rooms import create_room, join, say

C = "/_matrix/client/v3"


async def _page_back(user: Any, room_id: str, limit: int) -> list[dict[str, Any]]:
    """The whole timeline, oldest first, read page by page."""
    chunk: list[dict[str, Any]] = []
    token = None
    for _ in range(100):
        page = await user.get(f"{C}/rooms/{segment(room_id)}/messages", dir="b", limit=limit, **_from(token))
        assert page.status == 200, page.body
        chunk += page.json["chunk"]
        token = page.json.get("end")
        if token is None:
            break
    return chunk[::-1]


def _from(token: str | None) -> dict[str, str]:
    return {} if token is None else {"from": token}


async def test_history_from_before_the_join_is_complete_and_in_order(network: Network) -> None:
    one, two = await network.server("one"), await network.server("two")
    alice, bob = await one.register("alice"), await two.register("bob")
    room_id = (await alice.post(f"{C}/createRoom", {"preset": "public_chat"})).json["room_id"]
    path = f"{C}/rooms/{segment(room_id)}"
    for number in range(130):
        await alice.put(f"{path}/send/m.room.message/{number}", {"body": str(number)})
        if number % 40 == 0:
            await alice.put(f"{path}/state/m.room.topic/", {"topic": str(number)})
    joined = await bob.post(f"{C}/join/{segment(room_id)}?server_name=one.test", {})
    assert joined.status == 200, joined.body
    theirs = await _page_back(alice, room_id, 50)
    mine = await _page_back(bob, room_id, 30)
    assert [event["event_id"] for event in mine] == [event["event_id"] for event in theirs]
    # What is here now is not asked for again.
    asked = len(network.log)
    assert len(await _page_back(bob, room_id, 50)) == len(mine)
    assert [r.url for _, r in network.log[asked:] if "/backfill/" in r.url] == []


async def test_a_gap_that_nobody_can_fill_is_not_asked_for_with_every_page(network: Network) -> None:
    one, two = await network.server("one"), await network.server("two")
    alice, bob = await one.register("alice"), await two.register("bob")
    room_id = (await alice.post(f"{C}/createRoom", {"preset": "public_chat"})).json["room_id"]
    joined = await bob.post(f"{C}/join/{segment(room_id)}?server_name=one.test", {})
    assert joined.status == 200, joined.body
    network.cut("one", "two")
    for _ in range(3):
        assert [event["type"] for event in await _page_back(bob, room_id, 10)] == ["m.room.member"]
    assert len([r for _, r in network.log if "/backfill/" in r.url]) == 1
    network.heal()
    network.clock.skip(3600)
    assert (await _page_back(bob, room_id, 10))[0]["type"] == "m.room.create"


async def test_history_that_the_room_never_allowed_is_not_shown(network: Network) -> None:
    server, peer = await network.server("one"), Peer(network)
    alice = await server.register("alice")
    room_id = (await alice.post(f"{C}/createRoom", {"preset": "public_chat"})).json["room_id"]
    room = await peer.copy(server, room_id)
    last = list(room.pdus.values())[-1]
    joined = peer.join(room, "bob", last)
    await peer.send(server, [joined])
    bob = peer.user("bob")
    old = peer.message(room, bob, "old", joined)
    topic = peer.event(room, bob, "m.room.topic", {"topic": "forbidden"}, prev=[old], state_key="")
    stranger = peer.message(room, peer.user("stranger"), "stranger", topic)
    new = peer.message(room, bob, "new", stranger)
    newer = peer.message(room, bob, "newer", new)
    # Little of what lies between is told when the newest event comes.
    missing = peer._missing
    peer._missing = lambda room, asked: peer._shown([new])  # type: ignore[method-assign]
    assert (await peer.send(server, [newer])).json == {"pdus": {newer.event_id: {}}}
    peer._missing = missing  # type: ignore[method-assign]
    bodies = [event["content"].get("body") for event in await _page_back(alice, room_id, 50)]
    assert [body for body in bodies if body] == ["old", "new", "newer"]
    topics = await alice.get(f"{C}/rooms/{segment(room_id)}/state/m.room.topic/")
    assert topics.status == 404


async def test_events_of_a_time_before_the_join(network: Network) -> None:
    """What another server knows to be nearer to a time is fetched, and then it can be read from there on."""
    one, two = await network.server("one"), await network.server("two")
    alice, bob = await one.register("alice"), await two.register("bob")
    room_id = await create_room(alice, "11", preset="public_chat")
    first = await say(alice, room_id, "first")
    network.clock.skip(3600)
    for count in range(5):
        await say(alice, room_id, f"m{count}")
    assert (await join(bob, room_id)).status == 200
    path = f"/_matrix/client/v1/rooms/{segment(room_id)}/timestamp_to_event"
    ts = (await alice.get(path, ts=0, dir="f")).json["origin_server_ts"] + 1_800_000
    found = await bob.get(path, ts=ts, dir="b")
    assert (found.status, found.json["event_id"]) == (200, first)
    context = await bob.get(f"/_matrix/client/v3/rooms/{segment(room_id)}/context/{segment(first)}")
    assert context.status == 200, context.body
    assert (await bob.get(path, ts=0, dir="b")).errcode == "M_NOT_FOUND"
    network.cut("one", "two")
    assert (await bob.get(path, ts=ts, dir="b")).json["event_id"] == first
