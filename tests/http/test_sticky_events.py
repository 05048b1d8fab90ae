"""Sticky events: delivered to whoever is joined, once, until they expire."""

import json
from typing import Any

import pytest

from .client import Answer, segment
from .homeserver import Homeserver, User
from .rooms import C, create, do, get_state, say

TYPE = "com.example.call"
PARAM = "org.matrix.msc4354.sticky_duration_ms"
SLIDING = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
EXTENSION = "org.matrix.msc4354.sticky_events"


async def stick(user: User, room_id: str, name: str, duration_ms: object = 600_000, **query: Any) -> Answer:
    path = f"{C}/rooms/{segment(room_id)}/send/{TYPE}/{segment(name)}"
    return await user.put(path, {"name": name}, **{PARAM: duration_ms}, **query)


async def sync(user: User, since: str | None = None, limit: int = 2, **more: Any) -> Any:
    wanted = json.dumps({"room": {"timeline": {"limit": limit, **more}}})
    answer = await user.get(f"{C}/sync", since=since, filter=wanted)
    assert answer.status == 200, answer.body
    return answer.json


def names(events: Any) -> list[str]:
    return [event["content"]["name"] for event in events if event["type"] == TYPE]


def sticky_in(response: Any, room_id: str) -> list[str]:
    room = response.get("rooms", {}).get("join", {}).get(room_id, {})
    return names(room.get("msc4354_sticky", {}).get("events", ()))


async def test_what_a_limited_timeline_does_not_show_is_told_once(homeserver: Homeserver) -> None:
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    room_id = await create(alice, preset="public_chat")
    await do(bob, room_id, "join")
    before = await sync(bob)
    assert "msc4354_sticky" not in before["rooms"]["join"][room_id]
    assert (await stick(alice, room_id, "a")).status == 200
    for number in range(3):
        await say(alice, room_id, f"{number}")
    assert (await stick(alice, room_id, "b")).status == 200
    for response in (await sync(bob, before["next_batch"]), await sync(bob)):
        assert sticky_in(response, room_id) == ["a"]
        room = response["rooms"]["join"][room_id]
        assert names(room["timeline"]["events"]) == ["b"]
        (event,) = room["msc4354_sticky"]["events"]
        assert event["msc4354_sticky"] == {"duration_ms": 600_000}
        assert 0 < event["unsigned"]["msc4354_sticky_duration_ttl_ms"] <= 600_000
        assert event["sender"] == "@alice:test"
        again = await sync(bob, response["next_batch"])
        assert sticky_in(again, room_id) == []


async def test_a_whole_timeline_is_enough(homeserver: Homeserver) -> None:
    alice = await homeserver.register("alice")
    room_id = await create(alice)
    before = await sync(alice)
    await stick(alice, room_id, "a")
    response = await sync(alice, before["next_batch"])
    assert names(response["rooms"]["join"][room_id]["timeline"]["events"]) == ["a"]
    assert sticky_in(response, room_id) == []


async def test_a_filter_keeps_nothing_back(homeserver: Homeserver) -> None:
    alice = await homeserver.register("alice")
    room_id = await create(alice)
    before = await sync(alice)
    await stick(alice, room_id, "a")
    response = await sync(alice, before["next_batch"], types=["m.room.message"])
    assert sticky_in(response, room_id) == ["a"]


async def test_newcomers_are_told_whatever_the_history_visibility_is(homeserver: Homeserver) -> None:
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    state = [{"type": "m.room.history_visibility", "content": {"history_visibility": "joined"}}]
    room_id = await create(alice, preset="public_chat", initial_state=state)
    before = await sync(bob)
    await stick(alice, room_id, "a")
    assert sticky_in(await sync(bob, before["next_batch"]), room_id) == []
    await do(bob, room_id, "join")
    response = await sync(bob, before["next_batch"])
    assert sticky_in(response, room_id) == ["a"]


async def test_what_expired_or_was_redacted_is_not_told(homeserver: Homeserver) -> None:
    alice = await homeserver.register("alice")
    room_id = await create(alice)
    await stick(alice, room_id, "short", 1_000)
    redacted = (await stick(alice, room_id, "redacted")).json["event_id"]
    await stick(alice, room_id, "kept")
    await do_redact(alice, room_id, redacted)
    for number in range(3):
        await say(alice, room_id, f"{number}")
    homeserver.clock.ahead_ms += 2_000  # type: ignore[attr-defined]
    assert sticky_in(await sync(alice), room_id) == ["kept"]
    event = (await alice.get(f"{C}/rooms/{segment(room_id)}/event/{segment(redacted)}")).json
    assert "msc4354_sticky" not in event


