"""Clients of before /sync hear of everything, in order and once; who looks in from outside hears of that room."""

import asyncio

import pytest

from .client import segment
from .rooms import C, create, do, say, set_state


async def stream(user, since=None, **query):
    answer = await user.get(f"{C}/events", timeout=query.pop("timeout", 0), **{"from": since}, **query)
    assert answer.status == 200, answer.body
    return answer.json


async def start(user, **query):
    answer = await user.get(f"{C}/initialSync", **query)
    assert answer.status == 200, answer.body
    return answer.json


def said(chunk, room):
    return [event["content"].get("body") for event in chunk if event.get("room_id") == room]


async def test_a_client_starts_and_listens_on_from_there(alice, bob):
    room = await create(alice, preset="public_chat", visibility="public", name="Hall")
    await do(bob, room, "join")
    for number in range(5):
        await say(alice, room, f"m{number}")
    await bob.put(f"{C}/user/{segment(bob.user_id)}/account_data/a.b", {"x": 1})
    first = await start(bob, limit=2)
    (told,) = first["rooms"]
    assert (told["room_id"], told["membership"], told["visibility"]) == (room, "join", "public")
    assert said(told["messages"]["chunk"], room) == ["m3", "m4"]
    assert {"type": "a.b", "content": {"x": 1}} in first["account_data"]
    names = [event["content"]["name"] for event in told["state"] if event["type"] == "m.room.name"]
    assert names == ["Hall"]
    page = await bob.get(
        f"{C}/rooms/{segment(room)}/messages", dir="b", limit=3, **{"from": told["messages"]["start"]}
    )
    assert said(page.json["chunk"], room) == ["m2", "m1", "m0"]
    await say(alice, room, "later")
    heard = await stream(bob, first["end"])
    assert said(heard["chunk"], room) == ["later"]
    assert said((await stream(bob, heard["end"]))["chunk"], room) == []


async def test_listening_wakes_at_once(alice, bob):
    room = await create(alice, preset="public_chat")
    await do(bob, room, "join")
    since = (await start(bob))["end"]
    waiting = asyncio.create_task(stream(bob, since, timeout=20_000))
    await asyncio.sleep(0)
    await say(alice, room, "hello")
    heard = await asyncio.wait_for(waiting, 5)
    assert said(heard["chunk"], room) == ["hello"]


async def test_invites_and_left_rooms_are_told(alice, bob):
    room = await create(alice, preset="public_chat", name="Gone")
    await do(bob, room, "join")
    await do(bob, room, "leave")
    invited = await create(alice, preset="private_chat", invite=[bob.user_id])
    rooms = {one["room_id"]: one for one in (await start(bob))["rooms"]}
    assert set(rooms) == {invited}
    assert rooms[invited]["membership"] == "invite"
    assert rooms[invited]["invite"]["content"]["membership"] == "invite"
    archived = {one["room_id"]: one for one in (await start(bob, archived="true"))["rooms"]}
    assert archived[room]["membership"] == "leave"


async def test_messages_to_the_device_are_left_to_sync(alice, bob):
    await start(bob)
    message = {"messages": {bob.user_id: {"*": {"x": 1}}}}
    assert (await alice.put(f"{C}/sendToDevice/a.b/1", message)).status == 200
    heard = await stream(bob)
    await stream(bob, heard["end"])
    told = await bob.get(f"{C}/sync", timeout=0)
    assert [event["content"] for event in told.json["to_device"]["events"]] == [{"x": 1}]


async def test_who_is_not_in_the_room_hears_it_if_the_world_may(alice, bob):
    room = await create(alice, preset="public_chat")
    assert (await bob.get(f"{C}/events", room_id=room, timeout=0)).status == 403
    assert (await bob.get(f"{C}/events", room_id="!nowhere:test", timeout=0)).status == 403
    await set_state(alice, room, "m.room.history_visibility", {"history_visibility": "world_readable"})
    begun = await stream(bob, room_id=room)
    waiting = asyncio.create_task(stream(bob, begun["end"], room_id=room, timeout=20_000))
    await asyncio.sleep(0.05)
    await say(alice, room, "for all")
    heard = await asyncio.wait_for(waiting, 5)
    assert said(heard["chunk"], room) == ["for all"]
    assert said((await stream(bob, heard["end"], room_id=room))["chunk"], room) == []


@pytest.mark.parametrize("query", [{"from": "x"}, {"timeout": "soon"}, {"room_id": "nothing"}])
async def test_what_is_wrong_is_told(bob, query):
    assert (await bob.get(f"{C}/events", **query)).status == 400


async def test_a_token_is_needed(homeserver):
    for path in ("events", "initialSync"):
        answer = await homeserver.client.get(f"{C}/{path}")
        assert (answer.status, answer.errcode) == (401, "M_MISSING_TOKEN")
