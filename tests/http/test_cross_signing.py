"""Cross-signing keys and signatures: who may upload what, and who gets to see it."""

import pytest

from .administrators import V1, register_admin
from .homeserver import PASSWORD
from .olm import Key, cross_signing_key, device_key, device_keys

C = "/_matrix/client/v3"
UPLOAD = f"{C}/keys/device_signing/upload"
SIGN = f"{C}/keys/signatures/upload"
M, S, U = Key(11), Key(12), Key(13)


def keys_of(user, master=M, self_signing=S, user_signing=U):
    return {
        "master_key": cross_signing_key(user, "master", master),
        "self_signing_key": master.sign(cross_signing_key(user, "self_signing", self_signing), user.user_id),
        "user_signing_key": master.sign(cross_signing_key(user, "user_signing", user_signing), user.user_id),
    }


def password_of(user, session):
    identifier = {"type": "m.id.user", "user": user.user_id}
    return {"type": "m.login.password", "identifier": identifier, "password": PASSWORD, "session": session}


async def query(user, *others):
    return (await user.post(f"{C}/keys/query", {"device_keys": {other: [] for other in others}})).json


async def with_keys(homeserver, name, *keys):
    """A user with device keys and cross-signing keys."""
    user = await homeserver.register(name)
    assert (await user.post(f"{C}/keys/upload", {"device_keys": device_keys(user)})).status == 200
    answer = await user.post(UPLOAD, keys_of(user, *keys))
    assert answer.status == 200, answer.body
    return user


async def token(user):
    return (await user.get(f"{C}/sync", timeout=0)).json["next_batch"]


async def test_the_first_upload_needs_no_password_and_all_see_all_but_the_user_signing_key(homeserver):
    alice, bob = await with_keys(homeserver, "alice"), await homeserver.register("bob")
    sent = keys_of(alice)
    own, seen = await query(alice, alice.user_id), await query(bob, alice.user_id)
    for found in (own, seen):
        assert found["master_keys"] == {alice.user_id: sent["master_key"]}
        assert found["self_signing_keys"] == {alice.user_id: sent["self_signing_key"]}
    assert own["user_signing_keys"] == {alice.user_id: sent["user_signing_key"]}
    assert seen["user_signing_keys"] == {}


async def test_the_same_keys_again_need_no_password_but_others_do(homeserver):
    alice = await with_keys(homeserver, "alice")
    assert (await alice.post(UPLOAD, keys_of(alice))).status == 200
    other = keys_of(alice, Key(21), Key(22), Key(23))
    asked = await alice.post(UPLOAD, other)
    assert asked.status == 401
    assert asked.json["flows"] == [{"stages": ["m.login.password"]}]
    assert (await query(alice, alice.user_id))["master_keys"] == {alice.user_id: keys_of(alice)["master_key"]}
    proof = password_of(alice, asked.json["session"])
    wrong = await alice.post(UPLOAD, other | {"auth": proof | {"password": "wrong"}})
    assert (wrong.status, wrong.errcode) == (401, "M_FORBIDDEN")
    assert (await alice.post(UPLOAD, other | {"auth": proof})).status == 200
    assert (await query(alice, alice.user_id))["master_keys"] == {alice.user_id: other["master_key"]}


async def test_an_administrator_lets_keys_be_replaced_once_without_a_password(homeserver):
    admin, alice = await register_admin(homeserver), await with_keys(homeserver, "alice")
    path = f"{V1}/users/{alice.user_id}/_allow_cross_signing_replacement_without_uia"
    other, third = (keys_of(alice, *(Key(number + n) for n in range(3))) for number in (21, 31))
    until_ms = (await admin.post(path, {})).json["updatable_without_uia_before_ms"]
    assert 0 < until_ms - homeserver.clock.now_ms() <= 600_000
    assert (
        await alice.post(UPLOAD, keys_of(alice))
    ).status == 200  # the same ones again: nothing is replaced
    assert (await alice.post(UPLOAD, other)).status == 200
    assert (await query(alice, alice.user_id))["master_keys"] == {alice.user_id: other["master_key"]}
    assert (await alice.post(UPLOAD, third)).status == 401
    await admin.post(path, {})
    homeserver.clock.ahead_ms = 600_001
    assert (await alice.post(UPLOAD, third)).status == 401
    bob = await homeserver.register("bob")
    refused = await admin.post(path.replace(alice.user_id, bob.user_id), {})
    assert (refused.status, refused.errcode) == (404, "M_NOT_FOUND")


