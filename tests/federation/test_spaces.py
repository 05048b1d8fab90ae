"""Trees of spaces and summaries of rooms that lie on several servers."""

from typing import Any

import pytest

from ranvier.core.canonical_json import encode
from ranvier.core.errors import ProtocolFault
from ranvier.core.identifiers import RoomID, ServerName
from ranvier.io.ports import HttpRequest, HttpResponse, Misbehaved
from ranvier.services.rooms.remote_spaces import parse_space
from ranvier.services.rooms.space_children import MAX_CHILDREN

from ..http.client import segment
from ..http.homeserver import User
from .network import Network
from .test_rooms import create_room, join

C = "/_matrix/client/v1"


async def space(user: User, *children: str, via: str = "one.test", **more: Any) -> str:
    state = [{"type": "m.space.child", "state_key": child, "content": {"via": [via]}} for child in children]
    body = {"preset": "public_chat", "creation_content": {"type": "m.space"}} | more
    return await create_room(user, "11", initial_state=state, **body)


async def tree(user: User, room_id: str, **query: Any) -> list[str]:
    """The names of the rooms, in their order; all pages."""
    names: list[str] = []
    while True:
        answer = await user.get(f"{C}/rooms/{segment(room_id)}/hierarchy", **query)
        assert answer.status == 200, answer.body
        names += [room.get("name", "?") for room in answer.json["rooms"]]
        if "next_batch" not in answer.json:
            return names
        query["from"] = answer.json["next_batch"]


async def add_child(user: User, space_id: str, child: str, via: str) -> None:
    path = f"/_matrix/client/v3/rooms/{segment(space_id)}/state/m.space.child/{segment(child)}"
    assert (await user.put(path, {"via": [via]})).status == 200


@pytest.fixture
async def users(network: Network) -> tuple[User, User]:
    one, two = await network.server("one"), await network.server("two")
    return await one.register("alice"), await two.register("bob")


def asked(network: Network, name: str) -> int:
    return sum(asker == f"{name}.test" and "/hierarchy/" in request.url for asker, request in network.log)


async def test_tree_spans_servers(network: Network, users: tuple[User, User]) -> None:
    """Spaces of one server in those of another, and back again; in circles, too."""
    alice, bob = users
    open_room = await create_room(alice, "11", preset="public_chat", name="open")
    hidden = await create_room(alice, "11", preset="private_chat", name="hidden")
    own = await create_room(bob, "11", preset="private_chat", name="own")
    inner = await space(alice, open_room, hidden, own, name="inner")
    outer = await space(bob, inner, name="outer")
    await add_child(alice, inner, outer, "two.test")
    expected = ["outer", "inner", "open", "own"]
    found = await tree(bob, outer)
    assert found[:2] == expected[:2]
    assert sorted(found) == sorted(expected)
    assert await tree(bob, outer, limit=1) == found
    assert await tree(bob, outer, max_depth=1) == ["outer", "inner"]
    # What alice is shown of bob's: nothing of his own room.
    assert sorted(await tree(alice, inner)) == ["hidden", "inner", "open", "outer"]
    # A root that is nowhere here.
    assert sorted(await tree(bob, inner)) == sorted(expected)


async def test_answers_are_kept_for_a_while(network: Network, users: tuple[User, User]) -> None:
    alice, bob = users
    leaf = await create_room(alice, "11", preset="public_chat", name="leaf")
    root = await space(bob, await space(alice, leaf, name="inner"), name="root")
    await tree(bob, root)
    count = asked(network, "two")
    assert await tree(bob, root, limit=1) == ["root", "inner", "leaf"]
    assert asked(network, "two") == count
    network.clock.skip(3600)
    await tree(bob, root)
    assert asked(network, "two") > count


async def test_restricted_rooms_of_others(network: Network, users: tuple[User, User]) -> None:
    """What members of another room may see is shown to those who are invited, too."""
    alice, bob = users
    club = await create_room(bob, "11", preset="private_chat", name="club")
    rules = {"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": club}]}
    inner = await create_room(
        alice,
        "11",
        preset="private_chat",
        name="inner",
        initial_state=[{"type": "m.room.join_rules", "content": rules}],
        invite=[bob.user_id],
    )
    root = await space(bob, inner, name="root")
    assert await tree(bob, root) == ["root", "inner"]


