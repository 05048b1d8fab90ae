"""Coming and going: joining, inviting, leaving, kicking, banning, knocking, forgetting."""

import pytest

from ranvier.app.config import FederationConfig, RegistrationConfig
from ranvier.store.tables import rooms as room_tables
from ranvier.store.tables.accounts import set_suspended

from .client import segment
from .rooms import C, ask, create, do, get_state, membership, put_state, set_state

UNKNOWN_ROOM = "!" + "x" * 43


@pytest.fixture
async def homeserver(start_homeserver):
    """Without federation: what is not known here is not asked for elsewhere."""
    return await start_homeserver(federation=FederationConfig(enabled=False))


async def restrict(user, room_id, allowed, join_rule="restricted"):
    allow = [{"type": "m.room_membership", "room_id": one} for one in allowed]
    await set_state(user, room_id, "m.room.join_rules", {"join_rule": join_rule, "allow": allow})


async def test_join_by_id_and_by_alias(alice, bob, carol):
    room_id = await create(alice, preset="public_chat", room_alias_name="pub")
    assert (await ask(bob, room_id, "join")).json == {"room_id": room_id}
    answer = await carol.post(f"{C}/join/{segment('#pub:test')}", {"reason": "thirst"})
    assert answer.json == {"room_id": room_id}
    assert await get_state(alice, room_id, "m.room.member", "@carol:test") == {
        "membership": "join",
        "reason": "thirst",
    }
    assert (await bob.post(f"{C}/join/{segment(room_id)}?via=elsewhere")).json == {"room_id": room_id}
    assert (await bob.get(f"{C}/joined_rooms")).json == {"joined_rooms": [room_id]}


async def test_joining_twice_changes_nothing(alice, bob):
    room_id = await create(alice, preset="public_chat")
    await do(bob, room_id, "join")
    await set_state(bob, room_id, "m.room.member", {"membership": "join", "displayname": "B"}, "@bob:test")
    await do(bob, room_id, "join")
    assert (await get_state(bob, room_id, "m.room.member", "@bob:test"))["displayname"] == "B"


async def test_a_join_may_say_more(alice, bob):
    room_id = await create(alice, preset="public_chat")
    await do(
        bob, room_id, "join", foo="bar", membership="ban", join_authorised_via_users_server="@alice:test"
    )
    content = await get_state(bob, room_id, "m.room.member", "@bob:test")
    assert content == {"membership": "join", "foo": "bar"}


async def test_an_invite_outlives_who_sent_it(alice, bob):
    room_id = await create(alice, invite=["@bob:test"])
    await do(alice, room_id, "leave")
    await do(bob, room_id, "leave")
    assert (await bob.get(f"{C}/joined_rooms")).json == {"joined_rooms": []}


async def test_a_room_that_everybody_left_can_be_entered_again(start_homeserver):
    homeserver = await start_homeserver()  # with federation: nobody else could know better
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    room_id = await create(alice, preset="public_chat", invite=["@bob:test"])
    await do(alice, room_id, "leave")
    await do(bob, room_id, "leave")
    assert await membership(alice, room_id, "@bob:test") == "invite"  # as when she left
    await do(bob, room_id, "join")
    assert await membership(bob, room_id, "@alice:test") == "leave"


async def test_a_profile_comes_along(alice, bob):
    room_id = await create(alice, preset="public_chat")
    await bob.put(f"{C}/profile/@bob:test/displayname", {"displayname": "Bob"})
    await bob.put(f"{C}/profile/@bob:test/avatar_url", {"avatar_url": "mxc://test/b"})
    await do(bob, room_id, "join")
    shown = (await alice.get(f"{C}/rooms/{segment(room_id)}/joined_members")).json["joined"]
    assert shown == {
        "@alice:test": {"display_name": None, "avatar_url": None},
        "@bob:test": {"display_name": "Bob", "avatar_url": "mxc://test/b"},
    }


