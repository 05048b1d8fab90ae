"""Rooms, through the administration API that tools for Synapse speak."""

from collections.abc import Callable
from typing import Any

import pytest

from ranvier.services.administration.purging import DEPARTURES_KEPT_MS, RoomPurge
from ranvier.store.database import Kind, ReadTxn, WriteTxn

from ..postgres import POOL
from .administrators import CLIENT, V1, V2, create_room, join, send
from .client import Answer, segment
from .homeserver import Homeserver, User, eventually

ENDPOINTS = [
    ("GET", f"{V1}/rooms"),
    ("GET", f"{V1}/rooms/!a:test"),
    ("GET", f"{V1}/rooms/!a:test/members"),
    ("GET", f"{V1}/rooms/!a:test/state"),
    ("GET", f"{V1}/rooms/!a:test/messages"),
    ("GET", f"{V1}/rooms/!a:test/context/$e"),
    ("GET", f"{V1}/rooms/!a:test/timestamp_to_event?ts=1"),
    ("GET", f"{V1}/rooms/!a:test/forward_extremities"),
    ("DELETE", f"{V1}/rooms/!a:test/forward_extremities"),
    ("GET", f"{V1}/rooms/!a:test/hierarchy"),
    ("GET", f"{V1}/rooms/!a:test/block"),
    ("PUT", f"{V1}/rooms/!a:test/block"),
    ("POST", f"{V1}/rooms/!a:test/make_room_admin"),
    ("DELETE", f"{V1}/rooms/!a:test"),
    ("DELETE", f"{V2}/rooms/!a:test"),
    ("GET", f"{V2}/rooms/!a:test/delete_status"),
    ("GET", f"{V2}/rooms/delete_status/x"),
    ("POST", f"{V1}/join/!a:test"),
    ("POST", f"{V1}/purge_history/!a:test"),
    ("POST", f"{V1}/purge_history/!a:test/$e"),
    ("GET", f"{V1}/purge_history_status/x"),
    ("GET", f"{V1}/fetch_event/$e"),
    ("GET", f"{V1}/statistics/database/rooms"),
]


async def test_unknown_rooms(admin: User) -> None:
    for method, path in ENDPOINTS:
        if path.endswith(("/block", f"{V1}/rooms", "database/rooms")) or "/join/" in path:
            continue
        body = {"purge_up_to_ts": 1} if "purge" in path else {}
        answer = await admin.request(method, path, json=body)
        assert (answer.status, answer.errcode) == (404, "M_NOT_FOUND"), (method, path, answer.body)


async def test_the_tree_of_a_space_holds_what_is_not_public(admin: User, alice: User) -> None:
    room_id = await create_room(alice, name="Private")
    space = await create_room(alice, name="Space", creation_content={"type": "m.space"})
    await alice.put(f"{CLIENT}/rooms/{space}/state/m.space.child/{room_id}", {"via": ["test"]})
    await alice.put(
        f"{CLIENT}/rooms/{space}/state/m.space.child/!far:else.example", {"via": ["else.example"]}
    )
    path = f"{V1}/rooms/{space}/hierarchy"
    shown = (await admin.get(path)).json
    assert [room["name"] for room in shown["rooms"]] == ["Space", "Private"]
    assert (await admin.get(path.replace("/_synapse/admin/v1", "/_matrix/client/v1"))).status == 403
    first = (await admin.get(path, limit=1)).json
    rest = (await admin.get(path, **{"from": first["next_batch"]})).json
    assert first["rooms"] + rest["rooms"] == shown["rooms"]
    assert [room["name"] for room in (await admin.get(path, max_depth=0)).json["rooms"]] == ["Space"]


ORDERS = (
    *(
        "alphabetical",
        "canonical_alias",
        "joined_local_members",
        "version",
        "creator",
        "encryption",
        "federatable",
    ),
    *("public", "join_rules", "guest_access", "history_visibility", "state_events"),
)


