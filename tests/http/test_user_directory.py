"""POST /user_directory/search: people are found by their names, by those who may know of them."""

from typing import Any

import pytest

from ranvier.core.identifiers import UserID
from ranvier.services.user_directory.words import prefixes_of, words_of

from .homeserver import Homeserver, User
from .scripted_room import Room

PATH = "/_matrix/client/v3/user_directory/search"


async def search(user: User, term: str, **more: Any) -> list[str]:
    answer = await user.post(PATH, {"search_term": term, **more})
    assert answer.status == 200, answer.body
    return [found["user_id"] for found in answer.json["results"]]


@pytest.fixture
async def people(homeserver: Homeserver) -> dict[str, User]:
    return {name: await homeserver.register(name) for name in ("alice", "bob", "bobby", "carol")}


async def test_who_shares_a_room_is_found(homeserver: Homeserver, people: dict[str, User]) -> None:
    alice, bob, carol = people["alice"], people["bob"], people["carol"]
    room = await Room.create(homeserver, alice)
    await room.set_state(alice, "m.room.join_rules", {"join_rule": "invite"})
    await room.set_membership(alice, bob, "invite")
    await room.join(bob)
    assert await search(alice, "bob") == ["@bob:test"]
    assert await search(bob, "ali") == ["@alice:test"]
    assert await search(carol, "bob") == []
    await room.leave(bob)
    assert await search(alice, "bob") == []


@pytest.mark.parametrize("opening", ["join_rule", "history_visibility"])
async def test_who_is_in_a_public_room_is_found(
    homeserver: Homeserver, people: dict[str, User], opening: str
) -> None:
    room = await Room.create(homeserver, people["bob"])
    assert await search(people["carol"], "BOB") == ["@bob:test"]
    await room.set_state(people["bob"], "m.room.join_rules", {"join_rule": "invite"})
    assert await search(people["carol"], "bob") == []
    value = {"join_rule": "public", "history_visibility": "world_readable"}[opening]
    type_ = {"join_rule": "m.room.join_rules"}.get(opening, "m.room.history_visibility")
    await room.set_state(people["bob"], type_, {opening: value})
    assert await search(people["carol"], "bob") == ["@bob:test"]


async def test_names_are_found_and_shown(homeserver: Homeserver, people: dict[str, User]) -> None:
    alice, bob = people["alice"], people["bob"]
    room = await Room.create(homeserver, alice)
    await room.join(bob)
    name = {"displayname": "Zoë van der Berg"}
    assert (await bob.put("/_matrix/client/v3/profile/@bob:test/displayname", name)).status == 200
    avatar = {"avatar_url": "mxc://test/abc"}
    assert (await bob.put("/_matrix/client/v3/profile/@bob:test/avatar_url", avatar)).status == 200
    for term in ("zoe", "ZOË", "berg", "der zo", "bob", "@bob:te", "zoe bob"):
        answer = await alice.post(PATH, {"search_term": term})
        assert answer.json == {
            "limited": False,
            "results": [
                {
                    "user_id": "@bob:test",
                    "display_name": "Zoë van der Berg",
                    "avatar_url": "mxc://test/abc",
                }
            ],
        }
    for term in ("oe", "zoe x", "test", ":test", "", "  ", "%", "_", "@"):
        assert await search(alice, term) == []
    renamed = {"displayname": "Bob"}
    await bob.put("/_matrix/client/v3/profile/@bob:test/displayname", renamed)
    assert await search(alice, "zoe") == []


async def test_the_best_come_first_and_some_are_left_out(
    homeserver: Homeserver, people: dict[str, User]
) -> None:
    room = await Room.create(homeserver, people["alice"])
    for name in ("bobby", "bob"):
        await room.join(people[name])
    assert await search(people["alice"], "bob") == ["@bob:test", "@bobby:test"]
    answer = (await people["alice"].post(PATH, {"search_term": "bob", "limit": 1})).json
    assert answer["limited"] is True
    assert [found["user_id"] for found in answer["results"]] == ["@bob:test"]


async def test_searchers_are_found_where_everybody_finds_them(
    homeserver: Homeserver, people: dict[str, User]
) -> None:
    alice, bob = people["alice"], people["bob"]
    room = await Room.create(homeserver, alice)
    assert await search(alice, "alice") == ["@alice:test"]
    await room.set_state(alice, "m.room.join_rules", {"join_rule": "invite"})
    await room.set_membership(alice, bob, "invite")
    await room.join(bob)
    assert await search(alice, "alice") == []
    assert await search(bob, "alice") == ["@alice:test"]


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({}, "M_MISSING_PARAM"),
        ({"search_term": 1}, "M_BAD_JSON"),
        ({"search_term": "x", "limit": -1}, "M_BAD_JSON"),
        ({"search_term": "x", "limit": "1"}, "M_BAD_JSON"),
    ],
)
async def test_bodies_that_do_not_fit(homeserver: Homeserver, body: Any, errcode: str) -> None:
    alice = await homeserver.register("alice")
    answer = await alice.post(PATH, body)
    assert (answer.status, answer.errcode) == (400, errcode)
    assert (await alice.as_user(None).post(PATH, body)).errcode == "M_MISSING_TOKEN"


@pytest.mark.parametrize(
    ("term", "prefixes"),
    [
        ("Bob", ["bob"]),
        ("@bob:ex", ["bob:ex"]),
        ("@bob:", ["bob"]),
        ("a bb ccc", ["ccc", "bb", "a"]),
        ("ﬁsh STRASSE", ["strasse", "fish"]),
        ("straße", ["strasse"]),
        ("x" * 100, ["x" * 64]),
        ("a b c d e f g h", ["a", "b", "c", "d", "e", "f"]),
        ("a\0b", ["ab"]),
    ],
)
def test_what_is_looked_for(term: str, prefixes: list[str]) -> None:
    assert prefixes_of(term) == prefixes


def test_what_a_user_is_found_by() -> None:
    words = words_of(UserID("@jo.doe:example.org"), "Jo Däh " + "w " * 50)
    assert words == ["jo.doe:example.org", "jo.doe", "jo", "doe", "dah", "w"]
    assert len(words_of(UserID("@x:y"), " ".join(map(str, range(100))))) == 20
