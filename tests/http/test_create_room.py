"""POST /createRoom: which events a room begins with, and when there is none."""

import asyncio

import pytest

from .client import segment

C = "/_matrix/client/v3"


async def create(user, **body):
    answer = await user.post(f"{C}/createRoom", body)
    assert answer.status == 200, answer.body
    return answer.json["room_id"]


async def state_of(user, room_id):
    """(type, state_key) -> event, in the order of the events."""
    answer = await user.get(f"{C}/rooms/{segment(room_id)}/state")
    assert answer.status == 200, answer.body
    return {(event["type"], event["state_key"]): event for event in answer.json}


def contents(state):
    return {slot[0]: event["content"] for slot, event in state.items() if slot[1] == ""}


async def test_the_events_come_in_the_specified_order(alice):
    room_id = await create(
        alice,
        room_alias_name="pub",
        name="The Pub",
        topic="Beer",
        initial_state=[
            {"type": "m.room.encryption", "content": {"algorithm": "m.megolm.v1.aes-sha2"}},
            {"type": "org.x", "state_key": "k", "content": {"a": 1}},
            {"type": "m.room.name", "content": {"name": "overwritten"}},
        ],
    )
    state = await state_of(alice, room_id)
    assert [slot[0] for slot in state] == [
        "m.room.create",
        "m.room.member",
        "m.room.power_levels",
        "m.room.canonical_alias",
        "m.room.join_rules",
        "m.room.history_visibility",
        "m.room.guest_access",
        "m.room.encryption",
        "org.x",
        "m.room.name",
        "m.room.topic",
    ]
    assert state["org.x", "k"]["content"] == {"a": 1}
    plain = contents(state)
    assert plain["m.room.name"] == {"name": "The Pub"}
    assert plain["m.room.topic"] == {"topic": "Beer", "m.topic": {"m.text": [{"body": "Beer"}]}}
    assert plain["m.room.canonical_alias"] == {"alias": "#pub:test"}
    assert (await alice.get(f"{C}/directory/room/{segment('#pub:test')}")).json["room_id"] == room_id


@pytest.mark.parametrize(
    ("body", "join_rule", "guest_access"),
    [
        ({}, "invite", "can_join"),
        ({"visibility": "private"}, "invite", "can_join"),
        ({"visibility": "public"}, "public", None),
        ({"preset": "private_chat", "visibility": "public"}, "invite", "can_join"),
        ({"preset": "public_chat"}, "public", None),
        ({"preset": "trusted_private_chat"}, "invite", "can_join"),
    ],
)
async def test_presets(alice, body, join_rule, guest_access):
    plain = contents(await state_of(alice, await create(alice, **body)))
    assert plain["m.room.join_rules"] == {"join_rule": join_rule}
    # Without an event, guests may not join.
    assert plain.get("m.room.guest_access", {}).get("guest_access") == guest_access
    assert plain["m.room.power_levels"]["invite"] == (50 if join_rule == "public" else 0)
    assert plain["m.room.history_visibility"] == {"history_visibility": "shared"}


async def test_initial_state_wins_over_the_preset(alice):
    wished = [{"type": "m.room.history_visibility", "content": {"history_visibility": "joined"}}]
    state = await state_of(alice, await create(alice, preset="public_chat", initial_state=wished))
    assert contents(state)["m.room.history_visibility"] == {"history_visibility": "joined"}


@pytest.mark.parametrize("version", [str(number) for number in range(1, 13)])
async def test_every_room_version(alice, homeserver, version):
    await homeserver.register("bob")
    room_id = await create(
        alice,
        room_version=version,
        preset="trusted_private_chat",
        invite=["@bob:test", "@alice:test"],
        name="x",
        creation_content={
            "m.federate": False,
            "room_version": "99",
            "creator": "@eve:test",
            "type": "m.space",
        },
    )
    assert (":" in room_id) == (version != "12")
    state = await state_of(alice, room_id)
    plain = contents(state)
    create_content = plain["m.room.create"]
    assert create_content["room_version"] == version
    assert create_content["m.federate"] is False
    assert create_content["type"] == "m.space"
    assert create_content.get("creator") == ("@alice:test" if int(version) <= 10 else None)
    assert create_content.get("additional_creators") == (["@bob:test"] if version == "12" else None)
    levels = plain["m.room.power_levels"]
    assert levels["users"] == ({} if version == "12" else {"@alice:test": 100, "@bob:test": 100})
    assert levels["events"]["m.room.tombstone"] == (150 if version == "12" else 100)
    assert state["m.room.member", "@bob:test"]["content"]["membership"] == "invite"


async def test_additional_creators_are_put_together(alice):
    room_id = await create(
        alice,
        preset="trusted_private_chat",
        invite=["@bob:test"],
        creation_content={"additional_creators": ["@carol:other", "@bob:test", "@alice:test"]},
    )
    content = contents(await state_of(alice, room_id))["m.room.create"]
    assert content["additional_creators"] == ["@carol:other", "@bob:test"]


async def test_power_levels_can_be_overridden(alice):
    room_id = await create(alice, power_level_content_override={"state_default": 200, "events": {"m.x": 7}})
    levels = contents(await state_of(alice, room_id))["m.room.power_levels"]
    assert levels["state_default"] == 200
    assert levels["events"] == {"m.x": 7, "m.room.tombstone": 201}
    assert levels["ban"] == 50


