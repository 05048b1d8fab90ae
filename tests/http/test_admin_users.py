"""Users, through the administration API that tools for Synapse speak."""

from typing import Any

from ranvier.app.config import RateLimitsConfig

from .administrators import CLIENT, V1, V2, V3, create_room, join, register_admin, send
from .homeserver import PASSWORD, Homeserver, User, eventually

ENDPOINTS = [
    ("GET", f"{V2}/users"),
    ("GET", f"{V3}/users"),
    ("GET", f"{V2}/users/@alice:test"),
    ("PUT", f"{V2}/users/@alice:test"),
    ("POST", f"{V1}/deactivate/@alice:test"),
    ("POST", f"{V1}/reset_password/@alice:test"),
    ("GET", f"{V1}/users/@alice:test/admin"),
    ("PUT", f"{V1}/users/@alice:test/admin"),
    ("PUT", f"{V1}/suspend/@alice:test"),
    ("GET", f"{V1}/username_available?username=x"),
    ("POST", f"{V1}/users/@alice:test/shadow_ban"),
    ("DELETE", f"{V1}/users/@alice:test/shadow_ban"),
    ("POST", f"{V1}/users/@alice:test/_allow_cross_signing_replacement_without_uia"),
    ("GET", f"{V1}/threepid/email/users/a@b.c"),
    ("GET", f"{V1}/auth_providers/x/users/y"),
    ("GET", f"{V1}/whois/@alice:test"),
    ("POST", f"{V1}/users/@alice:test/login"),
    ("GET", f"{V2}/users/@alice:test/devices"),
    ("POST", f"{V2}/users/@alice:test/devices"),
    ("GET", f"{V2}/users/@alice:test/devices/X"),
    ("PUT", f"{V2}/users/@alice:test/devices/X"),
    ("DELETE", f"{V2}/users/@alice:test/devices/X"),
    ("POST", f"{V2}/users/@alice:test/delete_devices"),
    ("GET", f"{V1}/users/@alice:test/joined_rooms"),
    ("GET", f"{V1}/users/@alice:test/memberships"),
    ("GET", f"{V1}/users/@alice:test/pushers"),
    ("GET", f"{V1}/users/@alice:test/accountdata"),
    ("GET", f"{V1}/users/@alice:test/sent_invite_count?from_ts=0"),
    ("GET", f"{V1}/users/@alice:test/cumulative_joined_room_count?from_ts=0"),
    ("GET", f"{V1}/users/@alice:test/override_ratelimit"),
    ("POST", f"{V1}/users/@alice:test/override_ratelimit"),
    ("DELETE", f"{V1}/users/@alice:test/override_ratelimit"),
    ("POST", f"{V1}/user/@alice:test/redact"),
    ("GET", f"{V1}/user/redact_status/x"),
]


async def test_unknown_users(admin: User) -> None:
    bodies: dict[str, Any] = {
        "reset_password": {"new_password": PASSWORD},
        "suspend": {"suspend": True},
        "delete_devices": {"devices": []},
        "/devices": {"device_id": "X"},
        "redact": {"rooms": []},
        ":test/admin": {"admin": True},
    }
    for method, path in ENDPOINTS:
        if "@alice:test" not in path or (method == "PUT" and path.endswith("@alice:test") and "v2" in path):
            continue
        body = next((value for key, value in bodies.items() if key in path), {})
        answer = await admin.request(method, path.replace("alice", "nobody"), json=body)
        assert (answer.status, answer.errcode) == (404, "M_NOT_FOUND"), (method, path, answer.body)