async def test_one_new_key_is_signed_by_the_master_that_is_there(homeserver):
    alice = await with_keys(homeserver, "alice")
    new = {"self_signing_key": M.sign(cross_signing_key(alice, "self_signing", Key(22)), alice.user_id)}
    session = (await alice.post(UPLOAD, new)).json["session"]
    assert (await alice.post(UPLOAD, new | {"auth": password_of(alice, session)})).status == 200
    found = await query(alice, alice.user_id)
    assert found["self_signing_keys"] == {alice.user_id: new["self_signing_key"]}
    assert found["master_keys"] == {alice.user_id: keys_of(alice)["master_key"]}


def unsigned(body):
    return {name: value for name, value in body.items() if name != "signatures"}


@pytest.mark.parametrize(
    ("change", "status", "errcode"),
    [
        (lambda body, _: {"self_signing_key": unsigned(body["self_signing_key"])}, 400, "M_INVALID_SIGNATURE"),
        (
            lambda body, user: {
                "user_signing_key": Key(5).sign(unsigned(body["user_signing_key"]), user.user_id)
            },
            400,
            "M_INVALID_SIGNATURE",
        ),
        (lambda body, _: {"master_key": body["master_key"] | {"user_id": "@bob:test"}}, 400, "M_BAD_JSON"),
        (lambda body, _: {"master_key": body["self_signing_key"]}, 400, "M_BAD_JSON"),
        (lambda body, _: {"master_key": body["master_key"] | {"keys": {}}}, 400, "M_BAD_JSON"),
        (lambda body, _: {"master_key": body["master_key"] | {"keys": {"ed25519:a": "b"}}}, 400, "M_BAD_JSON"),
        (lambda body, _: {"master_key": body["master_key"] | {"keys": {"ed25519:a": "a"}}}, 400, "M_BAD_JSON"),
        (lambda body, _: {"master_key": []}, 400, "M_BAD_JSON"),
        (lambda body, user: {"master_key": device_key(user).sign(body["master_key"], user.user_id) | {"x": 1}},
         400, "M_INVALID_SIGNATURE"),
    ],
)  # fmt: skip
async def test_keys_that_are_not_right_are_refused(homeserver, change, status, errcode):
    alice = await homeserver.register("alice")
    await alice.post(f"{C}/keys/upload", {"device_keys": device_keys(alice)})
    right = keys_of(alice)
    refused = await alice.post(UPLOAD, right | change(right, alice))
    assert (refused.status, refused.errcode) == (status, errcode)
    assert (await query(alice, alice.user_id))["master_keys"] == {}
    assert (await alice.post(UPLOAD, right)).status == 200


async def test_without_a_master_key_nothing_can_be_signed(homeserver):
    alice = await homeserver.register("alice")
    keys = keys_of(alice)
    del keys["master_key"]
    for body in (keys, {}):
        refused = await alice.post(UPLOAD, body)
        assert (refused.status, refused.errcode) == (400, "M_MISSING_PARAM")


async def test_a_key_cannot_be_called_like_a_device(homeserver):
    alice = await homeserver.register("alice")
    await homeserver.login("alice", device_id=S.public)
    refused = await alice.post(UPLOAD, keys_of(alice))
    assert (refused.status, refused.errcode) == (403, "M_FORBIDDEN")


async def test_a_device_signed_by_its_user_is_seen_so_by_all(homeserver):
    alice, bob = await with_keys(homeserver, "alice"), await homeserver.register("bob")
    room_id = (await alice.post(f"{C}/createRoom", {"preset": "public_chat"})).json["room_id"]
    await bob.post(f"{C}/rooms/{room_id}/join", {})
    since = await token(bob)
    signed = S.sign(device_keys(alice), alice.user_id)
    answer = await alice.post(SIGN, {alice.user_id: {alice.device_id: signed}})
    assert answer.json == {"failures": {}}
    found = (await query(bob, alice.user_id))["device_keys"][alice.user_id][alice.device_id]
    assert found["signatures"] == signed["signatures"]
    told = (await bob.get(f"{C}/sync", since=since, timeout=0)).json
    assert told["device_lists"]["changed"] == [alice.user_id]
    # Other keys of that device are not what was signed.
    other = device_keys(alice, algorithms=["other"])
    assert (await alice.post(f"{C}/keys/upload", {"device_keys": other})).status == 200
    found = (await query(bob, alice.user_id))["device_keys"][alice.user_id][alice.device_id]
    assert found["signatures"] == other["signatures"]


async def test_a_master_key_signed_by_a_device_is_seen_so_by_all(homeserver):
    alice, bob = await with_keys(homeserver, "alice"), await homeserver.register("bob")
    signed = device_key(alice).sign(keys_of(alice)["master_key"], alice.user_id)
    assert (await alice.post(SIGN, {alice.user_id: {M.public: signed}})).json == {"failures": {}}
    assert (await query(bob, alice.user_id))["master_keys"] == {alice.user_id: signed}


