"""A server with a key of its own that sends what no server should: nothing crashes, nothing unauthorized is shown,
and what is good beside it arrives."""

import asyncio
import gc
import logging
import tracemalloc
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from ranvier.core.canonical_json import encode
from ranvier.core.events.format import max_depth
from ranvier.core.events.parse import pdu_of_object
from ranvier.core.events.pdu import Pdu
from ranvier.core.identifiers import EventID
from ranvier.core.signing import SigningKey

from ..http.client import Client
from .agreement import view_of
from .network import Network
from .peer import Peer
from .test_receiving import Scene, _resigned, set_scene

C = "/_matrix/client/v3"


@pytest.fixture
async def scene(network: Network) -> Scene:
    return await set_scene(network)


@pytest.fixture(autouse=True)
def _nothing_crashes(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert [one.message for one in caplog.get_records("call") if one.levelno >= logging.ERROR] == []


def raw(scene: Scene, pdu: Pdu, **fields: Any) -> bytes:
    """The event with other fields, and with good hashes and signatures nevertheless."""
    return encode(_resigned(scene, orjson.loads(pdu.json) | fields))


def altered(scene: Scene, pdu: Pdu, **fields: Any) -> Pdu:
    """The same, if that is an event at all."""
    event = orjson.loads(raw(scene, pdu, **fields))
    return pdu_of_object(event, scene.room.version, limit_parents=False)


async def test_an_event_has_65536_bytes_and_not_one_more(scene: Scene) -> None:
    empty = scene.peer.message(scene.room, scene.bob, "", scene.last, is_kept=False)

    def of_size(size: int) -> bytes:
        return raw(scene, empty, content={"msgtype": "m.text", "body": "x" * (size - len(empty.json))})

    assert len(of_size(65_536)) == 65_536
    good = scene.peer.message(scene.room, scene.bob, "good", scene.last)
    results = await scene.send(of_size(65_537), of_size(900_000), of_size(65_536), good)
    assert len(results) == 2
    assert results[good.event_id] == {}
    assert [len(body) for body in await scene.bodies()] == [65_536 - len(empty.json), 4]


@pytest.mark.parametrize("levels", [98, 99, 500])
async def test_an_event_of_many_levels(scene: Scene, levels: int) -> None:
    content: Any = 1
    for _ in range(levels):
        content = {"a": content}
    plain = scene.peer.message(scene.room, scene.bob, "", scene.last, is_kept=False)
    deep = raw(scene, plain, content=content)
    good = scene.peer.message(scene.room, scene.bob, "good", scene.last)
    results = await scene.send(deep, good)
    assert results.pop(good.event_id) == {}
    assert list(results.values()) == ([] if levels > 99 else [{}])
    assert (await scene.bodies())[-1] == "good"
    assert (await scene.alice.get(f"{C}/sync")).status == 200


async def test_what_is_too_deep_for_any_parser_is_no_transaction(scene: Scene) -> None:
    """Nobody can tell what the signature of such a request covers."""
    deep = b'{"room_id":"%b","content":%b1%b}' % (
        scene.room.room_id.encode(),
        b'{"a":' * 50_000,
        b"}" * 50_000,
    )
    good = scene.peer.message(scene.room, scene.bob, "good", scene.last)
    body = b'{"origin":"peer.test","origin_server_ts":1,"pdus":[%b,%b]}' % (deep, good.json)
    path = "/_matrix/federation/v1/send/deep"
    answer = await Client(scene.network.app_of(scene.server)).request(
        "PUT",
        path,
        body=body,
        headers={"Authorization": 'X-Matrix origin="peer.test",key="ed25519:k1",sig="AA"'},
    )
    assert answer.status in (400, 401)
    assert await scene.send(good) == {good.event_id: {}}


@pytest.mark.parametrize("version", ["1", "5", "6", "12"])
async def test_depth_ends_somewhere(network: Network, version: str) -> None:
    """An event at the greatest depth is no obstacle, neither to who follows nor to who stands beside."""
    scene = await set_scene(network, version)
    base, top = scene.last, max_depth(scene.room.version)
    deepest = scene.peer.message(scene.room, scene.bob, "deepest", base, depth=top)
    too_deep, negative = (raw(scene, deepest, depth=depth) for depth in (top + 1, -1))
    shallow = scene.peer.message(scene.room, scene.bob, "shallow", deepest, depth=0)
    assert await scene.send(too_deep, negative, deepest, shallow) == {
        deepest.event_id: {},
        shallow.event_id: {},
    }
    await scene.say("hello")
    await scene.say("again")
    assert await scene.bodies() == ["deepest", "shallow", "hello", "again"]
    copy = await scene.peer.copy(scene.server, scene.room.room_id)
    assert max(pdu.depth for pdu in copy.pdus.values()) == top
    # Whoever hears of the room now gets it whole.
    two = await network.server("two")
    carol = await two.register("carol")
    joined = await carol.post(f"{C}/join/{scene.room.room_id}?via=one.test", {})
    assert joined.status == 200, joined.body


async def test_events_that_cite_each_other_in_a_circle(network: Network) -> None:
    """Only ids that the sender chooses can do that."""
    scene = await set_scene(network, "1")
    base = scene.last
    pdus = [scene.peer.message(scene.room, scene.bob, name, base, is_kept=False) for name in "abc"]
    (first, second, itself) = pdus

    def behind(pdu: Pdu, *parents: Pdu, name: str = "prev_events") -> Pdu:
        return altered(scene, pdu, **{name: [[parent.event_id, {}] for parent in parents]})

    good = scene.peer.message(scene.room, scene.bob, "good", base)
    async with asyncio.timeout(20):
        await scene.send(behind(first, second), behind(second, first), behind(itself, itself), good)
        # Half a circle that also stands on firm ground.
        one, other = (scene.peer.message(scene.room, scene.bob, name, base, is_kept=False) for name in "de")
        await scene.send(behind(one, other, good), behind(other, one, good))
        auth, more = (scene.peer.join(scene.room, name, good) for name in ("carol", "dave"))
        await scene.send(
            behind(auth, more, name="auth_events"),
            behind(more, auth, name="auth_events"),
            behind(scene.peer.join(scene.room, "erin", good), auth, more, name="auth_events"),
        )
    assert "good" in await scene.bodies()
    members = await scene.alice.get(f"{C}/rooms/{scene.room.room_id}/joined_members")
    assert set(members.json["joined"]) == {"@alice:one.test", scene.bob}
    event_id = await scene.say("on we go")
    view = await view_of(scene.server, scene.room.room_id)
    assert view.extremities == {event_id}


async def test_ten_thousand_unknown_parents(scene: Scene) -> None:
    """In one event, and in as many as it takes."""
    base = scene.last
    plain = scene.peer.message(scene.room, scene.bob, "wide", base, is_kept=False)

    def unknown(start: int, count: int) -> list[str]:
        return [f"${number:043d}" for number in range(start, start + count)]

    wide = altered(scene, plain, prev_events=unknown(0, 1_000))
    cites = altered(scene, plain, auth_events=unknown(0, 1_000))
    good = [scene.peer.message(scene.room, scene.bob, "good 0", base)]
    results = await scene.send(wide, cites, good[0])
    assert results == {good[0].event_id: {}}
    scene.peer.asked.clear()
    scene.peer._missing = lambda room, asked: []  # type: ignore[method-assign]
    async with asyncio.timeout(30):
        for number in range(1, 11):
            batch = [
                altered(scene, plain, prev_events=unknown(number * 1_000 + start, 20), origin_server_ts=start)
                for start in range(0, 980, 20)
            ]
            good.append(scene.peer.message(scene.room, scene.bob, f"good {number}", good[-1]))
            results = await scene.send(*batch, good[-1])
            assert results[good[-1].event_id] == {}
            assert all("error" in results[pdu.event_id] for pdu in batch)
    assert await scene.bodies() == [f"good {number}" for number in range(11)]
    assert len([path for method, path in scene.peer.asked if method == "POST"]) <= 10


async def test_power_that_authorizes_itself(scene: Scene) -> None:
    """A chain of events of which each is allowed by the one before, and the first by nothing that the room had."""
    base, bob = scene.last, scene.bob
    levels = {"users": {bob: 100}, "users_default": 100, "state_default": 0}
    power = scene.peer.event(
        scene.room, bob, "m.room.power_levels", levels, prev=[base], state_key="", is_kept=False
    )
    state = {**scene.room.after[base.event_id], power.slot: power}
    again = scene.peer.event(
        scene.room,
        bob,
        "m.room.power_levels",
        {**levels, "ban": 0},
        prev=[power],
        state_key="",
        state=state,
        is_kept=False,
    )
    state = {**state, again.slot: again}
    ban = scene.peer.event(
        scene.room,
        bob,
        "m.room.member",
        {"membership": "ban"},
        prev=[again],
        state_key="@alice:one.test",
        state=state,
        is_kept=False,
    )
    good = scene.peer.message(scene.room, bob, "good", base)
    assert await scene.send(power, again, ban, good) == {
        pdu.event_id: {} for pdu in (power, again, ban, good)
    }
    view = await view_of(scene.server, scene.room.room_id)
    assert view.rejected == {power.event_id, again.event_id, ban.event_id}
    assert (await scene.state("m.room.member", "@alice:one.test"))["membership"] == "join"
    assert await scene.bodies() == ["good"]


async def test_power_of_another_room_and_of_no_event(scene: Scene) -> None:
    """What authorizes an event is of its room, there once, and of the kind that may."""
    base, bob = scene.last, scene.bob
    answer = await scene.alice.post(f"{C}/createRoom", {"preset": "public_chat", "room_version": "12"})
    other = await scene.peer.copy(scene.server, answer.json["room_id"])
    foreign = next(pdu for pdu in other.pdus.values() if pdu.type == "m.room.power_levels")
    scene.room.pdus |= other.pdus  # the peer tells them whenever it is asked
    state = scene.room.after[base.event_id]
    own = [state["m.room.power_levels", ""], state["m.room.member", bob]]
    name = next(pdu for pdu in scene.room.pdus.values() if pdu.type == "m.room.history_visibility")
    bad = {
        "foreign": [foreign, own[1]],
        "twice": [*own, own[1]],
        "irrelevant": [*own, name],
        "none": [],
        "no membership": own[:1],
    }
    pdus = [scene.peer.message(scene.room, bob, text, base, auth=auth) for text, auth in bad.items()]
    good = scene.peer.message(scene.room, bob, "good", base)
    results = await scene.send(*pdus, good)
    assert results[good.event_id] == {}
    assert await scene.bodies() == ["good"]


async def test_senders_that_others_are(scene: Scene) -> None:
    base = scene.last
    mallory = Peer(scene.network, "mallory")
    room = scene.room
    forged = [
        mallory.message(room, scene.bob, "bob, by mallory", base, is_kept=False),
        mallory.message(room, "@alice:one.test", "alice, by mallory", base, is_kept=False),
        scene.peer.message(room, "@alice:one.test", "alice, by the peer", base, is_kept=False),
    ]
    # Signed by one key, said to be of another server.
    lent = orjson.loads(forged[0].json)
    lent["signatures"] = {scene.peer.name: lent["signatures"][mallory.name]}
    good = scene.peer.message(room, scene.bob, "good", base)
    answer = await mallory.send(scene.server, [*forged, encode(lent), good])
    assert answer.json["pdus"] == {good.event_id: {}}, "what others signed may be handed on"
    assert await scene.bodies() == ["good"]
    members = await scene.alice.get(f"{C}/rooms/{room.room_id}/joined_members")
    assert set(members.json["joined"]) == {"@alice:one.test", scene.bob}


async def test_the_same_event_many_times(scene: Scene) -> None:
    hello = scene.peer.message(scene.room, scene.bob, "hello", scene.last)
    unsigned = encode(orjson.loads(hello.json) | {"unsigned": {"age": 7}})
    assert await scene.send(*[hello] * 20, *[unsigned] * 20) == {hello.event_id: {}}
    answers = await asyncio.gather(*(scene.peer.send(scene.server, [hello]) for _ in range(4)))
    assert {answer.status for answer in answers} == {200}
    other = Peer(scene.network, "other")
    assert (await other.send(scene.server, [hello])).json["pdus"] == {hello.event_id: {}}
    assert await scene.bodies() == ["hello"]


async def test_the_same_transaction_at_the_same_time(scene: Scene) -> None:
    hello = scene.peer.message(scene.room, scene.bob, "hello", scene.last)
    typing = {"room_id": scene.room.room_id, "user_id": scene.bob, "typing": True}
    edus = [{"edu_type": "m.typing", "content": typing}]
    answers = await asyncio.gather(
        *(scene.peer.send(scene.server, [hello], edus, txn_id="once") for _ in range(20))
    )
    assert {answer.body for answer in answers} == {answers[0].body}
    assert await scene.bodies() == ["hello"]


async def test_who_sends_too_much_at_once_is_told_to_wait(scene: Scene) -> None:
    pdus = [scene.peer.message(scene.room, scene.bob, str(number), scene.last) for number in range(12)]
    answers = await asyncio.gather(*(scene.peer.send(scene.server, [pdu]) for pdu in pdus))
    assert {answer.status for answer in answers} == {200, 429}
    refused = [pdu for pdu, answer in zip(pdus, answers, strict=True) if answer.status == 429]
    for pdu in refused:
        assert await scene.send(pdu) == {pdu.event_id: {}}
    assert sorted(await scene.bodies(), key=int) == [str(number) for number in range(12)]


async def test_a_key_that_changes_under_its_name(scene: Scene) -> None:
    """What the old key signed stays; the new one counts when the server's word about the old one has run out."""
    old = scene.peer.message(scene.room, scene.bob, "old", scene.last)
    assert await scene.send(old) == {old.event_id: {}}
    old_key, scene.peer.key = scene.peer.key, SigningKey(b"z" * 32, "k1")
    new = scene.peer.message(scene.room, scene.bob, "new", old)
    assert (await scene.peer.send(scene.server, [new])).status == 401
    scene.network.clock.skip(2 * 3600)
    later = scene.peer.message(scene.room, scene.bob, "later", old)
    assert await scene.send(later) == {later.event_id: {}}
    scene.peer.key = old_key
    stolen = scene.peer.message(scene.room, scene.bob, "stolen", later, is_kept=False)
    assert (await scene.peer.send(scene.server, [stolen])).status == 401
    # Handed in by another server: the key that is published does not fit.
    mallory = Peer(scene.network, "mallory")
    assert (await mallory.send(scene.server, [stolen])).json["pdus"] == {}
    assert await scene.bodies() == ["old", "later"]


async def test_keys_for_all_eternity_run_out(scene: Scene) -> None:
    """A server may claim its keys for a thousand years; they are taken for a week at most."""
    peer = Peer(scene.network, "forever")
    peer.valid_ms = 1000 * 365 * 86_400_000
    joined = peer.join(scene.room, "eve", scene.last)
    assert (await peer.send(scene.server, [joined])).json["pdus"] == {joined.event_id: {}}
    peer.key = SigningKey(b"y" * 32, "k2")
    scene.network.clock.skip(8 * 86_400)
    old_key = SigningKey(b"forever".ljust(32, b"."), "k1")
    peer.key, new_key = old_key, peer.key
    late = peer.message(scene.room, joined.sender, "late", joined, is_kept=False)
    peer.key = new_key
    assert (await peer.send(scene.server, [late])).json["pdus"] == {}
    fine = peer.message(scene.room, joined.sender, "fine", joined)
    assert (await peer.send(scene.server, [fine])).json["pdus"] == {fine.event_id: {}}
    assert await scene.bodies() == ["fine"]


async def test_ten_thousand_signatures(scene: Scene) -> None:
    """Of keys and servers that nobody has heard of: none of them is asked for."""
    pdu = scene.peer.message(scene.room, scene.bob, "signed", scene.last)
    event = orjson.loads(pdu.json)
    event["signatures"] |= {f"s{number}.test": {"ed25519:1": "A" * 86} for number in range(300)}
    event["signatures"][scene.peer.name] |= {f"ed25519:{number}": "A" * 86 for number in range(200)}
    scene.network.log.clear()
    await scene.send(encode(event))
    asked = [request.url for asker, request in scene.network.log if asker == "one.test"]
    assert len(asked) <= 1
    good = scene.peer.message(scene.room, scene.bob, "good", scene.last)
    assert (await scene.send(good))[good.event_id] == {}


async def test_memory_and_time_stay_bounded(scene: Scene) -> None:
    """Large transactions, one after the other, of events that cannot be in the room."""
    base = scene.last
    stranger = scene.peer.user("stranger")
    text = "x" * 60_000
    pdus = [
        scene.peer.message(scene.room, stranger, f"{number}{text}", base, is_kept=False)
        for number in range(10)
    ]
    tracemalloc.start()
    try:
        async with asyncio.timeout(60):
            kept: list[int] = []
            for number in range(40):
                sent = [encode(orjson.loads(pdu.json) | {"unsigned": {"n": number}}) for pdu in pdus]
                await scene.send(*sent)
                del sent
                gc.collect()
                kept.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    # Of each nothing stays, but for the last ones that the database's threads worked on: forty are 24 MB.
    assert max(kept[-3:]) < 16_000_000, kept
    assert await scene.bodies() == []


async def test_many_rooms_at_once_do_not_wait_for_the_one_that_hangs(scene: Scene, network: Network) -> None:
    """While the peer is asked for what it withholds, events of other rooms of the same transaction come in."""
    answer = await scene.alice.post(f"{C}/createRoom", {"preset": "public_chat", "room_version": "11"})
    other = await scene.peer.copy(scene.server, answer.json["room_id"])
    joined = scene.peer.join(other, "bob", list(other.pdus.values())[-1])
    lost = scene.peer.message(scene.room, scene.bob, "lost", scene.last)
    found = scene.peer.message(scene.room, scene.bob, "found", lost)
    release, is_asked = asyncio.Event(), asyncio.Event()
    peer = scene.peer

    async def hang(scope: Any, receive: Any, send: Any) -> None:
        if "/get_missing_events/" in scope["path"]:
            is_asked.set()
            await release.wait()
        await peer(scope, receive, send)

    network.add(peer.name, hang)
    sending = asyncio.create_task(peer.send(scene.server, [found, joined]))
    await is_asked.wait()
    async with asyncio.timeout(60):
        while True:
            members = await scene.alice.get(f"{C}/rooms/{other.room_id}/joined_members")
            if peer.user("bob") in members.json["joined"]:
                break
            await asyncio.sleep(0.01)
        await scene.say("meanwhile")
    release.set()
    assert (await sending).json["pdus"] == {found.event_id: {}, joined.event_id: {}}
    assert set(await scene.bodies()) == {"lost", "found", "meanwhile"}


async def test_an_event_under_a_name_that_is_taken(network: Network) -> None:
    """In rooms v1 and v2 a server names its events: it cannot put one in place of another, nor another room's."""
    scene = await set_scene(network, "1")
    said = await scene.say("said")
    room = await scene.peer.copy(scene.server, scene.room.room_id)
    plain = scene.peer.message(room, scene.bob, "instead", room.pdus[EventID(said)], is_kept=False)
    own = altered(scene, plain, event_id="$mine:peer.test")
    other = altered(scene, plain, event_id="$mine:peer.test", content={"msgtype": "m.text", "body": "other"})
    foreign = altered(scene, plain, event_id=said)
    results = await scene.send(own, other, foreign)
    assert await scene.bodies() in (["said", "instead"], ["said", "other"])
    assert results.get("$mine:peer.test") == {}
    assert await scene.send(altered(scene, plain, event_id="$mine:peer.test", content={"body": "third"})) == {
        "$mine:peer.test": {}
    }
    assert "third" not in await scene.bodies()
