"""Device keys, one-time keys and device lists: published, queried, claimed."""

import asyncio

import pytest

from .olm import Key, device_keys, one_time_key

C = "/_matrix/client/v3"
UPLOAD = f"{C}/keys/upload"
QUERY = f"{C}/keys/query"
CLAIM = f"{C}/keys/claim"
CHANGES = f"{C}/keys/changes"


async def publish(user, one_time_keys=0, first=0):
    keys = {
        f"signed_curve25519:{number:05}": one_time_key(user, number + 1)
        for number in range(first, first + one_time_keys)
    }
    answer = await user.post(UPLOAD, {"device_keys": device_keys(user), "one_time_keys": keys})
    assert answer.status == 200, answer.body
    return answer.json["one_time_key_counts"]


async def query(user, *others):
    answer = await user.post(QUERY, {"device_keys": {other: [] for other in others}})
    assert answer.status == 200, answer.body
    return answer.json


async def token(user):
    return (await user.get(f"{C}/sync", timeout=0, set_presence="offline")).json["next_batch"]


async def test_what_a_device_publishes_others_get_as_it_was(homeserver):
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    assert await publish(alice, 3) == {"signed_curve25519": 3}
    phone = await homeserver.login("alice", device_id="PHONE", initial_device_display_name="Alice's phone")
    await publish(phone)
    found = (await query(bob, alice.user_id))["device_keys"][alice.user_id]
    assert found.keys() == {alice.device_id, "PHONE"}
    assert found["PHONE"] == device_keys(phone) | {"unsigned": {"device_display_name": "Alice's phone"}}
    assert found[alice.device_id] == device_keys(alice) | {"unsigned": {}}


async def test_a_query_may_name_devices(homeserver):
    alice = await homeserver.register("alice")
    await publish(alice)
    await publish(await homeserver.login("alice", device_id="PHONE"))
    answer = await alice.post(QUERY, {"device_keys": {alice.user_id: ["PHONE", "GONE"]}})
    assert answer.json["device_keys"][alice.user_id].keys() == {"PHONE"}


async def test_who_has_no_keys_and_who_does_not_exist_look_the_same(homeserver):
    alice = await homeserver.register("alice")
    found = await query(alice, alice.user_id, "@nobody:test")
    assert found["device_keys"] == {alice.user_id: {}, "@nobody:test": {}}
    assert found["failures"] == {}


async def test_a_server_that_does_not_answer_is_a_failure(homeserver):
    alice = await homeserver.register("alice")
    found = await query(alice, alice.user_id, "@bob:elsewhere.invalid")
    assert found["device_keys"].keys() == {alice.user_id}
    assert found["failures"].keys() == {"elsewhere.invalid"}
    answer = await alice.post(
        CLAIM, {"one_time_keys": {"@bob:elsewhere.invalid": {"D": "signed_curve25519"}}}
    )
    assert answer.json["one_time_keys"] == {}
    assert answer.json["failures"].keys() == {"elsewhere.invalid"}


async def test_uploading_the_same_again_changes_nothing_and_another_key_of_that_name_is_refused(homeserver):
    alice = await homeserver.register("alice")
    assert await publish(alice, 3) == {"signed_curve25519": 3}
    assert await publish(alice, 3, first=1) == {"signed_curve25519": 4}
    assert (await alice.post(UPLOAD, {})).json == {"one_time_key_counts": {"signed_curve25519": 4}}
    other = {"signed_curve25519:00001": one_time_key(alice, 77)}
    refused = await alice.post(UPLOAD, {"one_time_keys": other})
    assert (refused.status, refused.errcode) == (400, "M_INVALID_PARAM")
    assert (await alice.post(UPLOAD, {})).json == {"one_time_key_counts": {"signed_curve25519": 4}}


@pytest.mark.parametrize(
    ("change", "errcode"),
    [
        ({"user_id": "@bob:test"}, "M_BAD_JSON"),
        ({"device_id": "OTHER"}, "M_BAD_JSON"),
        ({"algorithms": None}, "M_BAD_JSON"),
        ({"keys": {"ed25519:D": 1}}, "M_BAD_JSON"),
        ({"signatures": {"@alice:test": {"ed25519:D": "AAAA"}}}, "M_INVALID_SIGNATURE"),
        ({"algorithms": ["another one, not signed"]}, "M_INVALID_SIGNATURE"),
        ({"keys": {"ed25519:D": "not base64!"}}, "M_INVALID_SIGNATURE"),
    ],
)
async def test_device_keys_that_are_not_right_are_refused(homeserver, change, errcode):
    await homeserver.register("alice")
    alice = await homeserver.login("alice", device_id="D")
    right = device_keys(alice)
    assert (await alice.post(UPLOAD, {"device_keys": right | change})).errcode == errcode
    del right["algorithms"]
    refused = await alice.post(UPLOAD, {"device_keys": right})
    assert (refused.status, refused.errcode) == (400, "M_BAD_JSON")
    assert (await query(alice, alice.user_id))["device_keys"] == {alice.user_id: {}}