async def test_accounts_are_made_and_changed(homeserver: Homeserver, admin: User) -> None:
    path = f"{V2}/users/@bob:test"
    wish = {
        "password": "a long enough one",
        "displayname": "Bob",
        "avatar_url": "mxc://test/bob",
        "threepids": [{"medium": "email", "address": "Bob@Example.ORG"}],
        "external_ids": [{"auth_provider": "oidc-x", "external_id": "12/3"}],
        "admin": False,
        "user_type": "bot",
    }
    made = await admin.put(path, wish)
    assert made.status == 201, made.body
    shown = made.json
    assert (shown["name"], shown["displayname"], shown["avatar_url"]) == (
        "@bob:test",
        "Bob",
        "mxc://test/bob",
    )
    assert [(one["medium"], one["address"]) for one in shown["threepids"]] == [("email", "bob@example.org")]
    assert shown["external_ids"] == [{"auth_provider": "oidc-x", "external_id": "12/3"}]
    assert (shown["admin"], shown["deactivated"], shown["locked"], shown["user_type"]) == (
        False,
        False,
        False,
        "bot",
    )
    assert (await admin.get(f"{V1}/threepid/email/users/bob%40example.org")).json == {"user_id": "@bob:test"}
    assert (await admin.get(f"{V1}/auth_providers/oidc-x/users/12%2F3")).json == {"user_id": "@bob:test"}
    bob = await homeserver.login("bob", "a long enough one")

    changed = await admin.put(path, {"displayname": "", "admin": True, "threepids": [], "user_type": None})
    assert changed.status == 200
    assert (changed.json["displayname"], changed.json["admin"], changed.json["threepids"]) == (None, True, [])
    assert changed.json["user_type"] is None
    assert changed.json["avatar_url"] == "mxc://test/bob"
    assert (await bob.get(f"{V2}/users")).status == 200

    await admin.put(path, {"password": "another long one", "logout_devices": False})
    assert (await bob.get(f"{CLIENT}/account/whoami")).status == 200
    await admin.put(path, {"password": "one more long one"})
    assert (await bob.get(f"{CLIENT}/account/whoami")).status == 401
    bob = await homeserver.login("bob", "one more long one")

    assert (await admin.put(path, {"locked": True})).json["locked"] is True
    assert (await bob.get(f"{CLIENT}/account/whoami")).errcode == "M_USER_LOCKED"
    assert (await admin.put(path, {"locked": False})).json["locked"] is False
    assert (await bob.get(f"{CLIENT}/account/whoami")).status == 200

    assert (await admin.put(path, {"deactivated": True})).json["deactivated"] is True
    assert (await bob.get(f"{CLIENT}/account/whoami")).status == 401
    again = await admin.put(path, {"deactivated": False, "password": "and back again"})
    assert again.json["deactivated"] is False
    await homeserver.login("bob", "and back again")


async def test_what_an_account_cannot_be(homeserver: Homeserver, admin: User, alice: User) -> None:
    await admin.put(f"{V2}/users/@alice:test", {"threepids": [{"medium": "email", "address": "a@b.c"}]})
    for user, wish, errcode in (
        ("@bob:test", {"password": "x"}, "M_WEAK_PASSWORD"),
        ("@bob:else.org", {}, "M_INVALID_PARAM"),
        ("@Bob:test", {}, "M_INVALID_PARAM"),
        ("bob", {}, "M_INVALID_PARAM"),
        ("@bob:test", {"threepids": [{"medium": "email", "address": "A@B.c"}]}, "M_INVALID_PARAM"),
        ("@bob:test", {"threepids": [{"medium": "fax", "address": "1"}]}, "M_INVALID_PARAM"),
        ("@bob:test", {"displayname": "x" * 300}, "M_INVALID_PARAM"),
        ("@bob:test", {"displayname": 7}, "M_BAD_JSON"),
        ("@bob:test", {"user_type": "a\0b"}, "M_INVALID_PARAM"),
        ("@admin:test", {"admin": False}, "M_FORBIDDEN"),
        ("@admin:test", {"deactivated": True}, "M_FORBIDDEN"),
        ("@admin:test", {"locked": True}, "M_FORBIDDEN"),
    ):
        answer = await admin.put(f"{V2}/users/{user}", wish)
        assert answer.errcode == errcode, (user, wish, answer.body)


