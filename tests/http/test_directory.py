"""Aliases, and the directory of published rooms."""

import pytest

from ranvier.app.config import FederationConfig

from .client import segment
from .rooms import C, create, do, get_state, put_state, set_state

UNKNOWN_ROOM = "!" + "x" * 43


@pytest.fixture
async def homeserver(start_homeserver):
    """Without federation: what is not known here is not asked for elsewhere."""
    return await start_homeserver(federation=FederationConfig(enabled=False))


def alias_path(alias):
    return f"{C}/directory/room/{segment(alias)}"


def list_path(room_id):
    return f"{C}/directory/list/room/{segment(room_id)}"


async def test_an_alias_comes_and_goes(alice, homeserver):
    room_id = await create(alice)
    assert (await alice.put(alias_path("#pub:test"), {"room_id": room_id})).json == {}
    nobody = homeserver.client
    assert (await nobody.get(alias_path("#pub:test"))).json == {"room_id": room_id, "servers": ["test"]}
    assert (await alice.get(f"{C}/rooms/{segment(room_id)}/aliases")).json == {"aliases": ["#pub:test"]}
    answer = await alice.put(alias_path("#pub:test"), {"room_id": room_id})
    assert (answer.status, answer.errcode) == (409, "M_UNKNOWN")
    assert (await alice.delete(alias_path("#pub:test"))).json == {}
    for answer in (await alice.delete(alias_path("#pub:test")), await nobody.get(alias_path("#pub:test"))):
        assert (answer.status, answer.errcode) == (404, "M_NOT_FOUND")


@pytest.mark.parametrize(
    ("alias", "body", "status", "errcode"),
    [
        ("pub", {"room_id": UNKNOWN_ROOM}, 400, "M_INVALID_PARAM"),
        ("#:test", {"room_id": UNKNOWN_ROOM}, 400, "M_INVALID_PARAM"),
        ("#pub", {"room_id": UNKNOWN_ROOM}, 400, "M_INVALID_PARAM"),
        ("#a b:test", {"room_id": UNKNOWN_ROOM}, 400, "M_INVALID_PARAM"),
        ("#pub:elsewhere", {"room_id": UNKNOWN_ROOM}, 400, "M_INVALID_PARAM"),
        ("#pub:test", {"room_id": UNKNOWN_ROOM}, 403, "M_FORBIDDEN"),
        ("#pub:test", {"room_id": "pub"}, 400, "M_INVALID_PARAM"),
        ("#pub:test", {}, 400, "M_MISSING_PARAM"),
    ],
)
async def test_aliases_that_cannot_be(alice, alias, body, status, errcode):
    answer = await alice.put(alias_path(alias), body)
    assert (answer.status, answer.errcode) == (status, errcode)


async def test_who_may_name_and_unname(alice, bob, homeserver):
    carol = await homeserver.register("carol")
    room_id = await create(alice, preset="public_chat", room_alias_name="pub")
    assert (await bob.put(alias_path("#bobs:test"), {"room_id": room_id})).errcode == "M_FORBIDDEN"
    await do(bob, room_id, "join")
    assert (await bob.put(alias_path("#bobs:test"), {"room_id": room_id})).status == 200
    assert (await carol.delete(alias_path("#bobs:test"))).errcode == "M_FORBIDDEN"
    assert (await bob.delete(alias_path("#pub:test"))).errcode == "M_FORBIDDEN"
    # Who made it, and who may set the canonical alias.
    assert (await bob.delete(alias_path("#bobs:test"))).status == 200
    assert (await bob.put(alias_path("#bobs:test"), {"room_id": room_id})).status == 200
    assert (await alice.delete(alias_path("#bobs:test"))).status == 200


async def test_a_deleted_alias_is_canonical_no_longer(alice, bob):
    room_id = await create(alice, preset="public_chat", room_alias_name="pub")
    await do(bob, room_id, "join")
    for alias in ("#two:test", "#bobs:test"):
        await bob.put(alias_path(alias), {"room_id": room_id})
    content = {"alias": "#pub:test", "alt_aliases": ["#two:test", "#bobs:test"]}
    await set_state(alice, room_id, "m.room.canonical_alias", content)
    # Bob may delete his alias, but not change the event.
    assert (await bob.delete(alias_path("#bobs:test"))).status == 200
    assert await get_state(alice, room_id, "m.room.canonical_alias") == content
    assert (await alice.delete(alias_path("#pub:test"))).status == 200
    assert (await alice.delete(alias_path("#two:test"))).status == 200
    assert await get_state(alice, room_id, "m.room.canonical_alias") == {"alt_aliases": ["#bobs:test"]}