@pytest.mark.parametrize(
    "keys",
    [
        {"signed_curve25519": {"key": "x", "signatures": {}}},
        {"signed_curve25519:": {"key": "x", "signatures": {}}},
        {":1": "x"},
        {"signed_curve25519:1": "a string"},
        {"signed_curve25519:1": {"key": "x"}},
        {"signed_curve25519:1": {"key": 1, "signatures": {}}},
        {"curve25519:1": 1},
        {"curve25519:" + "x" * 300: "y"},
        {"curve25519:\0": "y"},
        {f"curve25519:{number}": "y" for number in range(1001)},
        {f"curve25519:{number}": "y" * 9 for number in range(3)} | {"x": []},
    ],
)
async def test_one_time_keys_that_are_not_right_are_refused(homeserver, keys):
    alice = await homeserver.register("alice")
    refused = await alice.post(UPLOAD, {"one_time_keys": keys})
    assert (refused.status, refused.errcode) in ((400, "M_BAD_JSON"), (400, "M_INVALID_PARAM"))
    assert (await alice.post(UPLOAD, {})).json == {"one_time_key_counts": {"signed_curve25519": 0}}


async def test_claiming_takes_keys_in_their_order_and_then_the_fallback(homeserver):
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    await publish(alice, 1, first=7)
    await publish(alice, 1, first=3)
    fallback = one_time_key(alice, 99, fallback=True)
    await alice.post(UPLOAD, {"fallback_keys": {"signed_curve25519:F": fallback}})
    wanted = {
        "one_time_keys": {alice.user_id: {alice.device_id: "signed_curve25519", "GONE": "signed_curve25519"}}
    }
    claimed = [(await bob.post(CLAIM, wanted)).json["one_time_keys"] for _ in range(4)]
    assert claimed == [
        {alice.user_id: {alice.device_id: {name: key}}}
        for name, key in (
            ("signed_curve25519:00007", one_time_key(alice, 8)),
            ("signed_curve25519:00003", one_time_key(alice, 4)),
            ("signed_curve25519:F", fallback),
            ("signed_curve25519:F", fallback),
        )
    ]
    nothing = {
        alice.user_id: {alice.device_id: "other", "\0": "x"},
        "@nobody:test": {"D": "signed_curve25519"},
    }
    assert (await bob.post(CLAIM, {"one_time_keys": nothing})).json == {"one_time_keys": {}, "failures": {}}


async def test_two_hundred_who_claim_at_once_never_get_the_same_key(homeserver):
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    await publish(alice, 150)
    wanted = {"one_time_keys": {alice.user_id: {alice.device_id: "signed_curve25519"}}}
    answers = await asyncio.gather(*(bob.post(CLAIM, wanted) for _ in range(200)))
    got = [
        name
        for answer in answers
        for devices in answer.json["one_time_keys"].values()
        for name in devices[alice.device_id]
    ]
    assert len(got) == len(set(got)) == 150


async def test_sync_tells_what_is_left_of_the_keys(homeserver):
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    await publish(alice, 2)
    await alice.post(
        UPLOAD, {"fallback_keys": {"signed_curve25519:F": one_time_key(alice, 9, fallback=True)}}
    )
    # Without presence, which would be news, too.
    first = (await alice.get(f"{C}/sync", timeout=0, set_presence="offline")).json
    assert first["device_one_time_keys_count"] == {"signed_curve25519": 2}
    assert first["device_unused_fallback_key_types"] == ["signed_curve25519"]
    wanted = {"one_time_keys": {alice.user_id: {alice.device_id: "signed_curve25519"}}}
    asked = {"since": first["next_batch"], "timeout": 20_000, "set_presence": "offline"}
    waiting = asyncio.create_task(alice.get(f"{C}/sync", **asked))
    await bob.post(CLAIM, wanted)
    told = (await waiting).json
    assert told["device_one_time_keys_count"] == {"signed_curve25519": 1}
    for _ in range(2):
        await bob.post(CLAIM, wanted)
    told = (await alice.get(f"{C}/sync", since=told["next_batch"], timeout=0, set_presence="offline")).json
    assert told["device_one_time_keys_count"].get("signed_curve25519", 0) == 0
    assert told["device_unused_fallback_key_types"] == []


async def make_room(creator, *others):
    room_id = (await creator.post(f"{C}/createRoom", {"preset": "public_chat"})).json["room_id"]
    for other in others:
        assert (await other.post(f"{C}/rooms/{room_id}/join", {})).status == 200
    return room_id


async def changes(user, since):
    answer = await user.get(CHANGES, **{"from": since, "to": await token(user)})
    assert answer.status == 200, answer.body
    in_sync = (await user.get(f"{C}/sync", since=since, timeout=0, set_presence="offline")).json.get(
        "device_lists", {}
    )
    found = {name: set(users) for name, users in answer.json.items()}
    assert {name: set(in_sync.get(name, ())) for name in found} == found, "sync and /keys/changes agree"
    return found["changed"], found["left"]