async def test_rooms_are_listed_and_described(admin: User, alice: User, bob: User) -> None:
    named = await create_room(
        alice, name="Alpha", topic="first", visibility="public", room_alias_name="alpha"
    )
    await join(bob, named)
    space = await create_room(
        bob, name="Beta", creation_content={"type": "m.space", "m.federate": False}, room_version="10"
    )
    locked = await create_room(
        alice,
        name="Gamma",
        initial_state=[{"type": "m.room.encryption", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}],
    )
    await alice.post(f"{CLIENT}/rooms/{locked}/leave", {})

    async def listed(**query: Any) -> list[str]:
        answer = await admin.get(f"{V1}/rooms", **query)
        assert answer.status == 200, answer.body
        assert answer.json["offset"] == int(query.get("from", 0))
        return [room["name"] for room in answer.json["rooms"]]

    assert await listed() == ["Alpha", "Beta", "Gamma"]
    assert await listed(dir="b") == ["Gamma", "Beta", "Alpha"]
    assert await listed(order_by="joined_members") == ["Alpha", "Beta", "Gamma"]
    assert await listed(order_by="size", dir="b") == ["Gamma", "Beta", "Alpha"]
    assert await listed(search_term="ALPH") == ["Alpha"]
    assert await listed(search_term=space) == ["Beta"]
    assert await listed(search_term="test") == (["Beta"] if space.endswith(":test") else [])
    assert await listed(public_rooms="true") == ["Alpha"]
    assert await listed(public_rooms="false", empty_rooms="false") == ["Beta"]
    assert await listed(empty_rooms="true") == ["Gamma"]
    for order in ORDERS:
        assert len(await listed(order_by=order)) == 3, order
    assert (await listed(order_by="federatable"))[0] == "Beta"
    page = (await admin.get(f"{V1}/rooms", limit=2)).json
    assert (page["total_rooms"], page["next_batch"], "prev_batch" in page) == (3, 2, False)
    rest = (await admin.get(f"{V1}/rooms", limit=2, **{"from": 2})).json
    assert ([room["name"] for room in rest["rooms"]], rest["prev_batch"]) == (["Gamma"], 0)
    assert "next_batch" not in rest
    for query in ({"order_by": "age"}, {"limit": "-1"}, {"public_rooms": "x"}):
        assert (await admin.get(f"{V1}/rooms", **query)).errcode == "M_INVALID_PARAM"

    details = (await admin.get(f"{V1}/rooms/{named}")).json
    assert {key: details[key] for key in ("name", "topic", "canonical_alias", "creator", "public")} == {
        "name": "Alpha",
        "topic": "first",
        "canonical_alias": "#alpha:test",
        "creator": alice.user_id,
        "public": True,
    }
    assert (details["joined_members"], details["joined_local_members"], details["joined_local_devices"]) == (
        2,
        2,
        2,
    )
    assert (details["federatable"], details["forgotten"], details["tombstoned"]) == (True, False, False)
    described = (await admin.get(f"{V1}/rooms/{space}")).json
    assert (described["version"], described["room_type"], described["federatable"]) == (
        "10",
        "m.space",
        False,
    )
    assert (await admin.get(f"{V1}/rooms/{locked}")).json["encryption"] == "m.megolm.v1.aes-sha2"
    members = (await admin.get(f"{V1}/rooms/{named}/members")).json
    assert (sorted(members["members"]), members["total"]) == ([alice.user_id, bob.user_id], 2)
    state = (await admin.get(f"{V1}/rooms/{named}/state")).json["state"]
    assert {"m.room.create", "m.room.name", "m.room.member"} <= {event["type"] for event in state}
    assert len(state) == details["state_events"]
    only = (await admin.get(f"{V1}/rooms/{named}/state", type="m.room.topic")).json["state"]
    assert [event["content"]["topic"] for event in only] == ["first"]
    sizes = (await admin.get(f"{V1}/statistics/database/rooms")).json["rooms"]
    assert {one["room_id"] for one in sizes} == {named, space, locked}
    assert all(one["estimated_size"] > 0 for one in sizes)


