"""The server itself, through the administration API that tools for Synapse speak; and server notices."""

from collections.abc import Awaitable, Callable
from hashlib import sha1
from hmac import new
from typing import Any

from ranvier.app.config import RegistrationConfig, ServerNoticesConfig
from ranvier.core.identifiers import ServerName
from ranvier.store.tables import destinations
from ranvier.store.tables.interned import intern_servers

from .administrators import CLIENT, V1, create_room, join, register_admin, send
from .homeserver import PASSWORD, Homeserver, User

Start = Callable[..., Awaitable[Homeserver]]


UNKNOWN = [
    ("GET", "federation/destinations/else.org"),
    ("GET", "federation/destinations/else.org/rooms"),
    ("POST", "federation/destinations/else.org/reset_connection"),
    *((method, "registration_tokens/x") for method in ("GET", "PUT", "DELETE")),
    *((method, f"{kind}_reports/1") for kind in ("event", "user", "room") for method in ("GET", "DELETE")),
]


async def test_what_is_not_there(admin: User) -> None:
    for method, path in UNKNOWN:
        answer = await admin.request(method, f"{V1}/{path}", json={})
        assert (answer.status, answer.errcode) == (404, "M_NOT_FOUND"), (method, path)


async def test_what_the_server_is_and_does(admin: User, alice: User) -> None:
    assert (await admin.get(f"{V1}/server_version")).json["server_version"].startswith("Ranvier ")
    updates = f"{V1}/background_updates"
    assert (await admin.get(f"{updates}/status")).json == {"enabled": True, "current_updates": {}}
    assert (await admin.get(f"{updates}/enabled")).json == {"enabled": True}
    assert (await admin.post(f"{updates}/enabled", {"enabled": True})).json == {"enabled": True}
    assert (await admin.post(f"{updates}/enabled", {"enabled": False})).status == 400
    assert (await admin.post(f"{updates}/start_job", {"job_name": "x"})).status == 400
    features = f"{V1}/experimental_features/{alice.user_id}"
    assert (await admin.get(features)).json["features"]["msc4222"] is True
    assert (await admin.put(features, {"features": {"msc4222": True}})).json == {}
    assert (await admin.put(features, {"features": {"msc4222": False}})).errcode == "M_INVALID_PARAM"
    assert (await admin.put(features, {"features": {"msc1": True}})).errcode == "M_INVALID_PARAM"


async def test_tasks(homeserver: Homeserver, admin: User, alice: User) -> None:
    room_id = await create_room(alice)
    await admin.delete(f"{V1}/rooms/{room_id}", {"purge": False})
    tasks = (await admin.get(f"{V1}/scheduled_tasks")).json["scheduled_tasks"]
    deletion = next(task for task in tasks if task["action"] == "shutdown_and_purge_room")
    assert (deletion["resource_id"], deletion["status"], deletion["error"]) == (room_id, "complete", None)
    assert deletion["result"]["kicked_users"] == [alice.user_id]

    async def count(**query: Any) -> int:
        answer = await admin.get(f"{V1}/scheduled_tasks", **query)
        return len(answer.json["scheduled_tasks"])

    assert await count(action_name="shutdown_and_purge_room", resource_id=room_id, status="complete") == 1
    assert await count(status="failed") == 0
    assert await count(status="cancelled") == 0
    assert await count(resource_id="!other:test") == 0
    assert await count(action_name="shutdown_and_purge_room", max_timestamp=1) == 0
    assert (await admin.get(f"{V1}/scheduled_tasks", status="odd")).errcode == "M_INVALID_PARAM"
    # What failed says why, and can be begun again.
    other = await create_room(alice)
    assert (await admin.get(f"{V1}/purge_history_status/nothing")).status == 404
    assert (await admin.delete(f"{V1}/rooms/{other}", {})).status == 200


