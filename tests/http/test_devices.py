"""A user's devices: listed, renamed, deleted, and when they were last seen."""

import pytest

from .client import segment
from .homeserver import PASSWORD

C = "/_matrix/client/v3"


def proof(user="alice"):
    return {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": user},
        "password": PASSWORD,
    }


async def list_ids(client):
    return {device["device_id"] for device in (await client.get(f"{C}/devices")).json["devices"]}


async def test_devices_are_listed_and_read(homeserver):
    alice = await homeserver.register("alice", device_id="ONE", initial_device_display_name="Laptop")
    await homeserver.login("alice", device_id="TWO")
    await homeserver.register("bob", device_id="BOBS")
    assert await list_ids(alice) == {"ONE", "TWO"}
    device = (await alice.get(f"{C}/devices/ONE")).json
    assert (device["device_id"], device["user_id"], device["display_name"]) == (
        "ONE",
        "@alice:test",
        "Laptop",
    )
    for unknown in ("BOBS", "NONE", segment("#\u00fc/%")):
        assert (await alice.get(f"{C}/devices/{unknown}")).errcode == "M_NOT_FOUND"


async def test_a_device_is_renamed(homeserver):
    alice = await homeserver.register("alice", device_id="ONE", initial_device_display_name="Laptop")
    path = f"{C}/devices/ONE"
    assert (await alice.put(path, {"display_name": "Desk"})).json == {}
    assert (await alice.put(path, {})).status == 200
    assert (await alice.get(path)).json["display_name"] == "Desk"
    assert (await alice.put(path, {"display_name": "x" * 101})).errcode == "M_INVALID_PARAM"
    assert (await alice.put(path, {"display_name": 1})).errcode == "M_BAD_JSON"
    assert (await alice.put(f"{C}/devices/NONE", {"display_name": "x"})).errcode == "M_NOT_FOUND"
    assert (await alice.put(f"{C}/devices/{'x' * 300}", {})).errcode == "M_INVALID_PARAM"


async def test_a_deleted_device_takes_its_session_with_it(homeserver):
    alice = await homeserver.register("alice", device_id="ONE")
    phone = await homeserver.login("alice", device_id="TWO")
    assert (await alice.delete(f"{C}/devices/TWO", {"auth": proof()})).json == {}
    assert await list_ids(alice) == {"ONE"}
    assert (await phone.get(f"{C}/devices")).errcode == "M_UNKNOWN_TOKEN"
    assert (await alice.delete(f"{C}/devices/TWO", {"auth": proof()})).status == 200


async def test_the_local_settings_of_a_device_go_with_it(homeserver):
    alice = await homeserver.register("alice", device_id="ONE")
    phone = await homeserver.login("alice", device_id="TWO")
    paths = [
        f"{C}/user/@alice:test/account_data/org.matrix.msc3890.local_notification_settings.{device_id}"
        for device_id in ("ONE", "TWO")
    ]
    for path in paths:
        await alice.put(path, {"is_silenced": True})
    await phone.post(f"{C}/logout")
    assert [(await alice.get(path)).status for path in paths] == [200, 404]


async def test_many_devices_are_deleted_at_once(homeserver):
    alice = await homeserver.register("alice", device_id="ONE")
    bob = await homeserver.register("bob", device_id="BOBS")
    for device_id in ("TWO", "THREE"):
        await homeserver.login("alice", device_id=device_id)
    path = f"{C}/delete_devices"
    assert (await alice.post(path, {"devices": ["TWO"]})).status == 401
    assert (await alice.post(path, {"devices": ["TWO", "THREE", "BOBS", "NONE"], "auth": proof()})).json == {}
    assert await list_ids(alice) == {"ONE"}
    assert await list_ids(bob) == {"BOBS"}
    assert (await alice.post(path, {"auth": proof()})).errcode == "M_MISSING_PARAM"
    assert (await alice.post(path, {"devices": [1], "auth": proof()})).errcode == "M_BAD_JSON"


async def test_a_device_knows_when_it_was_last_seen(homeserver):
    alice = await homeserver.register("alice", device_id="ONE")
    device = (await alice.request("GET", f"{C}/devices/ONE", headers={"user-agent": "x" * 1000})).json
    assert device["last_seen_ip"] == "127.0.0.1"
    (worker,) = [worker for worker in homeserver.workers if worker.name == "last seen"]
    await worker.write()
    device = (await alice.get(f"{C}/devices/ONE")).json
    assert device["last_seen_ip"] == "127.0.0.1"
    assert abs(device["last_seen_ts"] - homeserver.clock.now_ms()) < 60_000
    whois = (await alice.get(f"{C}/admin/whois/@alice:test")).json
    (connection,) = whois["devices"]["ONE"]["sessions"][0]["connections"]
    assert (connection["ip"], connection["user_agent"]) == ("127.0.0.1", "x" * 200)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "devices"),
        ("GET", "devices/ONE"),
        ("PUT", "devices/ONE"),
        ("DELETE", "devices/ONE"),
        ("POST", "delete_devices"),
    ],
)
async def test_without_a_token(homeserver, method, path):
    assert (await homeserver.client.request(method, f"{C}/{path}")).errcode == "M_MISSING_TOKEN"


async def test_a_name_has_no_null_characters(homeserver):
    body = {"username": "nul", "password": PASSWORD, "initial_device_display_name": "a\0b"}
    answer = await homeserver.client.post(
        "/_matrix/client/v3/register", {**body, "auth": {"type": "m.login.dummy"}}
    )
    assert (answer.status, answer.errcode) == (400, "M_INVALID_PARAM")