async def test_invites_are_direct_when_the_room_is(alice, homeserver):
    bob = await homeserver.register("bob")
    await bob.put(f"{C}/profile/@bob:test/displayname", {"displayname": "Bob"})
    room_id = await create(alice, invite=["@bob:test"], is_direct=True)
    invite = (await state_of(alice, room_id))["m.room.member", "@bob:test"]["content"]
    assert invite == {"membership": "invite", "is_direct": True, "displayname": "Bob"}


async def test_the_creator_joins_with_a_profile(alice):
    await alice.put(f"{C}/profile/@alice:test/displayname", {"displayname": "Alice ♥"})
    state = await state_of(alice, await create(alice))
    assert state["m.room.member", "@alice:test"]["content"] == {
        "membership": "join",
        "displayname": "Alice ♥",
    }


@pytest.mark.parametrize(
    ("body", "status", "errcode"),
    [
        ({"room_version": "nope"}, 400, "M_UNSUPPORTED_ROOM_VERSION"),
        ({"room_version": 12}, 400, "M_BAD_JSON"),
        ({"preset": "weird"}, 400, "M_BAD_JSON"),
        ({"visibility": "hidden"}, 400, "M_BAD_JSON"),
        ({"invite": "@bob:test"}, 400, "M_BAD_JSON"),
        ({"invite": ["bob"]}, 400, "M_INVALID_PARAM"),
        ({"invite": [f"@u{number}:test" for number in range(501)]}, 400, "M_BAD_JSON"),
        (
            {"invite_3pid": [{"id_server": "x", "id_access_token": "y", "medium": "email", "address": "a@b"}]},
            400,
            "M_SERVER_NOT_TRUSTED",
        ),
        ({"initial_state": [{"type": "m.x"}]}, 400, "M_MISSING_PARAM"),
        ({"initial_state": [{"type": "m.room.create", "content": {}}]}, 400, "M_INVALID_ROOM_STATE"),
        (
            {"initial_state": [{"type": "m.room.member", "state_key": "@b:c", "content": {}}]},
            400,
            "M_INVALID_ROOM_STATE",
        ),
        ({"name": "x", "room_version": "11", "power_level_content_override": {"users": {}}}, 400,
         "M_INVALID_ROOM_STATE"),
        ({"power_level_content_override": {"users": {"@alice:test": 100}}}, 400, "M_INVALID_ROOM_STATE"),
        ({"power_level_content_override": {"ban": "50"}}, 400, "M_INVALID_ROOM_STATE"),
        ({"power_level_content_override": {"events": []}}, 400, "M_INVALID_ROOM_STATE"),
        ({"creation_content": {"additional_creators": ["bob"]}}, 400, "M_BAD_JSON"),
        ({"creation_content": {"additional_creators": "@bob:test"}}, 400, "M_BAD_JSON"),
        ({"creation_content": {"x": 1.5}}, 400, "M_BAD_JSON"),
        ({"room_alias_name": "a:b"}, 400, "M_INVALID_PARAM"),
        ({"room_alias_name": "a b"}, 400, "M_INVALID_PARAM"),
        ({"room_alias_name": ""}, 400, "M_INVALID_PARAM"),
        ({"room_alias_name": "x" * 300}, 400, "M_INVALID_PARAM"),
        ({"topic": "x" * 70_000}, 413, "M_TOO_LARGE"),
    ],
)  # fmt: skip
async def test_what_makes_no_room(alice, body, status, errcode):
    answer = await alice.post(f"{C}/createRoom", body)
    assert (answer.status, answer.errcode) == (status, errcode)
    assert (await alice.get(f"{C}/joined_rooms")).json == {"joined_rooms": []}


async def test_an_alias_leads_to_one_room(alice):
    room_id = await create(alice, room_alias_name="pub")
    answer = await alice.post(f"{C}/createRoom", {"room_alias_name": "pub", "visibility": "public"})
    assert (answer.status, answer.errcode) == (400, "M_ROOM_IN_USE")
    assert (await alice.get(f"{C}/joined_rooms")).json == {"joined_rooms": [room_id]}
    assert (await alice.get(f"{C}/publicRooms")).json["chunk"] == []


async def test_who_does_not_want_to_be_invited(alice, homeserver):
    bob = await homeserver.register("bob")
    path = f"{C}/user/@bob:test/account_data/m.invite_permission_config"
    await bob.put(path, {"default_action": "block"})
    answer = await alice.post(f"{C}/createRoom", {"invite": ["@bob:test"]})
    assert (answer.status, answer.errcode) == (403, "M_INVITE_BLOCKED")
    assert (await alice.get(f"{C}/joined_rooms")).json == {"joined_rooms": []}
    await bob.put(path, {})
    assert (await alice.post(f"{C}/createRoom", {"invite": ["@bob:test"]})).status == 200


async def test_only_accounts_create_rooms(homeserver):
    assert (await homeserver.client.post(f"{C}/createRoom", {})).errcode == "M_MISSING_TOKEN"
    assert (await homeserver.client.as_user("x").post(f"{C}/createRoom", {})).errcode == "M_UNKNOWN_TOKEN"


async def test_the_same_room_many_times_at_once_is_many_rooms(homeserver, alice):
    homeserver.clock.now_ms = lambda: 1_800_000_000_000  # all in one millisecond
    rooms = await asyncio.gather(*(create(alice, name="Twin") for _ in range(8)))
    assert len(set(rooms)) == 8