async def test_registration_tokens(start_homeserver: Start) -> None:
    homeserver = await start_homeserver(registration=RegistrationConfig(mode="token", shared_secret="s"))
    ports = homeserver.foundation.ports
    admin = await _made_admin(homeserver)
    path = f"{V1}/registration_tokens"
    made = (await admin.post(f"{path}/new", {})).json
    assert len(made["token"]) == 16
    assert {key: made[key] for key in ("uses_allowed", "pending", "completed", "expiry_time")} == {
        "uses_allowed": None,
        "pending": 0,
        "completed": 0,
        "expiry_time": None,
    }
    one = (await admin.post(f"{path}/new", {"token": "one.use", "uses_allowed": 1})).json
    assert (one["token"], one["uses_allowed"]) == ("one.use", 1)
    for body, errcode in (
        ({"token": "one.use"}, "M_INVALID_PARAM"),
        ({"token": "a b"}, "M_INVALID_PARAM"),
        ({"token": "x" * 65}, "M_INVALID_PARAM"),
        ({"expiry_time": 1}, "M_INVALID_PARAM"),
        ({"length": 0}, "M_BAD_JSON"),
        ({"uses_allowed": -1}, "M_BAD_JSON"),
        ({"uses_allowed": "1"}, "M_BAD_JSON"),
    ):
        assert (await admin.post(f"{path}/new", body)).errcode == errcode, body
    auth = {"type": "m.login.registration_token", "token": "one.use"}
    session = (
        await homeserver.client.post(f"{CLIENT}/register", {"username": "new", "password": PASSWORD})
    ).json
    body = {"username": "new", "password": PASSWORD, "auth": auth | {"session": session["session"]}}
    assert (await homeserver.client.post(f"{CLIENT}/register", body)).status == 200
    assert (await admin.get(f"{path}/one.use")).json["completed"] == 1
    listed = (await admin.get(path, valid="false")).json["registration_tokens"]
    assert [token["token"] for token in listed] == ["one.use"]
    assert len((await admin.get(path)).json["registration_tokens"]) == 2
    later = ports.clock.now_ms() + 60_000
    changed = (await admin.put(f"{path}/one.use", {"uses_allowed": None, "expiry_time": later})).json
    assert (changed["uses_allowed"], changed["expiry_time"], changed["completed"]) == (None, later, 1)
    assert (await admin.put(f"{path}/one.use", {})).json == changed
    assert len((await admin.get(path, valid="true")).json["registration_tokens"]) == 2
    assert (await admin.delete(f"{path}/one.use")).json == {}
    assert (await admin.get(f"{path}/one.use")).status == 404


async def _made_admin(homeserver: Homeserver) -> User:
    """Where registration is not open."""
    nonce = (await homeserver.client.get(f"{V1}/register")).json["nonce"]
    mac = new(b"s", "\0".join([nonce, "admin", PASSWORD, "admin"]).encode(), sha1).hexdigest()
    body = {"nonce": nonce, "username": "admin", "password": PASSWORD, "admin": True, "mac": mac}
    answer = await homeserver.client.post(f"{V1}/register", body)
    assert answer.status == 200, answer.body
    return homeserver.user(answer.json)


async def test_reports(homeserver: Homeserver, admin: User, alice: User) -> None:
    bob = await homeserver.register("bob")
    room_id = await create_room(alice, preset="public_chat", name="Hall", room_alias_name="hall")
    await join(bob, room_id)
    events = [await send(alice, room_id, f"bad {number}", str(number)) for number in range(3)]
    for event_id in events:
        answer = await bob.post(f"{CLIENT}/rooms/{room_id}/report/{event_id}", {"reason": "rude"})
        assert answer.status == 200
    await bob.post(f"{CLIENT}/rooms/{room_id}/report", {"reason": "all of it"})
    path = f"{V1}/event_reports"
    page = (await admin.get(path, limit=2)).json
    assert (page["total"], page["next_token"]) == (3, 2)
    assert [one["event_id"] for one in page["event_reports"]] == events[:0:-1]
    newest = page["event_reports"][0]
    expected = {"room_id": room_id, "name": "Hall", "canonical_alias": "#hall:test", "reason": "rude"}
    assert expected.items() <= newest.items()
    assert (newest["user_id"], newest["sender"], newest["score"]) == (bob.user_id, alice.user_id, None)
    rest = (await admin.get(path, **{"from": 2})).json
    assert ([one["event_id"] for one in rest["event_reports"]], "next_token" in rest) == (events[:1], False)
    oldest = (await admin.get(path, dir="f", limit=1)).json["event_reports"][0]
    assert oldest["event_id"] == events[0]
    for query, count in (
        ({"user_id": bob.user_id}, 3),
        ({"user_id": alice.user_id}, 0),
        ({"user_id": "@nobody:test"}, 0),
        ({"room_id": room_id}, 3),
        ({"room_id": "!other:test"}, 0),
        ({"event_sender_user_id": alice.user_id}, 3),
    ):
        assert (await admin.get(path, **query)).json["total"] == count, query
    one = (await admin.get(f"{path}/{newest['id']}")).json
    assert one["event_json"]["content"]["body"] == "bad 2"
    assert (await admin.delete(f"{path}/{newest['id']}")).json == {}
    assert (await admin.get(f"{path}/{newest['id']}")).status == 404
    assert (await admin.get(f"{path}/first")).errcode == "M_INVALID_PARAM"