async def do_redact(user: User, room_id: str, event_id: str) -> None:
    answer = await user.put(f"{C}/rooms/{segment(room_id)}/redact/{segment(event_id)}/r", {})
    assert answer.status == 200


async def test_ignored_users_stick_to_nobody(homeserver: Homeserver) -> None:
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    room_id = await create(alice, preset="public_chat")
    await do(bob, room_id, "join")
    await stick(alice, room_id, "a")
    for number in range(3):
        await say(bob, room_id, f"{number}")
    path = f"{C}/user/{segment(bob.user_id)}/account_data/m.ignored_user_list"
    await bob.put(path, {"ignored_users": {"@alice:test": {}}})
    assert sticky_in(await sync(bob), room_id) == []
    assert sticky_in(await sync(alice), room_id) == ["a"]


@pytest.mark.parametrize("duration", [3_600_001, -1, "x", 1.5])
async def test_durations_have_bounds(homeserver: Homeserver, duration: object) -> None:
    alice = await homeserver.register("alice")
    answer = await stick(alice, await create(alice), "a", duration)
    assert (answer.status, answer.errcode) == (400, "M_INVALID_PARAM")


async def test_state_and_delayed_events_can_be_sticky(homeserver: Homeserver) -> None:
    alice = await homeserver.register("alice")
    room_id = await create(alice)
    path = f"{C}/rooms/{segment(room_id)}/state/{TYPE}/k"
    assert (await alice.put(path, {"name": "state"}, **{PARAM: 60_000})).status == 200
    delayed = await stick(alice, room_id, "later", **{"org.matrix.msc4140.delay": 1_000})
    assert "delay_id" in delayed.json
    send = f"/_matrix/client/unstable/org.matrix.msc4140/delayed_events/{delayed.json['delay_id']}/send"
    assert (await alice.post(send, {})).status == 200
    for number in range(3):
        await say(alice, room_id, f"{number}")
    assert await get_state(alice, room_id, TYPE, "k") == {"name": "state"}
    assert sticky_in(await sync(alice), room_id) == ["state", "later"]


async def slide(user: User, pos: str | None = None, timeout: int = 0, **extension: Any) -> Any:  # noqa: ASYNC109
    body = {
        "lists": {"all": {"ranges": [[0, 9]], "timeline_limit": 1, "required_state": []}},
        "extensions": {EXTENSION: {"enabled": True, **extension}},
    }
    answer = await user.post(SLIDING, body, pos=pos, timeout=timeout)
    assert answer.status == 200, answer.body
    return answer.json


def slid(response: Any, room_id: str) -> list[str]:
    rooms = response["extensions"][EXTENSION]["rooms"]
    return names(rooms[room_id]["events"]) if room_id in rooms else []


async def test_sliding_sync_pages_through_them(homeserver: Homeserver) -> None:
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    room_id = await create(alice, preset="public_chat")
    for name in ("a", "b", "c"):
        await stick(alice, room_id, name)
    await say(alice, room_id, "last")
    first = await slide(alice, limit=2)
    assert slid(first, room_id) == ["a", "b"]
    after = first["extensions"][EXTENSION]["next_batch"]
    second = await slide(alice, first["pos"], 5_000, since=after)
    assert slid(second, room_id) == ["c"]
    after = second["extensions"][EXTENSION]["next_batch"]
    quiet = await slide(alice, second["pos"], since=after)
    assert quiet["extensions"][EXTENSION]["rooms"] == {}

    began = await slide(bob)
    since = began["extensions"][EXTENSION]["next_batch"]
    await do(bob, room_id, "join")
    entered = await slide(bob, began["pos"], since=since)
    assert slid(entered, room_id) == ["a", "b", "c"]


async def test_sliding_sync_tells_no_event_twice_in_one_answer(homeserver: Homeserver) -> None:
    alice = await homeserver.register("alice")
    room_id = await create(alice)
    first = await slide(alice)
    since = first["extensions"][EXTENSION]["next_batch"]
    await stick(alice, room_id, "a")
    second = await slide(alice, first["pos"], 5_000, since=since)
    assert names(second["rooms"][room_id]["timeline"]) == ["a"]
    assert slid(second, room_id) == []