@pytest.mark.parametrize(
    ("path", "status", "errcode"),
    [
        (f"rooms/{segment(UNKNOWN_ROOM)}/join", 404, "M_NOT_FOUND"),
        (f"join/{segment('#none:test')}", 404, "M_NOT_FOUND"),
        (f"join/{segment('#none:elsewhere')}", 404, "M_NOT_FOUND"),
        ("join/nonsense", 400, "M_INVALID_PARAM"),
        (f"join/{segment('#')}", 400, "M_INVALID_PARAM"),
        (f"knock/{segment(UNKNOWN_ROOM)}", 404, "M_NOT_FOUND"),
        (f"rooms/{segment(UNKNOWN_ROOM)}/leave", 403, "M_FORBIDDEN"),
        (f"rooms/{segment(UNKNOWN_ROOM)}/forget", 404, "M_NOT_FOUND"),
        ("rooms/nonsense/leave", 400, "M_INVALID_PARAM"),
    ],
)
async def test_rooms_that_are_not_there(bob, path, status, errcode):
    answer = await bob.post(f"{C}/{path}", {})
    assert (answer.status, answer.errcode) == (status, errcode)


async def test_an_invite_opens_the_door(alice, bob, carol):
    room_id = await create(alice)
    assert (await ask(bob, room_id, "join")).errcode == "M_FORBIDDEN"
    assert (await ask(bob, room_id, "invite", user_id="@carol:test")).errcode == "M_FORBIDDEN"
    await do(alice, room_id, "invite", user_id="@bob:test", reason="come")
    await do(alice, room_id, "invite", user_id="@bob:test", reason="come")
    assert await get_state(alice, room_id, "m.room.member", "@bob:test") == {
        "membership": "invite",
        "reason": "come",
    }
    await do(bob, room_id, "join")
    assert (await ask(alice, room_id, "invite", user_id="@bob:test")).errcode == "M_FORBIDDEN"


@pytest.mark.parametrize(
    ("body", "status", "errcode"),
    [
        ({}, 400, "M_MISSING_PARAM"),
        ({"user_id": 3}, 400, "M_BAD_JSON"),
        ({"user_id": "bob"}, 400, "M_INVALID_PARAM"),
        ({"user_id": "@bob:elsewhere"}, 502, "M_UNKNOWN"),
        ({"medium": "email", "address": "a@b", "id_server": "x"}, 400, "M_SERVER_NOT_TRUSTED"),
    ],
)
async def test_invites_that_cannot_be(alice, body, status, errcode):
    answer = await ask(alice, await create(alice), "invite", **body)
    assert (answer.status, answer.errcode) == (status, errcode)


async def test_who_blocks_invites_is_left_alone(alice, bob):
    await bob.put(f"{C}/user/@bob:test/account_data/m.invite_permission_config", {"default_action": "block"})
    room_id = await create(alice)
    for answer in (
        await ask(alice, room_id, "invite", user_id="@bob:test"),
        await put_state(alice, room_id, "m.room.member", {"membership": "invite"}, "@bob:test"),
    ):
        assert (answer.status, answer.errcode) == (403, "M_INVITE_BLOCKED")


async def invited_rooms(user):
    """As sync and sliding sync show them."""
    classic = (await user.get(f"{C}/sync")).json.get("rooms", {}).get("invite", {})
    lists = {"all": {"ranges": [[0, 9]], "timeline_limit": 1, "required_state": []}}
    path = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
    sliding = (await user.post(path, {"conn_id": "1", "lists": lists})).json["rooms"]
    assert classic.keys() == {room_id for room_id, room in sliding.items() if "invite_state" in room}
    return list(classic)


@pytest.mark.parametrize(
    ("type_", "content"),
    [
        ("m.invite_permission_config", {"default_action": "block"}),
        ("org.matrix.msc4155.invite_permission_config", {"blocked_users": ["@alice:*"]}),
        ("org.matrix.msc4155.invite_permission_config", {"ignored_servers": ["test"]}),
    ],
)
async def test_an_invite_that_is_not_wanted_any_more_is_not_shown(alice, bob, type_, content):
    room_id = await create(alice, invite=["@bob:test"])
    assert await invited_rooms(bob) == [room_id]
    await bob.put(f"{C}/user/@bob:test/account_data/{type_}", content)
    assert await invited_rooms(bob) == []
    assert await membership(alice, room_id, "@bob:test") == "invite"
    await bob.put(f"{C}/user/@bob:test/account_data/{type_}", {})
    assert await invited_rooms(bob) == [room_id]