async def test_reports_of_users_and_rooms(homeserver: Homeserver, admin: User) -> None:
    alice = await homeserver.register("alice")
    bob, carol = await homeserver.register("bob"), await homeserver.register("carol")
    room_id = await create_room(alice, preset="public_chat", name="Hall")
    for reporter, target in ((alice, bob), (alice, carol), (bob, carol)):
        answer = await reporter.post(f"{CLIENT}/users/{target.user_id}/report", {"reason": "rude"})
        assert answer.status == 200, answer.body
    await bob.post(f"{CLIENT}/rooms/{room_id}/report", {"reason": "all of it"})
    event_id = await send(alice, room_id, "hello")
    await bob.post(f"{CLIENT}/rooms/{room_id}/report/{event_id}", {"reason": "this"})

    users, rooms = f"{V1}/user_reports", f"{V1}/room_reports"
    page = (await admin.get(users, limit=2)).json
    assert (page["total"], page["next_token"]) == (3, 2)
    newest = page["user_reports"][0]
    expected = {"user_id": bob.user_id, "target_user_id": carol.user_id, "reason": "rude"}
    assert newest == expected | {"id": newest["id"], "received_ts": newest["received_ts"]}
    for query, count in (
        ({"user_id": alice.user_id}, 2),
        ({"target_user_id": carol.user_id}, 2),
        ({"user_id": "@nobody:test"}, 0),
        ({"target_user_id": "@nobody:test\0"}, 0),
        ({"from": 2}, 3),
    ):
        assert (await admin.get(users, **query)).json["total"] == count, query
    assert (await admin.get(f"{users}/{newest['id']}")).json == newest

    (report,) = (await admin.get(rooms)).json["room_reports"]
    assert report == (await admin.get(f"{rooms}/{report['id']}")).json
    assert (report["room_id"], report["name"], report["reason"]) == (room_id, "Hall", "all of it")
    assert "event_id" not in report
    # Each kind knows its own alone.
    assert (await admin.get(f"{rooms}/{newest['id']}")).status == 404
    assert (await admin.get(f"{users}/{report['id']}")).status == 404
    assert (await admin.delete(f"{V1}/event_reports/{report['id']}")).status == 404
    assert (await admin.delete(f"{users}/{report['id']}")).status == 404
    for path in (f"{users}/{newest['id']}", f"{rooms}/{report['id']}"):
        assert (await admin.delete(path)).json == {}
        assert (await admin.get(path)).status == 404
    assert ((await admin.get(users)).json["total"], (await admin.get(rooms)).json["total"]) == (2, 0)
    assert (await admin.get(f"{users}/first")).errcode == "M_INVALID_PARAM"


async def test_other_servers(homeserver: Homeserver, admin: User) -> None:
    db, interner = homeserver.foundation.ports.db, homeserver.foundation.interner
    now_ms = homeserver.clock.now_ms()

    def write(txn: Any) -> None:
        nids = intern_servers(txn, interner, [ServerName("b.example"), ServerName("a.example")])
        destinations.note_success(txn, nids[ServerName("a.example")], 7, now_ms)
        destinations.note_failure(txn, nids[ServerName("b.example")], now_ms, 3_600_000)

    await db.write(write)
    path = f"{V1}/federation/destinations"
    listed = (await admin.get(path)).json
    assert [one["destination"] for one in listed["destinations"]] == ["a.example", "b.example"]
    assert listed["total"] == 2
    backwards = (await admin.get(path, dir="b")).json["destinations"]
    assert backwards[0]["destination"] == "b.example"
    assert (await admin.get(path, limit=1)).json["next_token"] == "1"
    assert (await admin.get(path, destination="B.EX")).json["total"] == 1
    for order in ("retry_last_ts", "retry_interval", "failure_ts", "last_successful_stream_ordering"):
        assert len((await admin.get(path, order_by=order)).json["destinations"]) == 2
    well = (await admin.get(f"{path}/a.example")).json
    assert well == {
        "destination": "a.example",
        "retry_last_ts": 0,
        "retry_interval": 0,
        "failure_ts": None,
        "last_successful_stream_ordering": 7,
    }
    failing = (await admin.get(f"{path}/b.example")).json
    assert (failing["failure_ts"], failing["retry_last_ts"], failing["retry_interval"]) == (
        now_ms,
        now_ms,
        3_600_000,
    )
    assert (await admin.get(f"{path}/a.example/rooms")).json == {"rooms": [], "total": 0}
    assert (await admin.post(f"{path}/a.example/reset_connection", {})).errcode == "M_INVALID_PARAM"
    assert (await admin.post(f"{path}/b.example/reset_connection", {})).json == {}
    nid = await db.read(
        lambda txn: txn.value("SELECT server_nid FROM servers WHERE server_name = 'b.example'")
    )
    row = (await db.read(destinations.list_destinations, [nid]))[nid]
    assert row.retry_at_ms < now_ms + 3_600_000
    assert (await admin.get(f"{path}/not a server")).errcode == "M_INVALID_PARAM"


