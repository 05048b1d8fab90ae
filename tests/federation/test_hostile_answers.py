"""Servers that are asked for events, and answer with whatever they like: what is good in it is used, the rest does
nothing, and nobody asks for ever."""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from ranvier.services.rooms import claimed_state
from ranvier.store.tables.events import Status, find_event

from ..http.client import segment
from .network import Network
from .test_receiving import Scene, set_scene
from .test_rooms import create_room, join, membership, reads, say, texts

C = "/_matrix/client/v3"

BAD = (
    b'{"type":"m.room.message","content":{"body":"\\ud800"}}',
    b'{"type":"m.room.message","content":{"body":"\xff"}}',
    b'{"type":"m.room.message","content":{"n":1e999}}',
    b'{"type":"m.room.message","content":{"n":' + b"7" * 5_000 + b"}}",
    b'{"type":"m.room.message","content":' + b'{"a":' * 200 + b"1" + b"}" * 201,
    b"7",
)


class Tampering:
    """Stands before an ASGI application and changes what it answers under some path."""

    def __init__(
        self, network: Network, server_name: str, part: str, change: Callable[[bytes], bytes]
    ) -> None:
        self._app = network._apps[server_name]
        self._part = part
        self._change = change
        self.count = 0  # answers changed
        network.add(server_name, self)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if self._part not in scope["path"]:
            await self._app(scope, receive, send)
            return
        self.count += 1
        parts: list[dict[str, Any]] = []

        async def keep(message: dict[str, Any]) -> None:
            parts.append(message)

        await self._app(scope, receive, keep)
        body = self._change(b"".join(part.get("body", b"") for part in parts[1:]))
        headers = [(name, value) for name, value in parts[0]["headers"] if name != b"content-length"]
        await send({**parts[0], "headers": headers})
        await send({"type": "http.response.body", "body": body})


def spoil(name: str) -> Callable[[bytes], bytes]:
    """Put what cannot be read at the beginning of an array of the answer."""
    key = b'"%b":[' % name.encode()

    def change(body: bytes) -> bytes:
        assert key in body, body[:500]
        head, _, tail = body.partition(key)
        comma = b"" if tail.startswith(b"]") else b","
        return head + key + b",".join(BAD) + comma + tail

    return change


@pytest.fixture
async def scene(network: Network) -> Scene:
    return await set_scene(network)


def chain(scene: Scene, *names: str) -> list[Any]:
    """Messages of bob's, one behind the other."""
    pdus = [scene.last]
    for name in names:
        pdus.append(scene.peer.message(scene.room, scene.bob, name, pdus[-1]))
    return pdus[1:]


async def test_bad_events_among_missing_ones(scene: Scene, network: Network) -> None:
    tampering = Tampering(network, "peer.test", "/get_missing_events/", spoil("events"))
    *_, last = chain(scene, *"abcd")
    assert await scene.send(last) == {last.event_id: {}}
    assert await scene.bodies() == list("abcd")
    assert tampering.count


@pytest.mark.parametrize("array", ["pdus", "auth_chain"])
async def test_bad_events_in_a_state(
    scene: Scene, network: Network, array: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claimed_state, "MAX_SINGLE", 0)  # the whole state at once
    lost, found, more = chain(scene, "lost", "found", "more")
    scene.peer.hidden = {lost.event_id}
    carol = scene.peer.join(scene.room, "carol", scene.last)
    for pdu in (lost, found, more):
        scene.room.before[pdu.event_id] |= {carol.slot: carol}
    old_answer = scene.peer._answer

    def answer(path: Any, query: Any, body: bytes) -> Any:
        match path:
            case ["v1", "state", _]:
                state = scene.room.before[query["event_id"][0]].values()
                auth = scene.room.auth_chain([pdu.event_id for pdu in state]).values()
                return {"pdus": scene.peer._shown(state), "auth_chain": scene.peer._shown(auth)}
        return old_answer(path, query, body)

    scene.peer._answer = answer  # type: ignore[method-assign]
    tampering = Tampering(network, "peer.test", "/v1/state/", spoil(array))
    assert await scene.send(more) == {more.event_id: {}}
    assert tampering.count
    assert await scene.bodies() == ["found", "more"]
    assert (await scene.state("m.room.member", carol.state_key))["membership"] == "join"