async def test_reading_what_is_not_for_everybody(homeserver: Homeserver, admin: User, alice: User) -> None:
    room_id = await create_room(
        alice,
        initial_state=[{"type": "m.room.history_visibility", "content": {"history_visibility": "joined"}}],
    )
    first, second = await send(alice, room_id, "first"), await send(alice, room_id, "second")
    page = (await admin.get(f"{V1}/rooms/{room_id}/messages", dir="b", limit=1)).json
    assert [event["event_id"] for event in page["chunk"]] == [second]
    more = (await admin.get(f"{V1}/rooms/{room_id}/messages", dir="b", limit=1, **{"from": page["end"]})).json
    assert [event["content"]["body"] for event in more["chunk"]] == ["first"]
    context = (await admin.get(f"{V1}/rooms/{room_id}/context/{first}", limit=2)).json
    assert (context["event"]["event_id"], context["events_after"][0]["event_id"]) == (first, second)
    found = (await admin.get(f"{V1}/rooms/{room_id}/timestamp_to_event", ts=0)).json
    assert (
        found["event_id"]
        == (await admin.get(f"{V1}/rooms/{room_id}/state", type="m.room.create")).json["state"][0]["event_id"]
    )
    stored = (await admin.get(f"{V1}/fetch_event/{first}")).json["event"]
    assert (stored["event_id"], stored["content"]["body"]) == (first, "first")
    assert {"signatures", "hashes", "prev_events"} <= stored.keys()
    # The administrator is still not in the room for anything else.
    assert (await admin.get(f"{CLIENT}/rooms/{room_id}/messages", dir="b")).status == 403
    assert (await admin.get(f"{V1}/rooms/{room_id}/context/$nothing")).status == 404


async def test_looking_is_written_to_the_log(
    admin: User, alice: User, caplog: pytest.LogCaptureFixture
) -> None:
    room_id = await create_room(alice)
    with caplog.at_level("INFO", "ranvier.audit"):
        await admin.get(f"{V1}/rooms/{room_id}/messages")
        await admin.put(f"{V1}/rooms/{room_id}/block", {"block": True})
        await admin.delete(f"{V1}/registration_tokens/once-secret")
        await admin.get(f"{V1}/rooms")
    lines = [record.message for record in caplog.records if record.name == "ranvier.audit"]
    assert [line.split()[0] for line in lines] == [
        "listMessagesOfRoom",
        "blockRoom",
        "deleteRegistrationToken",
    ]
    assert all(admin.user_id in line for line in lines)
    assert room_id in lines[1]
    assert "failed: NotFound" in lines[2]
    assert "{'token': 'on…'}" in lines[2]
    assert "secret" not in caplog.text


async def test_blocking(admin: User, alice: User, bob: User) -> None:
    room_id = await create_room(alice, preset="public_chat")
    path = f"{V1}/rooms/{room_id}/block"
    assert (await admin.get(path)).json == {"block": False}
    assert (await admin.put(path, {"block": True})).json == {"block": True}
    assert (await admin.get(path)).json == {"block": True, "user_id": admin.user_id}
    assert (await bob.post(f"{CLIENT}/rooms/{room_id}/join", {})).status == 403
    assert (await admin.put(path, {"block": False})).json == {"block": False}
    await join(bob, room_id)
    assert (await admin.put(path, {"block": "yes"})).errcode == "M_BAD_JSON"
    assert (await admin.put(f"{V1}/rooms/!unknown:else.org/block", {"block": True})).status == 200


async def test_joining_users(admin: User, alice: User, bob: User) -> None:
    public = await create_room(alice, preset="public_chat", room_alias_name="open")
    answer = await admin.post(f"{V1}/join/{segment('#open:test')}", {"user_id": bob.user_id})
    assert answer.json == {"room_id": public}
    private = await create_room(alice)
    refused = await admin.post(f"{V1}/join/{private}", {"user_id": bob.user_id})
    assert refused.status == 403
    own = await create_room(admin)
    assert (await admin.post(f"{V1}/join/{own}", {"user_id": bob.user_id})).json == {"room_id": own}
    joined = (await admin.get(f"{V1}/users/{bob.user_id}/joined_rooms")).json["joined_rooms"]
    assert sorted(joined) == sorted([public, own])
    for room, user, errcode in (
        ("!none:test", bob.user_id, "M_NOT_FOUND"),
        (public, "@nobody:test", "M_NOT_FOUND"),
        (public, "@x:else.org", "M_INVALID_PARAM"),
        ("nothing", bob.user_id, "M_INVALID_PARAM"),
    ):
        assert (await admin.post(f"{V1}/join/{room}", {"user_id": user})).errcode == errcode, room


@pytest.mark.parametrize("version", ["10", "12"])
async def test_making_somebody_the_rooms_administrator(
    admin: User, alice: User, bob: User, version: str
) -> None:
    room_id = await create_room(alice, room_version=version)
    path = f"{V1}/rooms/{room_id}/make_room_admin"
    assert (await admin.post(path, {"user_id": bob.user_id})).json == {}
    levels = (await alice.get(f"{CLIENT}/rooms/{room_id}/state/m.room.power_levels")).json
    assert levels["users"][bob.user_id] == 100
    await join(bob, room_id)
    topic = await bob.put(f"{CLIENT}/rooms/{room_id}/state/m.room.topic", {"topic": "mine"})
    assert topic.status == 200
    assert (await admin.post(path)).json == {}
    await join(admin, room_id)
    await bob.put(f"{CLIENT}/rooms/{room_id}/state/m.room.power_levels", {**levels, "users": {}})
    await alice.post(f"{CLIENT}/rooms/{room_id}/leave", {})


