"""Profiles: fields of every kind, their bounds, and how rooms come to show a new name."""

import pytest

from ranvier.app.config import FederationConfig

from .client import segment
from .homeserver import eventually

C = "/_matrix/client/v3"


def field(name, user_id="@alice:test"):
    return f"{C}/profile/{segment(user_id)}/{segment(name)}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("displayname", "Alice"),
        ("avatar_url", "mxc://test/abc"),
        ("m.tz", "Europe/Berlin"),
        ("org.example.list", [1, {"deep": None}]),
        ("org.example.null", None),
    ],
)
async def test_a_field_is_set_read_and_deleted(homeserver, alice, name, value):
    path = field(name)
    assert (await homeserver.client.get(path)).errcode == "M_NOT_FOUND"
    assert (await alice.put(path, {name: value})).json == {}
    assert (await homeserver.client.get(path)).json == {name: value}
    assert (await homeserver.client.get(f"{C}/profile/@alice:test")).json == {name: value}
    for _ in range(2):
        assert (await alice.delete(path)).json == {}
    assert (await homeserver.client.get(f"{C}/profile/@alice:test")).json == {}


async def test_an_empty_name_goes_away(alice):
    await alice.put(field("displayname"), {"displayname": "Alice"})
    await alice.put(field("displayname"), {"displayname": ""})
    assert (await alice.get(field("displayname"))).status == 404


async def test_who_is_not_here_has_no_profile(start_homeserver):
    homeserver = await start_homeserver(federation=FederationConfig(enabled=False))
    for user_id in ("@nobody:test", "@bob:elsewhere"):
        for path in (f"{C}/profile/{user_id}", field("displayname", user_id)):
            answer = await homeserver.client.get(path)
            assert (answer.status, answer.errcode) == (404, "M_NOT_FOUND")
    assert (await homeserver.client.get(f"{C}/profile/alice")).errcode == "M_INVALID_PARAM"


@pytest.mark.parametrize(
    ("name", "body", "errcode"),
    [
        ("displayname", {"avatar_url": "mxc://test/abc"}, "M_MISSING_PARAM"),
        ("displayname", {"displayname": "x" * 257}, "M_INVALID_PARAM"),
        ("displayname", {"displayname": 5}, "M_INVALID_PARAM"),
        ("avatar_url", {"avatar_url": "mxc://test/" + "x" * 1000}, "M_INVALID_PARAM"),
        ("avatar_url", {"avatar_url": None}, "M_INVALID_PARAM"),
        ("m.tz", {"m.tz": 1}, "M_INVALID_PARAM"),
        ("Bad Name", {"Bad Name": 1}, "M_INVALID_PARAM"),
        ("x" * 256, {"x" * 256: 1}, "M_KEY_TOO_LARGE"),
        ("org.example.big", {"org.example.big": "x" * 65_536}, "M_PROFILE_TOO_LARGE"),
    ],
)
async def test_what_cannot_be_set(alice, name, body, errcode):
    answer = await alice.put(field(name), body)
    assert (answer.status, answer.errcode) == (400, errcode)
    assert (await alice.get(f"{C}/profile/@alice:test")).json == {}


async def test_the_whole_profile_is_bounded_not_each_field(alice):
    for number in range(2):
        await alice.put(field(f"org.example.{number}"), {f"org.example.{number}": "x" * 30_000})
    answer = await alice.put(field("org.example.2"), {"org.example.2": "x" * 6_000})
    assert answer.errcode == "M_PROFILE_TOO_LARGE"
    assert (await alice.put(field("org.example.0"), {"org.example.0": 1})).status == 200
    assert (await alice.put(field("org.example.2"), {"org.example.2": "x" * 6_000})).status == 200


async def test_only_ones_own_profile_can_be_changed(homeserver, alice):
    bob = await homeserver.register("bob")
    path = field("displayname")
    assert (await bob.put(path, {"displayname": "Mallory"})).errcode == "M_FORBIDDEN"
    assert (await bob.delete(path)).errcode == "M_FORBIDDEN"
    assert (await homeserver.client.put(path, {"displayname": "x"})).errcode == "M_MISSING_TOKEN"
    assert (await homeserver.client.delete(path)).errcode == "M_MISSING_TOKEN"


async def member_event(client, room_id):
    path = f"{C}/rooms/{segment(room_id)}/state/m.room.member/{segment(client.user_id)}"
    return (await client.get(path)).json


async def test_a_new_name_shows_in_the_rooms_that_the_user_is_in(homeserver, alice):
    bob = await homeserver.register("bob")
    rooms = [
        (await alice.post(f"{C}/createRoom", {"preset": "public_chat"})).json["room_id"] for _ in range(3)
    ]
    left = rooms.pop()
    await alice.post(f"{C}/rooms/{segment(left)}/leave", {})
    await bob.post(f"{C}/join/{segment(rooms[0])}", {})
    await alice.put(field("displayname"), {"displayname": "First"})
    await alice.put(field("displayname"), {"displayname": "Alice"})
    await alice.put(field("avatar_url"), {"avatar_url": "mxc://test/abc"})

    async def is_shown():
        wanted = {"membership": "join", "displayname": "Alice", "avatar_url": "mxc://test/abc"}
        return [await member_event(alice, room_id) for room_id in rooms] == [wanted] * len(rooms)

    await eventually(is_shown)
    assert (await member_event(alice, left))["membership"] == "leave"
    assert (await member_event(bob, rooms[0]))["membership"] == "join"
    await alice.delete(field("avatar_url"))

    async def is_gone():
        wanted = {"membership": "join", "displayname": "Alice"}
        return [await member_event(alice, room_id) for room_id in rooms] == [wanted] * len(rooms)

    await eventually(is_gone)
