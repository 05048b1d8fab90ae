"""POST /rooms/{roomId}/upgrade: what goes over, and what is left behind."""

import pytest

from .client import segment
from .rooms import C, ask, create, do, get_state, membership, put_state, set_state


async def upgrade(user, room_id, version, **more):
    answer = await ask(user, room_id, "upgrade", new_version=version, **more)
    assert answer.status == 200, answer.body
    return answer.json["replacement_room"]


@pytest.mark.parametrize(("old", "new"), [("1", "12"), ("9", "10"), ("11", "12"), ("12", "12"), ("12", "11")])
async def test_a_room_goes_over(alice, bob, old, new):
    room_id = await create(
        alice,
        room_version=old,
        visibility="public",
        room_alias_name="pub",
        name="The Pub",
        topic="Beer",
        creation_content={"m.federate": False, "type": "m.space"},
        initial_state=[
            {"type": "m.room.encryption", "content": {"algorithm": "m.megolm.v1.aes-sha2"}},
            {"type": "m.room.avatar", "content": {"url": "mxc://test/a"}},
            {"type": "m.room.server_acl", "content": {"allow": ["*"]}},
            {"type": "m.room.guest_access", "content": {"guest_access": "can_join"}},
            {"type": "m.space.child", "state_key": "!kid:test", "content": {"via": ["test"]}},
            {"type": "org.other", "content": {"stays": "here"}},
        ],
    )
    await do(bob, room_id, "join")
    await do(alice, room_id, "ban", user_id="@eve:test", reason="spam")
    new_id = await upgrade(alice, room_id, new)

    content = await get_state(alice, new_id, "m.room.create")
    assert content["room_version"] == new
    assert content["type"] == "m.space"
    assert content["m.federate"] is False
    assert content["predecessor"]["room_id"] == room_id
    assert ("event_id" in content["predecessor"]) == (new != "12")
    for event_type, key in (
        ("m.room.name", ""),
        ("m.room.topic", ""),
        ("m.room.encryption", ""),
        ("m.room.avatar", ""),
        ("m.room.server_acl", ""),
        ("m.room.join_rules", ""),
        ("m.room.history_visibility", ""),
        ("m.room.guest_access", ""),
        ("m.space.child", "!kid:test"),
    ):
        assert await get_state(alice, new_id, event_type, key) == await get_state(
            alice, room_id, event_type, key
        )
    assert await get_state(alice, new_id, "m.room.canonical_alias") == {"alias": "#pub:test"}
    other = await alice.get(f"{C}/rooms/{segment(new_id)}/state/org.other")
    assert other.errcode == "M_NOT_FOUND"
    assert await membership(alice, new_id, "@eve:test") == "ban"

    tombstone = await get_state(bob, room_id, "m.room.tombstone")
    assert tombstone["replacement_room"] == new_id
    old_levels = await get_state(bob, room_id, "m.room.power_levels")
    assert (old_levels["events_default"], old_levels["invite"]) == (50, 50)
    assert await get_state(bob, room_id, "m.room.canonical_alias") == {}
    said = await bob.put(f"{C}/rooms/{segment(room_id)}/send/m.room.message/1", {})
    assert said.errcode == "M_FORBIDDEN"

    assert (await alice.get(f"{C}/directory/room/{segment('#pub:test')}")).json["room_id"] == new_id
    assert [room["room_id"] for room in (await alice.get(f"{C}/publicRooms")).json["chunk"]] == [new_id]
    await do(bob, new_id, "join")
    await set_state(alice, new_id, "m.room.name", {"name": "still mine"})
    levels = await get_state(alice, new_id, "m.room.power_levels")
    assert ("@alice:test" in levels["users"]) == (new != "12")
    if new == "12":
        assert levels["events"]["m.room.tombstone"] > levels["state_default"]


async def test_who_upgrades_need_not_be_the_mightiest(alice, bob):
    levels = {
        "users": {"@alice:test": 100, "@bob:test": 60},
        "events": {"m.room.tombstone": 60, "m.room.history_visibility": 100, "m.room.power_levels": 100},
    }
    room_id = await create(
        alice, room_version="10", preset="public_chat", name="x", power_level_content_override=levels
    )
    await do(bob, room_id, "join")
    new_id = await upgrade(bob, room_id, "11")
    new_levels = await get_state(bob, new_id, "m.room.power_levels")
    assert new_levels["users"] == levels["users"]
    assert await get_state(bob, new_id, "m.room.history_visibility") == {"history_visibility": "shared"}
    # Bob could not close the old room for others, but it says where to go.
    assert (await get_state(alice, room_id, "m.room.tombstone"))["replacement_room"] == new_id