@pytest.mark.parametrize(
    ("content", "errcode"),
    [
        ({"alias": "#pub:test", "alt_aliases": ["#pub:test"]}, None),
        ({}, None),
        ({"alias": ""}, None),
        ({"alias": None, "alt_aliases": []}, None),
        ({"alias": "#other:test"}, "M_BAD_ALIAS"),
        ({"alt_aliases": ["#pub:test", "#other:test"]}, "M_BAD_ALIAS"),
        ({"alias": "#none:test"}, "M_BAD_ALIAS"),
        ({"alias": "#none:elsewhere"}, "M_BAD_ALIAS"),
        ({"alias": "pub"}, "M_INVALID_PARAM"),
        ({"alias": 5}, "M_INVALID_PARAM"),
        ({"alias": ["#pub:test"]}, "M_INVALID_PARAM"),
        ({"alt_aliases": "#pub:test"}, "M_INVALID_PARAM"),
        ({"alt_aliases": [{}]}, "M_INVALID_PARAM"),
    ],
)
async def test_a_canonical_alias_leads_to_its_room(alice, content, errcode):
    room_id = await create(alice)
    await alice.put(alias_path("#pub:test"), {"room_id": room_id})
    await create(alice, room_alias_name="other")
    answer = await put_state(alice, room_id, "m.room.canonical_alias", content)
    assert answer.status == (400 if errcode else 200)
    assert answer.errcode == errcode


async def test_what_a_canonical_alias_already_names_is_not_asked_again(alice):
    room_id = await create(alice, room_alias_name="pub")
    await alice.put(alias_path("#two:test"), {"room_id": room_id})
    content = {"alias": "#pub:test", "alt_aliases": ["#two:test"]}
    await set_state(alice, room_id, "m.room.canonical_alias", content)
    await set_state(alice, room_id, "m.room.power_levels", {"events": {"m.room.canonical_alias": 50}})
    await set_state(alice, room_id, "m.room.canonical_alias", {**content, "x": 1})


async def test_publishing(alice, bob, homeserver):
    room_id = await create(alice, preset="public_chat")
    nobody = homeserver.client
    assert (await nobody.get(list_path(room_id))).json == {"visibility": "private"}
    for user in (bob,):
        answer = await user.put(list_path(room_id), {"visibility": "public"})
        assert (answer.status, answer.errcode) == (403, "M_FORBIDDEN")
    assert (await alice.put(list_path(room_id), {})).json == {}
    assert (await nobody.get(list_path(room_id))).json == {"visibility": "public"}
    await do(bob, room_id, "join")
    assert (await bob.put(list_path(room_id), {"visibility": "private"})).errcode == "M_FORBIDDEN"
    assert (await alice.put(list_path(room_id), {"visibility": "odd"})).errcode == "M_BAD_JSON"
    assert (await alice.put(list_path(room_id), {"visibility": "private"})).status == 200
    assert (await nobody.get(f"{C}/publicRooms")).json == {"chunk": [], "total_room_count_estimate": 0}
    for answer in (await nobody.get(list_path(UNKNOWN_ROOM)), await alice.put(list_path(UNKNOWN_ROOM), {})):
        assert (answer.status, answer.errcode) == (404, "M_NOT_FOUND")