async def test_branches_of_a_room(homeserver: Homeserver, admin: User, alice: User) -> None:
    room_id = await create_room(alice)
    path = f"{V1}/rooms/{room_id}/forward_extremities"
    heads = (await admin.get(path)).json
    assert (heads["count"], len(heads["results"])) == (1, 1)
    assert set(heads["results"][0]) == {"event_id", "state_group", "depth", "received_ts"}
    assert (await admin.delete(path)).json == {"deleted": 0}


NAMING_EVENTS = {
    "event_nid",
    "auth_nid",
    "redaction_nid",
    "newest_nid",
    "redacted_by",
    "root_nid",
    "join_nid",
}


VALUES = {"INTEGER": 1, "bigint": 1, "smallint": 1, "BLOB": b"x", "bytea": b"x"}
"""Of a type; others take "x"."""


def list_columns(txn: ReadTxn) -> dict[str, dict[str, str]]:
    """Table -> column -> type, as SQLite or as PostgreSQL calls it."""
    tables: dict[str, dict[str, str]] = {}
    if POOL is None:
        sql = "SELECT t.name, c.name, c.type FROM sqlite_master t, pragma_table_info(t.name) c WHERE t.type = 'table'"
    else:
        sql = "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = 'public'"
    for table, column, kind in txn.all(sql):
        tables.setdefault(table, {})[column] = kind
    return tables


def rows_of(txn: ReadTxn, room_nid: int, event_nids: list[int]) -> dict[str, int]:
    """Table -> how many of its rows name the room or one of its events, whatever column does so."""
    found: dict[str, int] = {}
    for name, columns in list_columns(txn).items():
        conditions = [f"{column} = :room_nid" for column in columns if column == "room_nid"]
        conditions += [
            f"{column} IN (:event_nids[])"
            for column in columns
            if column
            in (
                "event_nid",
                "auth_nid",
                "redaction_nid",
                "newest_nid",
                "redacted_by",
                "root_nid",
            )
        ]
        if conditions:
            count = txn.value(
                f"SELECT COUNT(*) FROM {name} WHERE {' OR '.join(conditions)}",
                room_nid=room_nid,
                event_nids=event_nids,
            )
            found[name] = int(count)
    return found


def plant(txn: WriteTxn, room_nid: int, event_nid: int) -> None:
    """A row of the room in every table that has none: what only federation, or nobody yet, leaves there."""
    device_nid, user_nid = txn.first("SELECT device_nid, user_nid FROM devices LIMIT 1") or (0, 0)
    txn.execute(
        "INSERT INTO sliding_connections (life, device_nid, conn_id, answer, position, required_states, used_ms) "
        "VALUES (77, :device_nid, 'planted', 1, 1, :none, 1)",
        device_nid=device_nid,
        none=b"[]",
    )
    known = {"room_nid": room_nid, "user_nid": user_nid, "sender_nid": user_nid, "life": 77}
    tables = list_columns(txn)
    for name, count in rows_of(txn, room_nid, [event_nid]).items():
        if count:
            continue
        values = {
            column: known.get(column, event_nid if column in NAMING_EVENTS else VALUES.get(kind, "x"))
            for column, kind in tables[name].items()
        }
        txn.execute(
            f"INSERT INTO {name} ({', '.join(values)}) VALUES ({', '.join(f':{column}' for column in values)})",
            **values,
        )


def find_room_nid(txn: ReadTxn, room_id: str) -> tuple[int, list[int]]:
    nid = int(txn.value("SELECT room_nid FROM rooms WHERE room_id = :room_id", room_id=room_id))
    return nid, [row[0] for row in txn.all("SELECT event_nid FROM events WHERE room_nid = :nid", nid=nid)]


async def sliding_sync(user: User, **query: str) -> Answer:
    wish = {"lists": {"a": {"ranges": [[0, 9]], "timeline_limit": 3, "required_state": []}}}
    path = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
    return await user.post(path, wish, timeout=0, **query)