async def test_whom_a_user_has_verified_is_seen_by_the_user_alone(homeserver):
    alice = await with_keys(homeserver, "alice")
    bob = await with_keys(homeserver, "bob", Key(31), Key(32), Key(33))
    phone = await homeserver.login("alice", device_id="PHONE")
    room_id = (await alice.post(f"{C}/createRoom", {"preset": "public_chat"})).json["room_id"]
    await bob.post(f"{C}/rooms/{room_id}/join", {})
    since = {user: await token(user) for user in (phone, bob)}
    master = keys_of(bob, Key(31), Key(32), Key(33))["master_key"]
    signed = U.sign(master, alice.user_id)
    assert (await alice.post(SIGN, {bob.user_id: {Key(31).public: signed}})).json == {"failures": {}}
    assert (await query(phone, bob.user_id))["master_keys"] == {bob.user_id: signed}
    assert (await query(bob, bob.user_id))["master_keys"] == {bob.user_id: master}
    told = (await phone.get(f"{C}/sync", since=since[phone], timeout=0)).json
    assert told["device_lists"]["changed"] == [bob.user_id]
    answer = await phone.get(f"{C}/keys/changes", **{"from": since[phone], "to": told["next_batch"]})
    assert answer.json["changed"] == [bob.user_id]
    assert "device_lists" not in (await bob.get(f"{C}/sync", since=since[bob], timeout=0)).json


async def test_each_wrong_signature_fails_for_itself(homeserver):
    alice = await with_keys(homeserver, "alice")
    bob = await with_keys(homeserver, "bob", Key(31), Key(32), Key(33))
    own = device_keys(alice)
    phone = await homeserver.login("alice", device_id="PHONE")
    await phone.post(f"{C}/keys/upload", {"device_keys": device_keys(phone)})
    master = keys_of(bob, Key(31), Key(32), Key(33))["master_key"]
    right = S.sign(device_keys(phone), alice.user_id)
    broken = S.sign(own, alice.user_id)
    broken["signatures"][alice.user_id][S.id] = right["signatures"][alice.user_id][S.id]
    body = {
        alice.user_id: {
            "PHONE": right,
            alice.device_id: broken,
            "GONE": S.sign(own, alice.user_id),
            S.public: M.sign(keys_of(alice)["self_signing_key"], alice.user_id),
        },
        bob.user_id: {
            Key(31).public: U.sign(master | {"usage": ["other"]}, alice.user_id),
            bob.device_id: U.sign(device_keys(bob), alice.user_id),
        },
        "@nobody:test": {"x": {}},
    }
    failures = (await alice.post(SIGN, body)).json["failures"]
    assert {
        user: {name: one["errcode"] for name, one in found.items()} for user, found in failures.items()
    } == {
        alice.user_id: {
            alice.device_id: "M_INVALID_SIGNATURE",
            "GONE": "M_NOT_FOUND",
            S.public: "M_NOT_FOUND",
        },
        bob.user_id: {Key(31).public: "M_INVALID_SIGNATURE", bob.device_id: "M_NOT_FOUND"},
        "@nobody:test": {"x": "M_NOT_FOUND"},
    }
    found = (await query(bob, alice.user_id))["device_keys"][alice.user_id]
    assert found["PHONE"]["signatures"] == right["signatures"]
    assert found[alice.device_id]["signatures"] == own["signatures"]
    # A user signs with the keys that are for it: not another's device with the self-signing key, nor unsigned.
    for document in (S.sign(master, alice.user_id), master, Key(9).sign(master, alice.user_id)):
        answer = await alice.post(SIGN, {bob.user_id: {Key(31).public: document}})
        assert answer.json["failures"][bob.user_id][Key(31).public]["errcode"] == "M_INVALID_SIGNATURE"


@pytest.mark.parametrize("body", [[], {"@a:test": []}, {"@a:test": {"D": "x"}}, {"nobody": {}}])
async def test_what_is_not_understood_is_refused(homeserver, body):
    alice = await homeserver.register("alice")
    assert (await alice.post(SIGN, body)).status == 400


@pytest.mark.parametrize("path", [UPLOAD, SIGN])
@pytest.mark.parametrize(("token", "errcode"), [(None, "M_MISSING_TOKEN"), ("wrong", "M_UNKNOWN_TOKEN")])
async def test_without_a_token(homeserver, path, token, errcode):
    answer = await homeserver.client.as_user(token).post(path, {})
    assert (answer.status, answer.errcode) == (401, errcode)