async def test_lists(homeserver: Homeserver, admin: User, alice: User) -> None:
    for name, wish in (
        ("bob", {"displayname": "Robert_%"}),
        ("carol", {"deactivated": True}),
        ("dave", {"locked": True}),
        ("eve", {"suspended": True, "user_type": "bot"}),
    ):
        assert (await admin.put(f"{V2}/users/@{name}:test", wish)).status == 201

    async def names(version: str = V2, **query: Any) -> list[str]:
        answer = await admin.get(f"{version}/users", **query)
        assert answer.status == 200, answer.body
        assert answer.json["total"] >= len(answer.json["users"])
        return [user["name"][1:].split(":")[0] for user in answer.json["users"]]

    assert await names() == ["admin", "alice", "bob", "eve"]
    assert await names(deactivated="true") == ["admin", "alice", "bob", "carol", "eve"]
    assert await names(locked="true") == ["admin", "alice", "bob", "dave", "eve"]
    assert await names(admins="true") == ["admin"]
    assert await names(admins="false", suspended="true") == ["eve"]
    assert await names(name="ROB") == ["bob"]
    assert await names(name="t_%") == ["bob"]
    assert await names(name="test") == []
    assert await names(user_id="ALICE:te") == ["alice"]
    assert await names(not_user_type="bot") == ["admin", "alice", "bob"]
    assert await names(not_user_type="") == ["eve"]
    assert await names(V3) == ["admin", "alice", "bob", "carol", "eve"]
    assert await names(V3, deactivated="true") == ["carol"]
    assert await names(dir="b") == ["eve", "bob", "alice", "admin"]
    assert await names(order_by="displayname", dir="b") == ["bob", "admin", "alice", "eve"]
    for order in (
        "is_guest",
        "admin",
        "user_type",
        "deactivated",
        "shadow_banned",
        "avatar_url",
        "creation_ts",
    ):
        assert len(await names(order_by=order)) == 4
    assert (await names(order_by="last_seen_ts", dir="b", locked="true"))[2:] == ["bob", "dave", "eve"]
    page = (await admin.get(f"{V2}/users", limit=3)).json
    assert (page["total"], page["next_token"]) == (4, "3")
    rest = (await admin.get(f"{V2}/users", limit=3, **{"from": page["next_token"]})).json
    assert ([user["name"] for user in rest["users"]], "next_token" in rest) == (["@eve:test"], False)
    for query in ({"order_by": "color"}, {"limit": "0"}, {"limit": "x"}, {"guests": "maybe"}, {"dir": "u"}):
        assert (await admin.get(f"{V2}/users", **query)).errcode == "M_INVALID_PARAM"


async def test_administrators_are_made_and_unmade(homeserver: Homeserver, admin: User, alice: User) -> None:
    path = f"{V1}/users/{alice.user_id}/admin"
    assert (await admin.get(path)).json == {"admin": False}
    assert (await admin.put(path, {"admin": True})).json == {}
    assert (await alice.get(path)).json == {"admin": True}
    assert (await alice.put(path, {"admin": False})).status == 403
    assert (await admin.put(path, {"admin": False})).json == {}
    assert (await alice.get(path)).status == 403


async def test_devices(homeserver: Homeserver, admin: User, alice: User) -> None:
    path = f"{V2}/users/{alice.user_id}/devices"
    listed = (await admin.get(path)).json
    assert (listed["total"], listed["devices"][0]["device_id"]) == (1, alice.device_id)
    assert listed["devices"][0]["dehydrated"] is False
    assert (await admin.post(path, {"device_id": "EXTRA"})).json == {}
    assert (await admin.post(path, {"device_id": "EXTRA"})).json == {}
    assert (await admin.put(f"{path}/EXTRA", {"display_name": "phone"})).json == {}
    assert (await admin.get(f"{path}/EXTRA")).json["display_name"] == "phone"
    assert (await admin.get(f"{path}/NONE")).status == 404
    assert (await admin.put(f"{path}/NONE", {})).status == 404
    assert (await admin.delete(f"{path}/EXTRA", {})).json == {}
    assert (await admin.get(path)).json["total"] == 1
    gone = await admin.post(f"{V2}/users/{alice.user_id}/delete_devices", {"devices": [alice.device_id, "Q"]})
    assert gone.json == {}
    assert (await alice.get(f"{CLIENT}/account/whoami")).errcode == "M_UNKNOWN_TOKEN"
    assert (await admin.get(f"{V1}/whois/{alice.user_id}")).json == {"user_id": alice.user_id, "devices": {}}