async def fill(alice: User, bob: User, room_id: str, *, slides: bool = False) -> None:
    """Leave traces of a room wherever users can."""
    await join(bob, room_id)
    first = await send(alice, room_id, "an apple a day")
    for number in range(5):
        mention = {"msgtype": "m.text", "body": "alice", "m.mentions": {"user_ids": [alice.user_id]}}
        await bob.put(f"{CLIENT}/rooms/{room_id}/send/m.room.message/{number}", mention)
    thread = {
        "msgtype": "m.text",
        "body": "reply",
        "m.relates_to": {"rel_type": "m.thread", "event_id": first},
    }
    await bob.put(f"{CLIENT}/rooms/{room_id}/send/m.room.message/thread", thread)
    reaction = {"m.relates_to": {"rel_type": "m.annotation", "event_id": first, "key": "x"}}
    await bob.put(f"{CLIENT}/rooms/{room_id}/send/m.reaction/reaction", reaction)
    doomed = await send(alice, room_id, "doomed")
    await alice.put(f"{CLIENT}/rooms/{room_id}/redact/{doomed}/r", {})
    await bob.post(f"{CLIENT}/rooms/{room_id}/receipt/m.read/{first}", {})
    await alice.post(f"{CLIENT}/rooms/{room_id}/read_markers", {"m.fully_read": first})
    await alice.put(f"{CLIENT}/rooms/{room_id}/typing/{alice.user_id}", {"typing": True, "timeout": 30_000})
    await alice.put(f"{CLIENT}/user/{alice.user_id}/rooms/{room_id}/account_data/x.y", {"a": 1})
    for number in range(60):  # more state than one node of it holds
        await alice.put(f"{CLIENT}/rooms/{room_id}/state/x.state/{number}", {"n": number})
    if not slides:
        return
    answer = (await sliding_sync(alice)).json
    await sliding_sync(alice, pos=answer["pos"])


async def deleted(admin: User, room_id: str, **wish: Any) -> dict[str, Any]:
    """Delete a room and wait for it."""
    started = await admin.delete(f"{V2}/rooms/{room_id}", wish)
    assert started.status == 200, started.body
    delete_id = started.json["delete_id"]

    async def has_ended() -> bool:
        status = (await admin.get(f"{V2}/rooms/delete_status/{delete_id}")).json["status"]
        return status in ("complete", "failed")

    await eventually(has_ended)
    status: dict[str, Any] = (await admin.get(f"{V2}/rooms/delete_status/{delete_id}")).json
    return status