async def test_what_the_directory_shows(alice, bob, homeserver):
    room_id = await create(
        alice,
        visibility="public",
        room_alias_name="pub",
        name="The Pub",
        topic="Beer",
        creation_content={"type": "m.space"},
        initial_state=[
            {"type": "m.room.avatar", "content": {"url": "mxc://test/a"}},
            {"type": "m.room.history_visibility", "content": {"history_visibility": "world_readable"}},
            {"type": "m.room.guest_access", "content": {"guest_access": "can_join"}},
        ],
    )
    await do(bob, room_id, "join")
    assert (await homeserver.client.get(f"{C}/publicRooms")).json == {
        "chunk": [
            {
                "room_id": room_id,
                "name": "The Pub",
                "topic": "Beer",
                "avatar_url": "mxc://test/a",
                "canonical_alias": "#pub:test",
                "num_joined_members": 2,
                "world_readable": True,
                "guest_can_join": True,
                "join_rule": "public",
                "room_type": "m.space",
            }
        ],
        "total_room_count_estimate": 1,
    }


async def test_pages_go_both_ways(alice, bob):
    names = [f"room {n}" for n in range(5)]
    rooms = [await create(alice, visibility="public", name=name) for name in names]
    await do(bob, rooms[3], "join")
    expected = ["room 3", "room 0", "room 1", "room 2", "room 4"]

    async def page(since=None):
        answer = await alice.post(f"{C}/publicRooms", {"limit": 2, "since": since})
        assert answer.json["total_room_count_estimate"] == 5
        return answer.json, [room["name"] for room in answer.json["chunk"]]

    first, shown = await page()
    assert shown == expected[:2]
    assert "prev_batch" not in first
    second, shown = await page(first["next_batch"])
    assert shown == expected[2:4]
    third, shown = await page(second["next_batch"])
    assert shown == expected[4:]
    assert "next_batch" not in third
    back, shown = await page(third["prev_batch"])
    assert shown == expected[2:4]
    assert (await page(back["next_batch"]))[1] == expected[4:]
    back, shown = await page(second["prev_batch"])
    assert shown == expected[:2]
    assert "prev_batch" not in back
    get = (await alice.get(f"{C}/publicRooms", limit=2, since=first["next_batch"])).json
    assert [room["name"] for room in get["chunk"]] == expected[2:4]


async def test_filters(alice):
    plain = await create(alice, visibility="public", name="Tea_house", topic="quiet")
    space = await create(alice, visibility="public", name="Pub", creation_content={"type": "m.space"})
    game = await create(alice, visibility="public", topic="TEA", creation_content={"type": "org.game"})

    async def found(**filter_):
        answer = await alice.post(f"{C}/publicRooms", {"filter": filter_})
        assert answer.status == 200, answer.body
        assert answer.json["total_room_count_estimate"] == len(answer.json["chunk"])
        return {room["room_id"] for room in answer.json["chunk"]}

    assert await found() == {plain, space, game}
    assert await found(generic_search_term="tea") == {plain, game}
    assert await found(generic_search_term="a_h") == {plain}
    assert await found(generic_search_term="%") == set()
    assert await found(room_types=["m.space"]) == {space}
    assert await found(room_types=[None]) == {plain}
    assert await found(room_types=[None, "org.game"]) == {plain, game}
    assert await found(room_types=[]) == set()
    assert await found(generic_search_term="tea", room_types=["org.game"]) == {game}
    for body, count in (
        ({"include_all_networks": True}, 3),
        ({"third_party_instance_id": "irc"}, 0),
        ({"limit": 0}, 0),
        ({"limit": 10_000}, 3),
    ):
        assert len((await alice.post(f"{C}/publicRooms", body)).json["chunk"]) == count


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({"since": "x"}, "M_INVALID_PARAM"),
        ({"since": "pWzEsMl0"}, "M_INVALID_PARAM"),
        ({"limit": -1}, "M_BAD_JSON"),
        ({"limit": "5"}, "M_BAD_JSON"),
        ({"filter": {"room_types": [5]}}, "M_BAD_JSON"),
        ({"filter": {"generic_search_term": 5}}, "M_BAD_JSON"),
    ],
)
async def test_what_cannot_be_asked(alice, body, errcode):
    assert (await alice.post(f"{C}/publicRooms", body)).errcode == errcode


async def test_directories_of_other_servers(alice):
    assert (await alice.get(f"{C}/publicRooms", server="test")).status == 200
    assert (await alice.get(f"{C}/publicRooms", server="not a name")).errcode == "M_INVALID_PARAM"
    answer = await alice.get(f"{C}/publicRooms", server="elsewhere")
    assert (answer.status, answer.errcode) == (502, "M_UNKNOWN")
