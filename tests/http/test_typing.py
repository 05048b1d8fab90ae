"""Typing: who says so, until when, and that everybody in the room hears the end."""

import pytest

from .client import segment
from .homeserver import Homeserver, User
from .scripted_room import Room

SYNC = "/_matrix/client/v3/sync"


@pytest.fixture
async def room(homeserver: Homeserver, alice: User, bob: User) -> Room:
    room = await Room.create(homeserver, alice)
    await room.join(bob)
    return room


def path(room: Room, user: User) -> str:
    return f"{room.path}/typing/{segment(user.user_id)}"


async def typists(user: User, room: Room, since: str, wait_ms: int = 0) -> tuple[list[str] | None, str]:
    answer = (await user.get(SYNC, since=since, timeout=wait_ms)).json
    joined = answer.get("rooms", {}).get("join", {}).get(room.room_id, {})
    events = joined.get("ephemeral", {}).get("events", [])
    found = [event["content"]["user_ids"] for event in events if event["type"] == "m.typing"]
    return (found[0] if found else None), answer["next_batch"]


async def test_typing_is_seen_until_it_stops(alice, bob, room):
    since = (await bob.get(SYNC)).json["next_batch"]
    assert (await alice.put(path(room, alice), {"typing": True, "timeout": 30_000})).json == {}
    found, since = await typists(bob, room, since)
    assert found == [alice.user_id]
    # Going on typing is no news.
    await alice.put(path(room, alice), {"typing": True})
    found, since = await typists(bob, room, since)
    assert found is None
    assert (await alice.put(path(room, alice), {"typing": False})).json == {}
    found, since = await typists(bob, room, since)
    assert found == []


async def test_who_says_no_more_stops_typing(alice, bob, room):
    since = (await bob.get(SYNC)).json["next_batch"]
    await alice.put(path(room, alice), {"typing": True, "timeout": 1})
    found, since = await typists(bob, room, since)
    assert found == [alice.user_id]
    found, since = await typists(bob, room, since, wait_ms=10_000)
    assert found == []


@pytest.mark.parametrize(
    ("body", "status", "errcode"),
    [
        ({}, 400, "M_MISSING_PARAM"),
        ({"typing": "yes"}, 400, "M_BAD_JSON"),
        ({"typing": True, "timeout": "long"}, 400, "M_BAD_JSON"),
        ({"typing": True, "timeout": -5}, 200, None),
        ({"typing": True, "timeout": 2**62}, 200, None),
        ({"typing": False}, 200, None),
    ],
)
async def test_bodies(alice, room, body, status, errcode):
    answer = await alice.put(path(room, alice), body)
    assert (answer.status, answer.errcode) == (status, errcode)


async def test_only_members_and_only_of_themselves(homeserver, alice, bob, room):
    carol = await homeserver.register("carol")
    body = {"typing": True}
    assert (await alice.put(path(room, bob), body)).errcode == "M_FORBIDDEN"
    assert (await carol.put(path(room, carol), body)).errcode == "M_FORBIDDEN"
    nowhere = f"/_matrix/client/v3/rooms/!no:test/typing/{segment(alice.user_id)}"
    assert (await alice.put(nowhere, body)).errcode == "M_FORBIDDEN"
    assert (await alice.as_user(None).put(path(room, alice), body)).errcode == "M_MISSING_TOKEN"