async def test_nothing_stays_of_a_purged_room(
    homeserver: Homeserver, admin: User, alice: User, bob: User
) -> None:
    db = homeserver.foundation.ports.db
    kept = await create_room(alice, preset="public_chat", name="kept")
    room_id = await create_room(alice, preset="public_chat", visibility="public", room_alias_name="gone")
    await fill(alice, bob, kept)
    await fill(alice, bob, room_id, slides=True)

    async def is_searchable() -> bool:
        nid, event_nids = await db.read(find_room_nid, room_id)
        return (await db.read(rows_of, nid, event_nids))["message_words"] > 0

    await eventually(is_searchable)
    room_nid, event_nids = await db.read(find_room_nid, room_id)
    await db.write(plant, room_nid, event_nids[-1])
    before = await db.read(rows_of, room_nid, event_nids)
    assert {name for name, count in before.items() if count == 0} == set()
    nodes_before = await db.read(lambda txn: txn.value("SELECT COUNT(*) FROM state_nodes"))
    sync = (await alice.get(f"{CLIENT}/sync")).json
    assert room_id in sync["rooms"]["join"]

    status = await deleted(admin, room_id)
    assert status["status"] == "complete", status
    assert sorted(status["shutdown_room"]["kicked_users"]) == [alice.user_id, bob.user_id]
    assert status["shutdown_room"]["local_aliases"] == ["#gone:test"]
    assert status["shutdown_room"]["new_room_id"] is None
    after = await db.read(rows_of, room_nid, event_nids)
    # That users left is kept for a week, for clients that are offline.
    assert {name for name, count in after.items() if count} == {"rooms", "membership_changes"}
    assert after["membership_changes"] == 2
    head = await db.read(
        lambda txn: txn.first(
            "SELECT state_root, extremities, joined_count FROM rooms WHERE room_nid = :n", n=room_nid
        )
    )
    assert head == (0, "[]", 0)
    nodes_after = await db.read(lambda txn: txn.value("SELECT COUNT(*) FROM state_nodes"))
    assert nodes_after < nodes_before - 50

    assert (await admin.get(f"{V1}/rooms/{room_id}")).status == 404
    assert (await sliding_sync(alice)).status == 200
    told = (await alice.get(f"{CLIENT}/sync", since=sync["next_batch"])).json["rooms"]
    assert (room_id in told["leave"], room_id in told.get("join", {})) == (True, False)
    assert room_id not in (await alice.get(f"{CLIENT}/sync")).json["rooms"]["join"]
    assert (await alice.get(f"{CLIENT}/directory/room/{segment('#gone:test')}")).status == 404
    assert (await alice.get(f"{CLIENT}/rooms/{room_id}/messages", dir="b")).status == 403
    refused = await alice.put(f"{CLIENT}/rooms/{room_id}/send/m.room.message/x", {"body": "x"})
    assert refused.status == 403
    # The other room is as it was.
    await send(alice, kept, "still here")
    assert len((await bob.get(f"{CLIENT}/rooms/{kept}/state")).json) > 60
    history = (await bob.get(f"{CLIENT}/rooms/{kept}/messages", dir="b", limit=200)).json
    assert history["chunk"][-1]["type"] == "m.room.create"
    listed = (await admin.get(f"{V2}/rooms/{room_id}/delete_status")).json["results"]
    assert [one["status"] for one in listed] == ["complete"]
    assert (await admin.delete(f"{V2}/rooms/{room_id}", {})).status == 404

    homeserver.clock.ahead_ms += DEPARTURES_KEPT_MS + 1000
    await send(alice, kept, "a week later")
    await db.write(lambda txn: txn.hint(Kind.JOB, 0))

    async def is_forgotten() -> bool:
        rest = await db.read(rows_of, room_nid, event_nids)
        return {name for name, count in rest.items() if count} == {"rooms"}

    await eventually(is_forgotten)


async def test_users_are_moved_to_a_room_that_says_why(admin: User, alice: User, bob: User) -> None:
    room_id = await create_room(alice, preset="public_chat", room_alias_name="bad", invite=["@admin:test"])
    await join(bob, room_id)
    status = await deleted(
        admin,
        room_id,
        new_room_user_id=admin.user_id,
        room_name="Closed",
        message="It had to be.",
        block=True,
    )
    assert status["status"] == "complete", status
    new_room = status["shutdown_room"]["new_room_id"]
    joined = (await bob.get(f"{CLIENT}/joined_rooms")).json["joined_rooms"]
    assert joined == [new_room]
    messages = (await bob.get(f"{CLIENT}/rooms/{new_room}/messages", dir="b", limit=50)).json["chunk"]
    bodies = [one["content"]["body"] for one in messages if one["type"] == "m.room.message"]
    assert bodies == ["It had to be."]
    assert (await bob.get(f"{CLIENT}/directory/room/{segment('#bad:test')}")).json["room_id"] == new_room
    mute = await bob.put(f"{CLIENT}/rooms/{new_room}/send/m.room.message/1", {"body": "but"})
    assert mute.status == 403
    assert (await admin.get(f"{V1}/rooms/{room_id}/block")).json["block"] is True
    assert (await bob.post(f"{CLIENT}/rooms/{room_id}/join", {})).status == 403


async def test_deleting_and_waiting(admin: User, alice: User, bob: User) -> None:
    room_id = await create_room(alice, preset="public_chat")
    await join(bob, room_id)
    answer = await admin.delete(f"{V1}/rooms/{room_id}", {"purge": False})
    assert answer.status == 200, answer.body
    assert sorted(answer.json["kicked_users"]) == [alice.user_id, bob.user_id]
    assert answer.json["failed_to_kick_users"] == []
    details = (await admin.get(f"{V1}/rooms/{room_id}")).json
    assert (details["joined_members"], details["forgotten"]) == (0, True)
    assert (await admin.delete(f"{V1}/rooms/{room_id}", {})).status == 200
    assert (await admin.get(f"{V1}/rooms/{room_id}")).status == 404
    blocked = await admin.delete(f"{V1}/rooms/!else:where.org", {"block": True})
    assert blocked.json["kicked_users"] == []
    assert (await admin.get(f"{V1}/rooms/!else:where.org/block")).json["block"] is True
    for wish in ({"new_room_user_id": "@x:else.org"}, {"new_room_user_id": "@nobody:test"}):
        other = await create_room(alice)
        assert (await admin.delete(f"{V2}/rooms/{other}", wish)).status in (400, 404)