async def test_levels_become_numbers(alice):
    levels = {"users": {"@alice:test": "100", "@bob:test": "50"}, "ban": "60", "events": {"m.x": "7"}}
    room_id = await create(alice, room_version="9")
    await set_state(alice, room_id, "m.room.power_levels", levels)
    new_id = await upgrade(alice, room_id, "12")
    content = await get_state(alice, new_id, "m.room.power_levels")
    assert content["users"] == {"@bob:test": 50}
    assert content["ban"] == 60
    assert content["events"] == {"m.x": 7, "m.room.tombstone": 150}


async def test_creators_of_the_new_room(alice):
    room_id = await create(alice, room_version="12", creation_content={"additional_creators": ["@old:test"]})
    new_id = await upgrade(alice, room_id, "12", additional_creators=["@new:test"])
    assert (await get_state(alice, new_id, "m.room.create"))["additional_creators"] == ["@new:test"]
    plain = await upgrade(
        alice, await create(alice, room_version="11"), "11", additional_creators=["@x:test"]
    )
    assert "additional_creators" not in await get_state(alice, plain, "m.room.create")


async def test_what_users_kept_goes_with_them(alice, bob):
    room_id = await create(alice, preset="public_chat")
    await do(bob, room_id, "join")
    path = f"{C}/user/@bob:test"
    await bob.put(f"{path}/rooms/{segment(room_id)}/tags/m.favourite", {"order": 0.5})
    await bob.put(f"{path}/account_data/m.direct", {"@alice:test": [room_id], "@x:test": ["!y:z"]})
    await bob.put(f"{C}/pushrules/global/room/{segment(room_id)}", {"actions": []})
    new_id = await upgrade(alice, room_id, "12")
    await do(bob, new_id, "join")
    tags = (await bob.get(f"{path}/rooms/{segment(new_id)}/tags")).json
    assert tags == {"tags": {"m.favourite": {"order": 0.5}}}
    direct = (await bob.get(f"{path}/account_data/m.direct")).json
    assert direct == {"@alice:test": [room_id, new_id], "@x:test": ["!y:z"]}
    rule = await bob.get(f"{C}/pushrules/global/room/{segment(new_id)}/actions")
    assert rule.json == {"actions": []}
    # A room that only claims to be the successor gets nothing.
    other = await create(alice, preset="public_chat", creation_content={"predecessor": {"room_id": room_id}})
    await do(bob, other, "join")
    assert (await bob.get(f"{path}/rooms/{segment(other)}/tags")).json == {"tags": {}}


async def test_a_room_that_is_replaced_by_hand(alice, bob):
    room_id = await create(alice, preset="public_chat")
    await alice.put(f"{C}/pushrules/global/room/{segment(room_id)}", {"actions": []})
    predecessor = {"predecessor": {"room_id": room_id}}
    new_id = await create(alice, preset="public_chat", creation_content=predecessor)
    other = await create(alice, preset="public_chat")
    rule = f"{C}/pushrules/global/room/{segment(new_id)}/actions"
    assert (await alice.get(rule)).errcode == "M_NOT_FOUND"
    for replacement in (other, new_id, "!none:test", 5):
        await set_state(alice, room_id, "m.room.tombstone", {"body": "", "replacement_room": replacement})
    assert (await alice.get(rule)).json == {"actions": []}
    rule = f"{C}/pushrules/global/room/{segment(other)}/actions"
    assert (await alice.get(rule)).errcode == "M_NOT_FOUND"


async def test_who_may_not_upgrade(alice, bob):
    room_id = await create(alice, preset="public_chat")
    for room in (room_id, "!" + "x" * 43):
        answer = await ask(bob, room, "upgrade", new_version="12")
        assert (answer.status, answer.errcode) == (403, "M_FORBIDDEN")
    await do(bob, room_id, "join")
    assert (await ask(bob, room_id, "upgrade", new_version="12")).errcode == "M_FORBIDDEN"
    for body, errcode in (
        ({"new_version": "99"}, "M_UNSUPPORTED_ROOM_VERSION"),
        ({"new_version": 12}, "M_BAD_JSON"),
        ({}, "M_MISSING_PARAM"),
        ({"new_version": "12", "additional_creators": ["x"]}, "M_BAD_JSON"),
    ):
        answer = await ask(alice, room_id, "upgrade", **body)
        assert (answer.status, answer.errcode) == (400, errcode)
    assert (await alice.get(f"{C}/rooms/{segment(room_id)}/state/m.room.tombstone")).status == 404
    assert (await put_state(bob, room_id, "m.room.tombstone", {})).errcode == "M_FORBIDDEN"