async def test_unreachable_servers_leave_holes(network: Network, users: tuple[User, User]) -> None:
    alice, bob = users
    near = await create_room(bob, "11", preset="public_chat", name="near")
    far = await create_room(alice, "11", preset="public_chat", name="far")
    root = await space(bob, far, near, "!nowhere:gone.test", name="root")
    network.cut("one", "two")
    assert await tree(bob, root) == ["root", "near"]
    answer = await bob.get(f"{C}/rooms/{segment(far)}/hierarchy")
    assert answer.errcode == "M_FORBIDDEN"


async def test_summary_of_a_remote_room(network: Network, users: tuple[User, User]) -> None:
    alice, bob = users
    room_id = await create_room(alice, "12", preset="public_chat", name="hall", room_alias_name="hall")
    path = f"{C}/room_summary/"
    assert (await bob.get(path + segment(room_id))).errcode == "M_NOT_FOUND"
    answer = await bob.get(path + segment(room_id), via="one.test")
    assert (answer.status, answer.json["name"], answer.json["room_version"]) == (200, "hall", "12")
    assert (await bob.get(path + segment("#hall:one.test"))).json["room_id"] == room_id
    hidden = await create_room(alice, "12", preset="private_chat", name="hidden")
    assert (await bob.get(path + segment(hidden), via="one.test")).errcode == "M_NOT_FOUND"
    assert (await bob.get(path + segment(room_id), via="?")).status == 400


async def test_after_leaving_the_server_is_asked_again(network: Network, users: tuple[User, User]) -> None:
    alice, bob = users
    room_id = await create_room(alice, "11", preset="public_chat", name="old")
    assert (await join(bob, room_id)).status == 200
    assert (await bob.post(f"/_matrix/client/v3/rooms/{segment(room_id)}/leave", {})).status == 200
    path = f"/_matrix/client/v3/rooms/{segment(room_id)}/state/m.room.name/"
    assert (await alice.put(path, {"name": "new"})).status == 200
    answer = await bob.get(f"{C}/room_summary/{segment(room_id)}")
    assert (answer.status, answer.json["name"], answer.json["membership"]) == (200, "new", "leave")


async def test_hostile_answers(network: Network, users: tuple[User, User]) -> None:
    """Whatever a server tells, a page comes of it."""
    alice, bob = users
    far = await create_room(alice, "11", preset="public_chat", name="far")
    root = await space(bob, far, name="root")
    told = {"room_id": far, "num_joined_members": 1, "world_readable": True, "guest_can_join": False}
    loop = {"type": "m.space.child", "state_key": far, "sender": "@a:one.test", "origin_server_ts": 1}
    loop |= {"content": {"via": ["one.test"]}}
    answers: list[Any] = [
        [],
        {},
        {"room": 7},
        {"room": told | {"room_id": "!other:one.test"}},
        {"room": told | {"num_joined_members": "many"}},
        {"room": told | {"room_type": "m.space", "children_state": [loop, 7, {}, {"type": 7}]}},
        {"room": told, "children": [None, {"room_id": 7}], "inaccessible_children": [{}, far]},
        {"room": told | {"room_type": "m.space", "children_state": [loop | {"content": {"via": 7}}]}},
    ]
    for answer in answers:
        network.clock.skip(3600)

        def reply(request: HttpRequest, answer: Any = answer) -> HttpResponse | None:
            return (
                HttpResponse(200, {}, encode({"a": answer})[5:-1]) if "/hierarchy/" in request.url else None
            )

        network.before["one.test"] = reply
        found = await tree(bob, root)
        assert found in (["root"], ["root", "?"]), answer


def test_parsed_spaces_are_bounded() -> None:
    room_id = RoomID("!a:b")
    child = {"type": "m.space.child", "sender": "@a:b", "origin_server_ts": 1, "content": {"via": ["b"]}}
    children = [child | {"state_key": f"!{count}:b"} for count in range(MAX_CHILDREN + 10)]
    answer = {"room": {"room_id": room_id, "room_type": "m.space", "children_state": children}}
    told = parse_space(ServerName("b"), room_id, answer, suggested_only=False)
    assert len(told.children) == MAX_CHILDREN
    assert not parse_space(ServerName("b"), room_id, answer, suggested_only=True).children
    with pytest.raises(Misbehaved):
        parse_space(ServerName("b"), RoomID("!c:d"), answer, suggested_only=False)
    assert not issubclass(Misbehaved, ProtocolFault)
