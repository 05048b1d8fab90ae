"""Changing the password, and closing the account: what ends with it, and what must not."""

import pytest

from ranvier.store.tables.account_data import list_account_data
from ranvier.store.tables.accounts import find_account_by_id
from ranvier.store.tables.key_backup import find_current_version, insert_version

from .client import segment
from .homeserver import PASSWORD, eventually

C = "/_matrix/client/v3"
CHANGE = f"{C}/account/password"
DEACTIVATE = f"{C}/account/deactivate"
WHOAMI = f"{C}/account/whoami"
NEW = "another password"


def proof(password=PASSWORD):
    identifier = {"type": "m.id.user", "user": "alice"}
    return {"type": "m.login.password", "identifier": identifier, "password": password}


async def refused_login(homeserver, password):
    body = {"type": "m.login.password", "user": "alice", "password": password}
    return (await homeserver.client.post(f"{C}/login", body)).errcode


async def test_a_changed_password_ends_the_other_sessions(homeserver, alice):
    other = await homeserver.login("alice")
    assert (await alice.post(CHANGE, {"new_password": NEW})).status == 401
    assert (await alice.post(CHANGE, {"new_password": NEW, "auth": proof()})).json == {}
    assert (await alice.get(WHOAMI)).status == 200
    assert (await other.get(WHOAMI)).errcode == "M_UNKNOWN_TOKEN"
    assert await refused_login(homeserver, PASSWORD) == "M_FORBIDDEN"
    await homeserver.login("alice", NEW)


async def test_the_other_sessions_may_be_kept(homeserver, alice):
    other = await homeserver.login("alice")
    body = {"new_password": NEW, "auth": proof(), "logout_devices": False}
    assert (await alice.post(CHANGE, body)).status == 200
    assert (await other.get(WHOAMI)).status == 200


async def test_who_is_not_logged_in_can_change_it_with_the_old_one(homeserver, alice):
    answer = await homeserver.client.post(CHANGE, {"new_password": NEW, "auth": proof()})
    assert answer.status == 200
    assert (await alice.get(WHOAMI)).errcode == "M_UNKNOWN_TOKEN"
    await homeserver.login("alice", NEW)


@pytest.mark.parametrize(
    ("body", "status", "errcode"),
    [
        ({"new_password": "short"}, 400, "M_WEAK_PASSWORD"),
        ({"new_password": "x" * 600}, 400, "M_INVALID_PARAM"),
        ({}, 400, "M_MISSING_PARAM"),
        ({"new_password": NEW, "logout_devices": "no"}, 400, "M_BAD_JSON"),
        ({"new_password": NEW, "auth": proof("wrong")}, 401, "M_FORBIDDEN"),
    ],
)
async def test_changes_that_are_refused(homeserver, alice, body, status, errcode):
    answer = await alice.post(CHANGE, body)
    assert (answer.status, answer.errcode) == (status, errcode)
    await homeserver.login("alice")
    assert (await alice.as_user("wrong").post(CHANGE, body)).errcode == "M_UNKNOWN_TOKEN"


async def test_a_closed_account_is_gone_from_everywhere(homeserver, alice):
    bob = await homeserver.register("bob")
    room_id = (await alice.post(f"{C}/createRoom", {"preset": "public_chat"})).json["room_id"]
    await bob.post(f"{C}/join/{segment(room_id)}", {})
    await alice.put(f"{C}/profile/@alice:test/displayname", {"displayname": "Alice"})
    assert (await alice.post(DEACTIVATE, {})).status == 401
    assert (await alice.post(DEACTIVATE, {"auth": proof()})).json == {"id_server_unbind_result": "success"}
    assert (await alice.get(WHOAMI)).errcode == "M_UNKNOWN_TOKEN"
    assert await refused_login(homeserver, PASSWORD) == "M_FORBIDDEN"
    register = {"username": "alice", "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
    assert (await homeserver.client.post(f"{C}/register", register)).errcode == "M_USER_IN_USE"

    async def has_left():
        path = f"{C}/rooms/{segment(room_id)}/state/m.room.member/@alice:test"
        return (await bob.get(path)).json["membership"] == "leave"

    await eventually(has_left)
    assert (await bob.get(f"{C}/profile/@alice:test")).json == {"displayname": "Alice"}


async def test_of_an_erased_account_nothing_is_kept(homeserver, alice):
    await alice.put(f"{C}/profile/@alice:test/displayname", {"displayname": "Alice"})
    await alice.put(f"{C}/user/@alice:test/account_data/org.example", {"secret": 1})
    db = homeserver.foundation.ports.db
    nid = (await db.read(find_account_by_id, alice.user_id)).user_nid
    await db.write(insert_version, nid, "m.megolm_backup.v1", b"{}")
    assert (await alice.post(DEACTIVATE, {"auth": proof(), "erase": True})).status == 200
    assert (await homeserver.client.get(f"{C}/profile/@alice:test")).json == {}
    assert await db.read(list_account_data, nid, db.position()) == []
    assert await db.read(find_current_version, nid) is None
    assert (await db.read(find_account_by_id, alice.user_id)).is_erased


async def test_who_is_not_logged_in_can_close_the_account_with_the_password(homeserver, alice):
    refused = await homeserver.client.post(DEACTIVATE, {"auth": proof("wrong")})
    assert (refused.status, refused.errcode) == (401, "M_FORBIDDEN")
    assert (await homeserver.client.post(DEACTIVATE, {"auth": proof()})).status == 200
    assert (await alice.get(WHOAMI)).errcode == "M_UNKNOWN_TOKEN"