NOTICES = ServerNoticesConfig(user="notices", display_name="The Server", room_topic="What you have to know")


async def test_server_notices(start_homeserver: Start) -> None:
    homeserver = await start_homeserver(server_notices=NOTICES)
    admin, alice = await register_admin(homeserver), await homeserver.register("alice")
    taken = await homeserver.client.post(
        f"{CLIENT}/register", {"username": "notices", "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
    )
    assert taken.status == 400
    notice = {"user_id": alice.user_id, "content": {"msgtype": "m.text", "body": "Maintenance at noon"}}
    path = f"{V1}/send_server_notice"
    first = await admin.put(f"{path}/1", notice)
    assert first.status == 200, first.body
    assert (await admin.put(f"{path}/1", notice)).json == first.json
    rooms = (await alice.get(f"{CLIENT}/sync")).json["rooms"]
    (room_id,) = rooms["invite"]
    refused = await alice.post(f"{CLIENT}/rooms/{room_id}/leave", {})
    assert (refused.status, refused.errcode) == (403, "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM")
    leave = {"membership": "leave"}
    refused = await alice.put(f"{CLIENT}/rooms/{room_id}/state/m.room.member/{alice.user_id}", leave)
    assert refused.errcode == "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM"
    await join(alice, room_id)
    tags = (await alice.get(f"{CLIENT}/user/{alice.user_id}/rooms/{room_id}/tags")).json["tags"]
    assert tags == {"m.server_notice": {}}
    joined = (await alice.get(f"{CLIENT}/rooms/{room_id}/joined_members")).json["joined"]
    assert joined["@notices:test"]["display_name"] == "The Server"
    special = {
        "msgtype": "m.server_notice",
        "body": "x",
        "server_notice_type": "m.server_notice.usage_limit_reached",
        "admin_contact": "mailto:a@b.c",
    }
    second = await admin.post(path, notice | {"content": special})
    assert second.status == 200
    page = (await alice.get(f"{CLIENT}/rooms/{room_id}/messages", dir="b")).json["chunk"]
    bodies = [event["content"]["body"] for event in page if event["type"] == "m.room.message"]
    assert bodies == ["x", "Maintenance at noon"]
    mute = await alice.put(f"{CLIENT}/rooms/{room_id}/send/m.room.message/1", {"body": "why?"})
    assert mute.status == 403
    state = await admin.post(path, notice | {"type": "x.state", "state_key": "k", "content": {"a": 1}})
    assert state.status == 200
    assert (await alice.get(f"{CLIENT}/rooms/{room_id}/state/x.state/k")).json == {"a": 1}
    # Who has joined may leave, and is invited again by the next notice.
    assert (await alice.post(f"{CLIENT}/rooms/{room_id}/leave", {})).status == 200
    assert (await admin.post(path, notice)).status == 200
    assert list((await alice.get(f"{CLIENT}/sync")).json["rooms"]["invite"]) == [room_id]
    for body, errcode in (
        (notice | {"user_id": "@nobody:test"}, "M_NOT_FOUND"),
        (notice | {"user_id": "@x:else.org"}, "M_INVALID_PARAM"),
        (notice | {"content": 1}, "M_BAD_JSON"),
        ({"user_id": alice.user_id}, "M_MISSING_PARAM"),
    ):
        assert (await admin.post(path, body)).errcode == errcode, body
    # Who closes the account leaves this room, too.
    await admin.post(f"{V1}/deactivate/{alice.user_id}", {})
    assert (await admin.post(path, notice)).errcode == "M_INVALID_PARAM"


async def test_notices_that_are_read_at_once(start_homeserver: Start, homeserver: Homeserver) -> None:
    joining = await start_homeserver(server_notices=ServerNoticesConfig(user="notices", auto_join=True))
    admin, alice = await register_admin(joining), await joining.register("alice")
    notice = {"user_id": alice.user_id, "content": {"msgtype": "m.text", "body": "read me"}}
    assert (await admin.post(f"{V1}/send_server_notice", notice)).status == 200
    assert len((await alice.get(f"{CLIENT}/joined_rooms")).json["joined_rooms"]) == 1
    # Without the setting there are none.
    admin, _ = await register_admin(homeserver), await homeserver.register("alice")
    assert (await admin.post(f"{V1}/send_server_notice", notice)).errcode == "M_INVALID_PARAM"