async def test_invites_of_ignored_servers_come_to_nothing_in_silence(alice, bob):
    path = f"{C}/user/@bob:test/account_data/org.matrix.msc4155.invite_permission_config"
    await bob.put(path, {"ignored_servers": ["test"]})
    room_id = await create(alice, invite=["@bob:test"])
    assert await membership(alice, room_id, "@bob:test") == "invite"
    assert await invited_rooms(bob) == []
    assert (await bob.get(f"{C}/notifications")).json["notifications"] == []
    await bob.put(path, {"blocked_users": ["@alice:*"]})
    answer = await ask(alice, await create(alice), "invite", user_id="@bob:test")
    assert (answer.status, answer.errcode) == (403, "M_INVITE_BLOCKED")


async def test_leaving_and_rejecting(alice, bob):
    room_id = await create(alice, preset="public_chat", invite=["@bob:test"])
    await do(bob, room_id, "leave", reason="no")
    assert await get_state(alice, room_id, "m.room.member", "@bob:test") == {
        "membership": "leave",
        "reason": "no",
    }
    await do(bob, room_id, "leave")  # a request that was repeated
    await do(bob, room_id, "join")
    await do(bob, room_id, "leave")
    assert (await bob.get(f"{C}/joined_rooms")).json == {"joined_rooms": []}


async def test_kicking(alice, bob, carol):
    room_id = await create(alice, preset="public_chat")
    await do(bob, room_id, "join")
    assert (await ask(bob, room_id, "kick", user_id="@alice:test")).errcode == "M_FORBIDDEN"
    assert (await ask(carol, room_id, "kick", user_id="@bob:test")).errcode == "M_FORBIDDEN"
    assert (await ask(alice, room_id, "kick", user_id="@carol:test")).errcode == "M_FORBIDDEN"
    assert (await ask(alice, room_id, "kick")).errcode == "M_MISSING_PARAM"
    await do(alice, room_id, "kick", user_id="@bob:test", reason="jokes")
    content = await get_state(alice, room_id, "m.room.member", "@bob:test")
    assert content == {"membership": "leave", "reason": "jokes"}
    assert (await ask(alice, room_id, "kick", user_id="@bob:test")).errcode == "M_FORBIDDEN"


async def test_banning_and_unbanning(alice, bob, carol):
    room_id = await create(alice, preset="public_chat")
    await do(bob, room_id, "join")
    assert (await ask(bob, room_id, "ban", user_id="@carol:test")).errcode == "M_FORBIDDEN"
    await do(alice, room_id, "ban", user_id="@bob:test", reason="spam")
    await do(alice, room_id, "ban", user_id="@carol:test")
    assert (await ask(bob, room_id, "join")).errcode == "M_FORBIDDEN"
    assert (await ask(bob, room_id, "leave")).errcode == "M_FORBIDDEN"
    assert (await ask(alice, room_id, "invite", user_id="@carol:test")).errcode == "M_FORBIDDEN"
    # A kick is no way out of a ban.
    assert (await ask(alice, room_id, "kick", user_id="@bob:test")).errcode == "M_FORBIDDEN"
    await do(alice, room_id, "unban", user_id="@bob:test", reason="sorry")
    assert (await ask(alice, room_id, "unban", user_id="@bob:test")).errcode == "M_FORBIDDEN"
    await do(bob, room_id, "join")
    assert (await ask(bob, room_id, "unban", user_id="@carol:test")).errcode == "M_FORBIDDEN"


async def test_knocking(alice, bob, carol):
    room_id = await create(alice, room_alias_name="door")
    path = f"{C}/knock/{segment('#door:test')}"
    assert (await bob.post(path, {})).errcode == "M_FORBIDDEN"
    await set_state(alice, room_id, "m.room.join_rules", {"join_rule": "knock"})
    assert (await bob.post(path, {"reason": "please"})).json == {"room_id": room_id}
    assert await get_state(alice, room_id, "m.room.member", "@bob:test") == {
        "membership": "knock",
        "reason": "please",
    }
    assert (await ask(bob, room_id, "join")).errcode == "M_FORBIDDEN"
    await do(alice, room_id, "invite", user_id="@bob:test")
    await do(bob, room_id, "join")
    assert (await bob.post(path, {})).errcode == "M_FORBIDDEN"
    assert (await carol.post(path, {})).status == 200
    await do(carol, room_id, "leave")
    await do(alice, room_id, "ban", user_id="@carol:test")
    assert (await carol.post(path, {})).errcode == "M_FORBIDDEN"