async def test_bad_events_in_an_auth_chain(scene: Scene, network: Network) -> None:
    tampering = Tampering(network, "peer.test", "/event_auth/", spoil("auth_chain"))
    base = scene.last
    joined = scene.peer.join(scene.room, "carol", base)
    # What authorizes carol's event is fetched, though the state before it then does not allow it.
    state = scene.room.after[joined.event_id]
    said = scene.peer.message(scene.room, joined.sender, "said", base, state=state)
    assert await scene.send(said) == {said.event_id: {}}
    assert tampering.count == 1
    assert await scene.bodies() == []
    stored = await scene.server.foundation.ports.db.read(find_event, joined.event_id)
    assert stored is not None
    assert stored.status is Status.OUTLIER


async def test_bad_events_in_history(network: Network) -> None:
    one, two = await network.server("one"), await network.server("two")
    alice, bob = await one.register("alice"), await two.register("bob")
    room_id = await create_room(alice, "12", preset="public_chat")
    for number in range(3):
        await say(alice, room_id, f"old {number}")
    assert (await join(bob, room_id)).status == 200
    tampering = Tampering(network, "one.test", "/backfill/", spoil("pdus"))
    await reads(bob, room_id, "old 0")
    assert await texts(bob, room_id) == ["old 0", "old 1", "old 2"]
    assert tampering.count


@pytest.mark.parametrize("array", ["state", "auth_chain"])
async def test_bad_events_in_the_room_that_is_joined(network: Network, array: str) -> None:
    one, two = await network.server("one"), await network.server("two")
    alice, bob = await one.register("alice"), await two.register("bob")
    room_id = await create_room(alice, "12", preset="public_chat")
    tampering = Tampering(network, "one.test", "/send_join/", spoil(array))
    answer = await join(bob, room_id)
    assert answer.status == 200, answer.body
    assert tampering.count == 1
    assert await membership(bob, room_id, alice.user_id) == "join"
    await say(bob, room_id, "here")
    await reads(alice, room_id, "here")


def _replaced(**values: Any) -> Callable[[bytes], bytes]:
    return lambda body: orjson.dumps(orjson.loads(body) | values)


def _without(type_: str) -> Callable[[bytes], bytes]:
    def change(body: bytes) -> bytes:
        answer = orjson.loads(body)
        return orjson.dumps(
            answer
            | {
                name: [event for event in answer[name] if event["type"] != type_]
                for name in ("state", "auth_chain")
            }
        )

    return change


def _forged(body: bytes) -> bytes:
    """Power levels that nobody of the room signed."""
    answer = orjson.loads(body)
    for event in answer["state"]:
        if event["type"] == "m.room.power_levels":
            event["content"]["users"] = {"@bob:two.test": 100}
            event["signatures"] = {"one.test": dict.fromkeys(event["signatures"]["one.test"], "A" * 86)}
    return orjson.dumps(answer)


@pytest.mark.parametrize(
    "change",
    [
        lambda body: b"",
        lambda body: b"[]",
        lambda body: body[:-10],
        lambda body: b'{"state":' + b"[" * 100_000,
        _replaced(state=7),
        _replaced(state=[], auth_chain=[]),
        _replaced(state=[{}] * 5_000),
        _replaced(event={}),
        _without("m.room.create"),
        _without("m.room.join_rules"),
    ],
)
async def test_a_room_that_cannot_be_is_not_entered(
    network: Network, change: Callable[[bytes], bytes]
) -> None:
    one, two = await network.server("one"), await network.server("two")
    alice, bob = await one.register("alice"), await two.register("bob")
    room_id = await create_room(alice, "12", preset="public_chat")
    honest = network.app_of(one)
    Tampering(network, "one.test", "/send_join/", change)
    answer = await join(bob, room_id)
    assert answer.status == 502, answer.body
    assert (await bob.get(f"{C}/joined_rooms")).json["joined_rooms"] == []
    network.add("one.test", honest)
    answer = await join(bob, room_id)
    assert answer.status == 200, answer.body