async def test_acting_as_a_user(homeserver: Homeserver, admin: User, alice: User) -> None:
    path = f"{V1}/users/{alice.user_id}/login"
    answer = await admin.post(path, {})
    acting = homeserver.client.as_user(answer.json["access_token"])
    assert (await acting.get(f"{CLIENT}/account/whoami")).json["user_id"] == alice.user_id
    assert (await acting.get(f"{CLIENT}/sync")).status == 200
    room_id = (await acting.post(f"{CLIENT}/createRoom", {})).json["room_id"]
    await send(alice, room_id, "hello")
    assert (await admin.get(f"{V2}/users/{alice.user_id}/devices")).json["total"] == 1
    assert (await acting.get(f"{V2}/users")).status == 403
    short = await admin.post(path, {"valid_until_ms": homeserver.clock.now_ms() + 60_000})
    brief = homeserver.client.as_user(short.json["access_token"])
    assert (await brief.get(f"{CLIENT}/account/whoami")).status == 200
    homeserver.clock.ahead_ms += 61_000
    assert (await brief.get(f"{CLIENT}/account/whoami")).status == 401
    assert (await admin.post(path, {"valid_until_ms": 1})).errcode == "M_INVALID_PARAM"
    assert (await admin.post(f"{V1}/users/{admin.user_id}/login", {})).status == 403
    await admin.post(f"{CLIENT}/logout/all", {})
    assert (await acting.get(f"{CLIENT}/account/whoami")).errcode == "M_UNKNOWN_TOKEN"
    assert (await alice.get(f"{CLIENT}/account/whoami")).status == 200


async def test_rooms_and_account_data_of_users(homeserver: Homeserver, admin: User, alice: User) -> None:
    bob = await homeserver.register("bob")
    one, two = await create_room(alice, invite=[bob.user_id]), await create_room(alice, invite=[bob.user_id])
    await join(bob, one)
    await alice.post(f"{CLIENT}/rooms/{one}/leave", {})
    joined = (await admin.get(f"{V1}/users/{alice.user_id}/joined_rooms")).json
    assert joined == {"joined_rooms": [two], "total": 1}
    memberships = (await admin.get(f"{V1}/users/{bob.user_id}/memberships")).json["memberships"]
    assert memberships == {one: "join", two: "invite"}
    base = f"{V1}/users/{alice.user_id}"
    assert (await admin.get(f"{base}/sent_invite_count", from_ts=0)).json == {"invite_count": 2}
    assert (await admin.get(f"{base}/cumulative_joined_room_count", from_ts=0)).json == {
        "cumulative_joined_room_count": 2
    }
    later = homeserver.clock.now_ms() + 60_000
    assert (await admin.get(f"{base}/sent_invite_count", from_ts=later)).json == {"invite_count": 0}
    assert (await admin.get(f"{base}/sent_invite_count")).errcode == "M_MISSING_PARAM"
    await alice.put(f"{CLIENT}/user/{alice.user_id}/account_data/x.y", {"a": 1})
    await alice.put(f"{CLIENT}/user/{alice.user_id}/rooms/{two}/account_data/x.z", {"b": 2})
    data = (await admin.get(f"{base}/accountdata")).json["account_data"]
    assert data["global"]["x.y"] == {"a": 1}
    assert data["rooms"] == {two: {"x.z": {"b": 2}}}
    assert (await admin.get(f"{base}/pushers")).json == {"pushers": [], "total": 0}


async def test_suspending_and_what_is_declined(admin: User, alice: User) -> None:
    room_id = await create_room(alice)
    answer = await admin.put(f"{V1}/suspend/{alice.user_id}", {"suspend": True})
    assert answer.json == {f"user_{alice.user_id}_suspended": True}
    sent = await alice.put(f"{CLIENT}/rooms/{room_id}/send/m.room.message/1", {"body": "x"})
    assert sent.errcode == "M_USER_SUSPENDED"
    await admin.put(f"{V1}/suspend/{alice.user_id}", {"suspend": False})
    await send(alice, room_id, "again")
    refused = await admin.post(f"{V1}/users/{alice.user_id}/shadow_ban")
    assert (refused.status, refused.errcode) == (400, "M_UNKNOWN")
    assert (await admin.delete(f"{V1}/users/{alice.user_id}/shadow_ban")).json == {}