async def test_a_restricted_room_lets_in_whom_another_room_vouches_for(alice, bob, carol):
    lobby = await create(alice, preset="public_chat")
    room_id = await create(alice, room_version="11", preset="private_chat")
    await restrict(alice, room_id, [lobby, UNKNOWN_ROOM])
    assert (await ask(bob, room_id, "join")).errcode == "M_FORBIDDEN"
    await do(bob, lobby, "join")
    await do(bob, room_id, "join")
    content = await get_state(bob, room_id, "m.room.member", "@bob:test")
    assert content == {"membership": "join", "join_authorised_via_users_server": "@alice:test"}
    # Nobody can vouch for themselves.
    forged = {"membership": "join", "join_authorised_via_users_server": "@alice:test"}
    assert (await put_state(carol, room_id, "m.room.member", forged, "@carol:test")).errcode == "M_FORBIDDEN"
    await do(alice, room_id, "invite", user_id="@carol:test")
    await do(carol, room_id, "join")
    assert await get_state(bob, room_id, "m.room.member", "@carol:test") == {"membership": "join"}


async def test_a_restricted_room_where_nobody_may_invite(alice, bob, carol):
    lobby = await create(alice, preset="public_chat")
    await do(bob, lobby, "join")
    await do(carol, lobby, "join")
    levels = {"users": {"@alice:test": 100, "@carol:test": 100}, "invite": 60}
    room_id = await create(alice, room_version="10", power_level_content_override=levels)
    await restrict(alice, room_id, [lobby], "knock_restricted")
    await do(carol, room_id, "join")
    await do(alice, room_id, "leave")
    await do(bob, room_id, "join")
    content = await get_state(bob, room_id, "m.room.member", "@bob:test")
    assert content["join_authorised_via_users_server"] == "@carol:test"
    await do(bob, room_id, "leave")
    await set_state(
        carol,
        room_id,
        "m.room.power_levels",
        {"users": {"@alice:test": 100, "@carol:test": 50}, "invite": 60},
    )
    assert (await ask(bob, room_id, "join")).errcode == "M_FORBIDDEN"


async def test_guests_come_in_only_where_they_may(start_homeserver):
    homeserver = await start_homeserver(registration=RegistrationConfig(mode="open", guests=True))
    alice = await homeserver.register("alice")
    guest = homeserver.user((await homeserver.client.post(f"{C}/register?kind=guest", {})).json)
    room_id = await create(alice, preset="public_chat")
    assert (await ask(guest, room_id, "join")).errcode == "M_GUEST_ACCESS_FORBIDDEN"
    assert (await guest.post(f"{C}/createRoom", {})).errcode == "M_GUEST_ACCESS_FORBIDDEN"
    await set_state(alice, room_id, "m.room.guest_access", {"guest_access": "can_join"})
    await do(guest, room_id, "join")
    await set_state(alice, room_id, "m.room.guest_access", {"guest_access": "forbidden"})
    assert await membership(alice, room_id, guest.user_id) == "leave"


async def test_who_is_suspended_may_only_leave(alice, bob, homeserver):
    room_id = await create(alice, preset="public_chat")
    await do(bob, room_id, "join")
    db = homeserver.foundation.ports.db
    users = homeserver.foundation.interner.users
    await db.write(set_suspended, users.number("@bob:test"), is_suspended=True)
    other = await create(alice, preset="public_chat")
    for answer in (
        await ask(bob, other, "join"),
        await ask(bob, room_id, "invite", user_id="@x:test"),
        await ask(bob, room_id, "kick", user_id="@alice:test"),
        await bob.post(f"{C}/knock/{segment(other)}", {}),
        await bob.post(f"{C}/createRoom", {}),
        await put_state(bob, room_id, "m.room.name", {"name": "x"}),
        await bob.put(f"{C}/rooms/{segment(room_id)}/send/m.x/1", {}),
        await bob.put(f"{C}/directory/room/{segment('#x:test')}", {"room_id": room_id}),
    ):
        assert (answer.status, answer.errcode) == (403, "M_USER_SUSPENDED")
    await do(bob, room_id, "leave")