async def test_history_goes_and_state_stays(
    homeserver: Homeserver, admin: User, alice: User, bob: User
) -> None:
    room_id = await create_room(alice, preset="public_chat", name="history")
    await fill(alice, bob, room_id)
    border = await send(alice, room_id, "border")
    await send(alice, room_id, "after")
    unread = (await bob.get(f"{CLIENT}/sync")).json["rooms"]["join"][room_id]["unread_notifications"]

    async def purged(path: str, body: dict[str, Any]) -> dict[str, Any]:
        started = await admin.post(path, body)
        assert started.status == 200, started.body

        async def is_done() -> bool:
            status = await admin.get(f"{V1}/purge_history_status/{started.json['purge_id']}")
            return bool(status.json["status"] != "active")

        await eventually(is_done)
        return dict((await admin.get(f"{V1}/purge_history_status/{started.json['purge_id']}")).json)

    nothing = await purged(f"{V1}/purge_history/{room_id}/{border}", {})
    assert nothing == {"status": "complete", "events_deleted": 0}
    status = await purged(f"{V1}/purge_history/{room_id}/{border}", {"delete_local_events": True})
    assert status["status"] == "complete"
    assert status["events_deleted"] >= 8
    page = (await bob.get(f"{CLIENT}/rooms/{room_id}/messages", dir="b", limit=200)).json["chunk"]
    assert [one["content"]["body"] for one in page if one["type"] == "m.room.message"] == ["after", "border"]
    assert sum(one["type"] == "x.state" for one in page) == 60
    now = (await bob.get(f"{CLIENT}/sync")).json["rooms"]["join"][room_id]["unread_notifications"]
    assert now["notification_count"] <= unread["notification_count"]
    assert (await bob.get(f"{CLIENT}/notifications")).status == 200
    assert (await bob.get(f"/_matrix/client/v1/rooms/{room_id}/threads")).status == 200
    await send(bob, room_id, "goes on")
    # By time; the newest event stays, whatever is asked for.
    later = homeserver.clock.now_ms() + 60_000
    await purged(f"{V1}/purge_history/{room_id}", {"purge_up_to_ts": later, "delete_local_events": True})
    page = (await bob.get(f"{CLIENT}/rooms/{room_id}/messages", dir="b", limit=200)).json["chunk"]
    assert [one["content"]["body"] for one in page if one["type"] == "m.room.message"] == ["goes on"]
    assert (await admin.post(f"{V1}/purge_history/{room_id}", {})).errcode == "M_INVALID_PARAM"
    assert (await admin.post(f"{V1}/purge_history/{room_id}/$none", {})).status == 404


async def test_a_purge_that_was_broken_off_goes_on(
    homeserver: Homeserver, admin: User, alice: User, bob: User
) -> None:
    """After any of its transactions, the rest is done by whoever does the job again."""
    db, foundation = homeserver.foundation.ports.db, homeserver.foundation
    rooms = [await create_room(alice, preset="public_chat") for _ in range(3)]
    for number, room_id in enumerate(rooms):
        await fill(alice, bob, room_id)
        room_nid, event_nids = await db.read(find_room_nid, room_id)
        purge = RoomPurge(Breaking(db, 3 + 4 * number), foundation.ports.clock, foundation.live)

        async def progress(_deleted: int) -> None:
            return

        while True:
            try:
                await purge.purge(room_id, room_nid, progress)
                break
            except Broken:
                continue
        after = await db.read(rows_of, room_nid, event_nids)
        assert {name for name, count in after.items() if count} == {"rooms", "membership_changes"}
        assert after["membership_changes"] == 2
        joined = (await alice.get(f"{CLIENT}/sync")).json.get("rooms", {}).get("join", {})
        assert room_id not in joined


class Broken(Exception):
    pass


class Breaking:
    """A database that fails each time after so many writes, and one more the next time."""

    def __init__(self, db: Any, writes: int) -> None:
        self._db, self._limit, self._count = db, writes, 0

    def position(self) -> int:
        return int(self._db.position())

    async def write(self, fn: Callable[..., Any], *args: Any) -> Any:
        self._count += 1
        if self._count > self._limit:
            self._limit, self._count = self._limit + 5, 0
            raise Broken
        return await self._db.write(fn, *args)
