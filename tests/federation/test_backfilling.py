"""What was said before this server came is fetched when a user looks for it, and stands where it belongs."""

from typing import Any

import orjson
import pytest

from ranvier.io.ports import HttpRequest, HttpResponse
from ranvier.services.rooms import receiving
from ranvier.services.rooms.missing import MAX_MISSING

from ..http.client import segment
from ..http.homeserver import User
from .network import Network
from .peer import Peer
from .test_rooms import create_room, join, say, until

C = "/_matrix/client/v3"


@pytest.fixture
def asks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing below a new event is asked for once only."""
    monkeypatch.setattr(receiving, "MAX_ROUNDS", 1)


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


@pytest.mark.parametrize("place", ["sync", "context", "sliding sync"])
@pytest.mark.usefixtures("asks_once")
async def test_history_is_read_on_from_where_a_client_stands(network: Network, place: str) -> None:
    """Clients do not begin at the newest event, but where what they were given begins: right under the join, or right
    under the first of the events that came after some were missed."""
    one, two = await network.server("one"), await network.server("two")
    alice, bob = await one.register("alice"), await two.register("bob")
    room_id = await create_room(alice, "11", preset="public_chat")
    early = [await say(alice, room_id, f"early {number}") for number in range(3)]
    assert (await join(bob, room_id)).status == 200
    assert await _read_back(bob, room_id, await _find_place(bob, room_id, place)) == early
    missed = await _say_unheard(network, alice, room_id)
    latest = await say(alice, room_id, "latest")

    async def has_latest() -> bool:
        return (await bob.get(f"{C}/rooms/{segment(room_id)}/event/{segment(latest)}")).status == 200

    await until(has_latest)
    read = await _read_back(bob, room_id, await _find_place(bob, room_id, place, latest))
    assert [event_id for event_id in (*early, *missed) if event_id not in read] == []


@pytest.mark.usefixtures("asks_once")
async def test_what_was_missed_is_read_forwards(network: Network) -> None:
    """As the specification has clients close a gap: from where they stood to where the timeline begins."""
    one, two = await network.server("one"), await network.server("two")
    alice, bob = await one.register("alice"), await two.register("bob")
    room_id = await create_room(alice, "11", preset="public_chat")
    await say(alice, room_id, "early")
    assert (await join(bob, room_id)).status == 200
    since = (await bob.get(f"{C}/sync")).json["next_batch"]
    missed = await _say_unheard(network, alice, room_id)
    latest = await say(alice, room_id, "latest")

    async def timeline() -> Any:
        answer = (await bob.get(f"{C}/sync", since=since)).json
        section = answer.get("rooms", {}).get("join", {}).get(room_id, {}).get("timeline", {"events": ()})
        return section if latest in [event["event_id"] for event in section["events"]] else None

    section = await until(timeline)
    shown = [event["event_id"] for event in section["events"]]
    path = f"{C}/rooms/{segment(room_id)}/messages"
    page = await bob.get(path, dir="f", limit=100, to=section["prev_batch"], **{"from": since})
    read = [event["event_id"] for event in page.json["chunk"]]
    assert [event_id for event_id in (*read, *shown) if event_id in {*missed, latest}] == [*missed, latest]
    asked = len(network.log)
    assert (await bob.get(path, dir="f", limit=100)).json["chunk"]
    assert [r.url for _, r in network.log[asked:] if "/backfill/" in r.url] == []


async def _say_unheard(network: Network, user: User, room_id: str) -> list[str]:
    """Messages that the second server takes and loses: more than it asks for when it hears of the next one."""
    lost: list[bytes] = []

    def lose(request: HttpRequest) -> HttpResponse | None:
        if "/send/" not in request.url or request.body is None:
            return None
        lost.append(request.body)
        return HttpResponse(200, {}, b'{"pdus":{}}')

    network.before["two.test"] = lose
    said = [await say(user, room_id, f"missed {number}") for number in range(MAX_MISSING + 5)]
    last = f'"missed {len(said) - 1}"'.encode()

    async def is_lost() -> bool:
        return any(last in body for body in lost)

    await until(is_lost)
    network.before.clear()
    return said


async def _read_back(user: Any, room_id: str, token: str) -> list[str]:
    """The messages before a place, oldest first."""
    read: list[str] = []
    while token:
        page = await user.get(f"{C}/rooms/{segment(room_id)}/messages", dir="b", limit=20, **{"from": token})
        assert page.status == 200, page.body
        read += [event["event_id"] for event in page.json["chunk"] if event["type"] == "m.room.message"]
        token = page.json.get("end", "")
    return read[::-1]


async def _find_place(user: Any, room_id: str, place: str, event_id: str | None = None) -> str:
    """The token that leads back from the newest event, or from another one."""
    if place == "sync":
        filter_ = orjson.dumps({"room": {"timeline": {"limit": 1}}}).decode()
        section = (await user.get(f"{C}/sync", filter=filter_)).json["rooms"]["join"][room_id]
        return str(section["timeline"]["prev_batch"])
    if place == "sliding sync":
        body = {"lists": {"all": {"ranges": [[0, 9]], "timeline_limit": 1, "required_state": []}}}
        answer = await user.post("/_matrix/client/unstable/org.matrix.simplified_msc3575/sync", body)
        return str(answer.json["rooms"][room_id]["prev_batch"])
    if event_id is None:
        state = (await user.get(f"{C}/rooms/{segment(room_id)}/state")).json
        (event_id,) = [event["event_id"] for event in state if event.get("state_key") == user.user_id]
    context = await user.get(f"{C}/rooms/{segment(room_id)}/context/{segment(event_id)}", limit=0)
    return str(context.json["start"])


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