async def test_a_blocked_room_is_closed(alice, bob, homeserver):
    room_id = await create(alice, preset="public_chat")
    await homeserver.foundation.ports.db.write(room_tables.block_room, room_id, "@root:test", 1)
    answer = await ask(bob, room_id, "join")
    assert (answer.status, answer.errcode) == (403, "M_FORBIDDEN")


async def test_forgetting(alice, bob):
    room_id = await create(alice, preset="public_chat", invite=["@bob:test"])
    answer = await ask(bob, room_id, "forget")
    assert (answer.status, answer.errcode) == (400, "M_UNKNOWN")
    await do(bob, room_id, "join")
    assert (await ask(bob, room_id, "forget")).status == 400
    await do(bob, room_id, "leave")
    members = f"{C}/rooms/{segment(room_id)}/members"
    assert (await bob.get(members)).status == 200
    await do(bob, room_id, "forget")
    await do(bob, room_id, "forget")
    assert (await bob.get(members)).errcode == "M_FORBIDDEN"
    await do(bob, room_id, "join")
    assert (await bob.get(members)).status == 200


async def test_memberships_as_state(alice, bob):
    room_id = await create(alice, preset="public_chat")
    await set_state(alice, room_id, "m.room.member", {"membership": "invite", "x": 1}, "@bob:test")
    assert (await get_state(alice, room_id, "m.room.member", "@bob:test"))["x"] == 1
    await set_state(
        bob, room_id, "m.room.member", {"membership": "join", "displayname": "Bobby"}, "@bob:test"
    )
    assert (await bob.get(f"{C}/joined_rooms")).json["joined_rooms"] == [room_id]
    await set_state(alice, room_id, "m.room.member", {"membership": "ban"}, "@bob:test")
    assert await membership(alice, room_id, "@bob:test") == "ban"
    await set_state(alice, room_id, "m.room.member", {"membership": "leave"}, "@bob:test")
    for content, key, status in (
        ({"membership": "join"}, "@bob:test", 403),
        ({"membership": "dance"}, "@alice:test", 403),
        ({}, "@alice:test", 403),
        ({"membership": "ban"}, "bob", 400),
        ({"membership": 5}, "@alice:test", 403),
    ):
        assert (await put_state(alice, room_id, "m.room.member", content, key)).status == status


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "rooms/!a:b/join"),
        ("POST", "join/!a:b"),
        ("POST", "knock/!a:b"),
        ("POST", "rooms/!a:b/invite"),
        ("POST", "rooms/!a:b/leave"),
        ("POST", "rooms/!a:b/forget"),
        ("POST", "rooms/!a:b/kick"),
        ("POST", "rooms/!a:b/ban"),
        ("POST", "rooms/!a:b/unban"),
        ("GET", "joined_rooms"),
        ("GET", "rooms/!a:b/state"),
        ("GET", "rooms/!a:b/state/m.x"),
        ("PUT", "rooms/!a:b/state/m.x/k"),
        ("GET", "rooms/!a:b/members"),
        ("GET", "rooms/!a:b/joined_members"),
        ("GET", "rooms/!a:b/aliases"),
        ("PUT", "directory/room/%23a:b"),
        ("DELETE", "directory/room/%23a:b"),
        ("PUT", "directory/list/room/!a:b"),
        ("POST", "publicRooms"),
        ("POST", "rooms/!a:b/upgrade"),
        ("POST", "rooms/!a:b/report"),
        ("POST", "rooms/!a:b/report/$a"),
        ("POST", "users/@a:b/report"),
    ],
)
async def test_it_takes_an_account(homeserver, method, path):
    client = homeserver.client
    assert (await client.request(method, f"{C}/{path}", json={})).errcode == "M_MISSING_TOKEN"
    assert (await client.as_user("x").request(method, f"{C}/{path}", json={})).errcode == "M_UNKNOWN_TOKEN"