async def test_who_shares_a_room_hears_of_new_keys_and_others_do_not(homeserver):
    alice, bob, eve = [await homeserver.register(name) for name in ("alice", "bob", "eve")]
    await make_room(alice, bob)
    await publish(bob)
    since = {user: await token(user) for user in (alice, bob, eve)}
    assert await changes(alice, since[alice]) == (set(), set())
    await publish(await homeserver.login("bob", device_id="PHONE"))
    assert await changes(alice, since[alice]) == ({bob.user_id}, set())
    assert await changes(bob, since[bob]) == ({bob.user_id}, set()), "one's own other devices, too"
    assert await changes(eve, since[eve]) == (set(), set())
    now = await token(alice)
    await publish(bob)
    assert await changes(alice, now) == (set(), set()), "the same keys again are no change"
    assert (await bob.put(f"{C}/devices/PHONE", {"display_name": "new"})).status == 200
    assert await changes(alice, now) == ({bob.user_id}, set())


async def test_coming_and_going_is_told_to_both_sides(homeserver):
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    room_id = await make_room(alice)
    since = {user: await token(user) for user in (alice, bob)}
    assert (await bob.post(f"{C}/rooms/{room_id}/join", {})).status == 200
    assert await changes(alice, since[alice]) == ({bob.user_id}, set())
    changed, left = await changes(bob, since[bob])
    assert (changed - {bob.user_id}, left) == ({alice.user_id}, set())
    since = {user: await token(user) for user in (alice, bob)}
    await bob.post(f"{C}/rooms/{room_id}/leave", {})
    assert await changes(alice, since[alice]) == (set(), {bob.user_id})
    assert await changes(bob, since[bob]) == (set(), {alice.user_id})


async def test_who_still_shares_another_room_is_not_left(homeserver):
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    await make_room(alice, bob)
    second = await make_room(alice, bob)
    since = {user: await token(user) for user in (alice, bob)}
    await bob.post(f"{C}/rooms/{second}/leave", {})
    assert await changes(alice, since[alice]) == (set(), set())
    assert await changes(bob, since[bob]) == (set(), set())


async def test_changes_takes_tokens_of_sync(homeserver):
    alice = await homeserver.register("alice")
    now = await token(alice)
    assert (await alice.get(CHANGES, to=now)).errcode == "M_MISSING_PARAM"
    assert (await alice.get(CHANGES, **{"from": now})).errcode == "M_MISSING_PARAM"
    assert (await alice.get(CHANGES, **{"from": "x", "to": now})).errcode == "M_INVALID_PARAM"
    assert (await alice.get(CHANGES, **{"from": now, "to": "s0"})).errcode == "M_INVALID_PARAM"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (QUERY, {}),
        (QUERY, {"device_keys": {"@a:test": "D"}}),
        (QUERY, {"device_keys": []}),
        (QUERY, {"device_keys": {}, "timeout": -1}),
        (QUERY, {"device_keys": {"no user": []}}),
        (CLAIM, {}),
        (CLAIM, {"one_time_keys": {"@a:test": ["D"]}}),
        (CLAIM, {"one_time_keys": {"@a:test": {"D": 1}}}),
        (UPLOAD, {"device_keys": []}),
        (UPLOAD, {"one_time_keys": {"a:b": 1}}),
        (UPLOAD, []),
    ],
)
async def test_what_is_not_understood_is_refused(homeserver, path, body):
    alice = await homeserver.register("alice")
    refused = await alice.post(path, body)
    assert refused.status == 400
    assert refused.errcode in ("M_BAD_JSON", "M_MISSING_PARAM", "M_INVALID_PARAM", "M_NOT_JSON")


@pytest.mark.parametrize(
    ("method", "path"), [("POST", UPLOAD), ("POST", QUERY), ("POST", CLAIM), ("GET", CHANGES)]
)
@pytest.mark.parametrize(("token", "errcode"), [(None, "M_MISSING_TOKEN"), ("wrong", "M_UNKNOWN_TOKEN")])
async def test_without_a_token(homeserver, method, path, token, errcode):
    answer = await homeserver.client.as_user(token).request(method, path, json={})
    assert (answer.status, answer.errcode) == (401, errcode)


async def test_a_deleted_device_is_gone_for_all(homeserver):
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    phone = await homeserver.login("alice", device_id="PHONE")
    await publish(phone, 1)
    assert (await phone.post(f"{C}/logout", {})).status == 200
    assert (await query(bob, alice.user_id))["device_keys"] == {alice.user_id: {}}
    wanted = {"one_time_keys": {alice.user_id: {"PHONE": "signed_curve25519"}}}
    assert (await bob.post(CLAIM, wanted)).json["one_time_keys"] == {}


def test_keys_of_tests_are_different():
    assert len({Key(seed).public for seed in range(50)}) == 50