async def test_deactivation_and_names(homeserver: Homeserver, admin: User, alice: User) -> None:
    room_id = await create_room(alice)
    answer = await admin.post(f"{V1}/deactivate/{alice.user_id}", {"erase": True})
    assert answer.json == {"id_server_unbind_result": "success"}
    shown = (await admin.get(f"{V2}/users/{alice.user_id}")).json
    assert (shown["deactivated"], shown["erased"]) == (True, True)

    async def has_left() -> bool:
        return (await admin.get(f"{V1}/rooms/{room_id}/members")).json["total"] == 0

    await eventually(has_left)
    assert (await admin.post(f"{V1}/deactivate/{admin.user_id}", {})).status == 403
    assert (
        await admin.post(f"{V1}/reset_password/{alice.user_id}", {"new_password": PASSWORD})
    ).status == 403
    available = f"{V1}/username_available"
    assert (await admin.get(available, username="fresh")).json == {"available": True}
    assert (await admin.get(available, username="alice")).errcode == "M_USER_IN_USE"
    assert (await admin.get(available, username="a b")).errcode == "M_INVALID_USERNAME"


async def test_rate_limits_of_one_user(start_homeserver: Any) -> None:
    homeserver = await start_homeserver(rate_limits=RateLimitsConfig(enabled=True))
    admin, alice = await register_admin(homeserver), await homeserver.register("alice")
    room_id = await create_room(alice)
    path = f"{V1}/users/{alice.user_id}/override_ratelimit"
    assert (await admin.get(path)).json == {}
    limited = {"messages_per_second": 1, "burst_count": 2}
    assert (await admin.post(path, limited)).json == limited
    assert (await admin.get(path)).json == limited

    async def status(txn_id: int) -> int:
        message = {"msgtype": "m.text", "body": "x"}
        return (await alice.put(f"{CLIENT}/rooms/{room_id}/send/m.room.message/{txn_id}", message)).status

    assert [await status(number) for number in range(3)] == [200, 200, 429]
    assert (await admin.post(path, {})).json == {"messages_per_second": 0, "burst_count": 0}
    assert {await status(number) for number in range(100, 170)} == {200}
    assert (await admin.delete(path)).json == {}
    assert (await admin.get(path)).json == {}
    assert (await admin.post(path, {"messages_per_second": -1})).errcode == "M_BAD_JSON"


async def test_redacting_all_that_a_user_sent(homeserver: Homeserver, admin: User, alice: User) -> None:
    bob = await homeserver.register("bob")
    room_id = await create_room(bob, preset="public_chat")
    await join(alice, room_id)
    own = [await send(alice, room_id, f"spam {number}", str(number)) for number in range(5)]
    others = await send(bob, room_id, "fine")
    started = await admin.post(f"{V1}/user/{alice.user_id}/redact", {"rooms": [], "reason": "spam"})
    redact_id = started.json["redact_id"]

    async def is_done() -> bool:
        return (await admin.get(f"{V1}/user/redact_status/{redact_id}")).json["status"] == "complete"

    await eventually(is_done)
    status = (await admin.get(f"{V1}/user/redact_status/{redact_id}")).json
    assert status["failed_redactions"] == {}
    for event_id in own:
        event = (await bob.get(f"{CLIENT}/rooms/{room_id}/event/{event_id}")).json
        assert event["content"] == {}
        assert event["unsigned"]["redacted_because"]["sender"] == alice.user_id
        assert event["unsigned"]["redacted_because"]["content"]["reason"] == "spam"
    kept = (await bob.get(f"{CLIENT}/rooms/{room_id}/event/{others}")).json
    assert kept["content"]["body"] == "fine"
    assert (await bob.get(f"{CLIENT}/rooms/{room_id}/joined_members")).json["joined"].keys() == {
        alice.user_id,
        bob.user_id,
    }
    # An administrator without power in the room gets told what did not work.
    late = await send(alice, room_id, "late")
    started = await admin.post(f"{V1}/user/{alice.user_id}/redact", {"rooms": [room_id], "use_admin": True})
    redact_id = started.json["redact_id"]
    await eventually(is_done)
    failed = (await admin.get(f"{V1}/user/redact_status/{redact_id}")).json["failed_redactions"]
    assert late in failed
    assert (await admin.get(f"{V1}/user/redact_status/nothing")).status == 404
    assert (await admin.post(f"{V1}/user/{alice.user_id}/redact", {})).errcode == "M_MISSING_PARAM"