async def test_forged_state_is_left_out_of_a_room_that_is_joined(network: Network) -> None:
    one, two = await network.server("one"), await network.server("two")
    alice, bob = await one.register("alice"), await two.register("bob")
    room_id = await create_room(alice, "12", preset="public_chat")
    Tampering(network, "one.test", "/send_join/", _forged)
    await join(bob, room_id)
    path = f"{C}/rooms/{segment(room_id)}/state/m.room.power_levels/"
    answer = await bob.get(path)
    assert "@bob:two.test" not in str(answer.json)
    changed = await bob.put(f"{C}/rooms/{segment(room_id)}/state/m.room.topic/", {"topic": "mine"})
    assert changed.status == 403


class Bottomless:
    """A peer that always tells of one more event that comes before, and of one more that authorizes."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.count = 0
        peer = scene.peer
        self._answer = peer._answer
        peer._answer = self.answer  # type: ignore[method-assign]

    def event(self, **more: Any) -> Any:
        """A message behind one that nobody has heard of yet."""
        self.count += 1
        scene = self.scene
        nowhere = scene.peer.message(scene.room, scene.bob, f"n{self.count}", scene.last, is_kept=False)
        return scene.peer.message(
            scene.room,
            scene.bob,
            f"b{self.count}",
            nowhere,
            state=scene.room.after[scene.last.event_id],
            is_kept=False,
            **more,
        )

    def answer(self, path: Any, query: Any, body: bytes) -> Any:
        shown = self.scene.peer._shown
        match path:
            case ["v1", "get_missing_events", _]:
                return {"events": shown(self.event() for _ in range(20))}
            case ["v1", "state_ids", _]:
                ids = [self.event().event_id for _ in range(150)]
                return {"pdu_ids": ids, "auth_chain_ids": ids}
            case ["v1", "state", _]:
                pdus = shown(self.event() for _ in range(150))
                return {"pdus": pdus, "auth_chain": pdus}
            case ["v1", "event_auth", *_]:
                return {"auth_chain": shown(self.event(auth=[self.event()]) for _ in range(20))}
            case ["v1", "event", _]:
                return {"pdus": shown([self.event(auth=[self.event()])])}
            case ["v1", "backfill", _]:
                return {"pdus": shown(self.event() for _ in range(100))}
        return self._answer(path, query, body)


async def test_a_past_without_bottom_is_not_dug_for_ever(scene: Scene) -> None:
    bottomless = Bottomless(scene)
    good = scene.peer.message(scene.room, scene.bob, "good", scene.last)
    async with asyncio.timeout(30):
        results = await scene.send(*(bottomless.event() for _ in range(5)), good)
    assert results[good.event_id] == {}
    assert ["error" in results[event_id] for event_id in results if event_id != good.event_id] == [True] * 5
    assert await scene.bodies() == ["good"]
    assert len(scene.peer.asked) < 1_000
    assert await scene.say("on we go")


async def test_who_tells_too_slowly_is_one_who_tells_nothing(scene: Scene, network: Network) -> None:
    """Each answer comes right before anybody gives up waiting for it, and there is always one more to ask for."""
    bottomless = Bottomless(scene)
    peer = scene.peer
    seconds = {"get_missing_events": 55, "state_ids": 250}

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        network.clock.skip(seconds.get(scope["path"].split("/")[4], 0))
        await peer(scope, receive, send)

    network.add(peer.name, slow)
    good = scene.peer.message(scene.room, scene.bob, "good", scene.last)
    started = network.clock.monotonic()
    results = await scene.send(bottomless.event(), good)
    assert results[good.event_id] == {}
    assert await scene.bodies() == ["good"]
    assert network.clock.monotonic() - started < 600


async def test_a_history_without_bottom_is_read_page_by_page(scene: Scene) -> None:
    """Whoever scrolls up in such a room gets an end, or pages without it, but no page takes for ever."""
    Bottomless(scene)
    token = None
    async with asyncio.timeout(30):
        for _ in range(5):
            page = await scene.alice.get(
                f"{C}/rooms/{scene.room.room_id}/messages",
                dir="b",
                limit=10,
                **({} if token is None else {"from": token}),
            )
            assert page.status == 200, page.body
            token = page.json.get("end")
            if token is None:
                break
