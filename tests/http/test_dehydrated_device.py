"""A dehydrated device collects messages for a user who is logged in nowhere."""

import pytest

from .homeserver import User
from .olm import device_keys, one_time_key

C = "/_matrix/client/v3"
PATH = "/_matrix/client/unstable/org.matrix.msc3814.v1/dehydrated_device"


def dry(user, device_id="DRY", **more):
    """The body that makes a dehydrated device."""
    device = User(None, None, user.user_id, device_id)
    return {
        "device_id": device_id,
        "device_data": {"algorithm": "m.dehydration.v2", "device_pickle": "secret"},
        "initial_device_display_name": "asleep",
        "device_keys": device_keys(device, dehydrated=True),
        "one_time_keys": {"signed_curve25519:1": one_time_key(device, 1)},
        "fallback_keys": {"signed_curve25519:F": one_time_key(device, 2, fallback=True)},
    } | more


async def send(user, to, txn_id, device_id="DRY"):
    body = {"messages": {to.user_id: {device_id: {"n": txn_id}}}}
    assert (await user.put(f"{C}/sendToDevice/m.test/{txn_id}", body)).status == 200


async def test_it_is_stored_found_and_deleted(homeserver):
    alice = await homeserver.register("alice")
    for method in ("GET", "DELETE"):
        missing = await alice.request(method, PATH)
        assert (missing.status, missing.errcode) == (404, "M_NOT_FOUND")
    body = dry(alice)
    assert (await alice.put(PATH, body)).json == {"device_id": "DRY"}
    other = await homeserver.login("alice")
    assert (await other.get(PATH)).json == {"device_id": "DRY", "device_data": body["device_data"]}
    assert (await other.delete(PATH)).json == {"device_id": "DRY"}
    assert (await alice.get(PATH)).status == 404


async def test_others_encrypt_for_it_as_for_any_device_and_its_messages_stay(homeserver):
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    await alice.put(PATH, dry(alice))
    found = (await bob.post(f"{C}/keys/query", {"device_keys": {alice.user_id: []}})).json["device_keys"]
    assert found[alice.user_id]["DRY"]["dehydrated"] is True
    wanted = {"one_time_keys": {alice.user_id: {"DRY": "signed_curve25519"}}}
    claimed = [(await bob.post(f"{C}/keys/claim", wanted)).json["one_time_keys"] for _ in range(2)]
    assert [list(one[alice.user_id]["DRY"]) for one in claimed] == [
        ["signed_curve25519:1"],
        ["signed_curve25519:F"],
    ]
    for number in range(3):
        await send(bob, alice, str(number))
    for _ in range(2):
        answer = (await alice.post(f"{PATH}/DRY/events", {})).json
        assert [event["content"]["n"] for event in answer["events"]] == ["0", "1", "2"]
        assert answer["events"][0]["sender"] == bob.user_id
    await send(bob, alice, "3")
    rest = (await alice.post(f"{PATH}/DRY/events", {"next_batch": answer["next_batch"]})).json
    assert [event["content"]["n"] for event in rest["events"]] == ["3"]
    end = (await alice.post(f"{PATH}/DRY/events", {"next_batch": rest["next_batch"]})).json
    assert end == {"events": [], "next_batch": rest["next_batch"]}


async def test_a_new_one_takes_the_place_of_the_old_one(homeserver):
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    await alice.put(PATH, dry(alice))
    await send(bob, alice, "1")
    assert (await alice.put(PATH, dry(alice))).json == {"device_id": "DRY"}
    assert (await alice.post(f"{PATH}/DRY/events")).json["events"] == [], (
        "it is another device of the same name"
    )
    assert (await alice.put(PATH, dry(alice, "OTHER"))).json == {"device_id": "OTHER"}
    devices = (await alice.get(f"{C}/devices")).json["devices"]
    assert {device["device_id"] for device in devices} == {alice.device_id, "OTHER"}
    refused = await alice.post(f"{PATH}/DRY/events")
    assert (refused.status, refused.errcode) == (403, "M_FORBIDDEN")


async def test_a_living_device_cannot_be_dried(homeserver):
    alice = await homeserver.register("alice")
    refused = await alice.put(PATH, dry(alice, alice.device_id))
    assert (refused.status, refused.errcode) == (400, "M_INVALID_PARAM")
    assert (await alice.get(PATH)).status == 404
    assert (await alice.get(f"{C}/account/whoami")).status == 200


@pytest.mark.parametrize(
    ("change", "errcode"),
    [
        ({"device_data": "x"}, "M_BAD_JSON"),
        ({"device_id": ""}, "M_INVALID_PARAM"),
        ({"device_id": "ANOTHER"}, "M_BAD_JSON"),
        ({"device_keys": {}}, "M_BAD_JSON"),
        ({"one_time_keys": {"x": "y"}}, "M_BAD_JSON"),
        ({"initial_device_display_name": "x" * 1000}, "M_INVALID_PARAM"),
    ],
)
async def test_what_is_not_understood_is_refused(homeserver, change, errcode):
    alice = await homeserver.register("alice")
    refused = await alice.put(PATH, dry(alice) | change)
    assert (refused.status, refused.errcode) == (400, errcode)
    body = dry(alice)
    del body["device_keys"]
    assert (await alice.put(PATH, body)).errcode == "M_MISSING_PARAM"
    assert (await alice.get(PATH)).status == 404
    assert (await alice.post(f"{PATH}/DRY/events", {"next_batch": "no token"})).errcode == "M_INVALID_PARAM"


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", PATH), ("GET", PATH), ("DELETE", PATH), ("POST", f"{PATH}/D/events")]
)
@pytest.mark.parametrize(("token", "errcode"), [(None, "M_MISSING_TOKEN"), ("wrong", "M_UNKNOWN_TOKEN")])
async def test_without_a_token(homeserver, method, path, token, errcode):
    answer = await homeserver.client.as_user(token).request(method, path, json={})
    assert (answer.status, answer.errcode) == (401, errcode)
