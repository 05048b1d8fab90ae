"""Backups of room keys: versions, merging, deleting, and what another device sees of it."""

import pytest

C = "/_matrix/client/v3"
VERSION = f"{C}/room_keys/version"
KEYS = f"{C}/room_keys/keys"
ALGORITHM = "m.megolm_backup.v1.curve25519-aes-sha2"
ROOM, OTHER = "!one:test", "!two:test"


def key(index=0, forwarded=0, *, verified=False, data=None):
    return {
        "first_message_index": index,
        "forwarded_count": forwarded,
        "is_verified": verified,
        "session_data": data or {"ciphertext": "x"},
    }


async def begin(user, **auth_data):
    answer = await user.post(VERSION, {"algorithm": ALGORITHM, "auth_data": auth_data or {"public_key": "p"}})
    assert answer.status == 200, answer.body
    return answer.json["version"]


async def test_a_backup_is_found_by_all_devices_of_its_user_alone(homeserver, alice):
    assert (await alice.get(VERSION)).errcode == "M_NOT_FOUND"
    version = await begin(alice, public_key="a")
    phone, bob = await homeserver.login("alice"), await homeserver.register("bob")
    expected = {"algorithm": ALGORITHM, "auth_data": {"public_key": "a"}, "count": 0, "version": version}
    for answer in (await phone.get(VERSION), await phone.get(f"{VERSION}/{version}")):
        assert answer.json.pop("etag").isdigit()
        assert {name: value for name, value in answer.json.items() if name != "etag"} == expected
    assert (await bob.get(VERSION)).errcode == "M_NOT_FOUND"
    assert (await bob.get(f"{VERSION}/{version}")).errcode == "M_NOT_FOUND"


async def test_auth_data_can_be_changed_and_nothing_else(alice):
    version = await begin(alice, public_key="a")
    body = {"algorithm": ALGORITHM, "auth_data": {"public_key": "a", "signatures": {}}, "version": version}
    assert (await alice.put(f"{VERSION}/{version}", body)).json == {}
    assert (await alice.get(VERSION)).json["auth_data"] == body["auth_data"]
    del body["version"]
    assert (await alice.put(f"{VERSION}/{version}", body)).status == 200
    for change in ({"algorithm": "other"}, {"version": "77"}):
        refused = await alice.put(f"{VERSION}/{version}", body | change)
        assert (refused.status, refused.errcode) == (400, "M_INVALID_PARAM")
    assert (await alice.put(f"{VERSION}/99", body)).errcode == "M_NOT_FOUND"


async def test_a_deleted_version_is_gone_and_the_one_before_is_the_current_one(alice):
    first, second = await begin(alice), await begin(alice)
    await alice.put(f"{KEYS}/{ROOM}/s", key(), version=second)
    for _ in range(2):
        assert (await alice.delete(f"{VERSION}/{second}")).json == {}
    assert (await alice.delete(f"{VERSION}/99")).errcode == "M_NOT_FOUND"
    assert (await alice.get(VERSION)).json["version"] == first
    for answer in (
        await alice.get(f"{VERSION}/{second}"),
        await alice.get(KEYS, version=second),
        await alice.put(f"{KEYS}/{ROOM}/s", key(), version=second),
    ):
        assert (answer.status, answer.errcode) == (404, "M_NOT_FOUND")
    assert await begin(alice) not in (first, second)


async def test_keys_are_stored_and_read_by_session_by_room_and_together(alice):
    version = await begin(alice)
    put = await alice.put(f"{KEYS}/{ROOM}/a", key(1), version=version)
    assert put.json["count"] == 1
    etags = [put.json["etag"]]
    put = await alice.put(f"{KEYS}/{ROOM}", {"sessions": {"b": key(2), "c/d": key(3)}}, version=version)
    assert put.json["count"] == 3
    etags.append(put.json["etag"])
    rooms = {"rooms": {OTHER: {"sessions": {"a": key(4)}}, "!empty:x": {"sessions": {}}}}
    put = await alice.put(KEYS, rooms, version=version)
    assert put.json["count"] == 4
    etags.append(put.json["etag"])
    assert len(set(etags)) == 3
    assert (await alice.get(f"{KEYS}/{ROOM}/c%2Fd", version=version)).json == key(3)
    of_room = {"sessions": {"a": key(1), "b": key(2), "c/d": key(3)}}
    assert (await alice.get(f"{KEYS}/{ROOM}", version=version)).json == of_room
    answer = await alice.get(KEYS, version=version)
    assert answer.json == {"rooms": {ROOM: of_room, OTHER: {"sessions": {"a": key(4)}}}}
    assert answer.headers["content-type"] == "application/json"
    info = (await alice.get(VERSION)).json
    assert (info["count"], info["etag"]) == (4, etags[-1])


async def test_what_is_empty_is_an_empty_object(alice):
    version = await begin(alice)
    assert (await alice.get(KEYS, version=version)).json == {"rooms": {}}
    assert (await alice.get(f"{KEYS}/{ROOM}", version=version)).json == {"sessions": {}}
    missing = await alice.get(f"{KEYS}/{ROOM}/s", version=version)
    assert (missing.status, missing.errcode) == (404, "M_NOT_FOUND")


async def test_a_large_backup_comes_whole(alice):
    version = await begin(alice)
    rooms = {
        f"!{room}:x": {"sessions": {f"s{number}": key(number) for number in range(400)}} for room in range(3)
    }
    assert (await alice.put(KEYS, {"rooms": rooms}, version=version)).json["count"] == 1200
    assert (await alice.get(KEYS, version=version)).json == {"rooms": rooms}
    more = {f"s{number}": key(number) for number in range(1100)}
    await alice.put(f"{KEYS}/!0:x", {"sessions": more}, version=version)
    assert (await alice.get(f"{KEYS}/!0:x", version=version)).json == {"sessions": more}


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (key(10, 5, verified=True), key(0, 0)),
        (key(9, 5), key(10, 0)),
        (key(10, 4), key(10, 5)),
        (key(10, 5), key(10, 5, data={"ciphertext": "another"})),
    ],
)
async def test_the_better_key_is_kept(alice, better, worse):
    version = await begin(alice)
    path = f"{KEYS}/{ROOM}/s"
    first = await alice.put(path, better, version=version)
    assert (await alice.put(path, worse, version=version)).json == first.json, "nothing changed"
    assert (await alice.get(path, version=version)).json == better
    if worse["session_data"] == better["session_data"]:
        await alice.delete(path, version=version)
        await alice.put(path, worse, version=version)
        last = await alice.put(path, better, version=version)
        assert last.json["count"] == 1
        assert last.json["etag"] != first.json["etag"]
        assert (await alice.get(path, version=version)).json == better


async def test_keys_go_into_the_current_version_only(alice):
    old, new = await begin(alice), await begin(alice)
    bodies = {
        f"{KEYS}/{ROOM}/s": key(),
        f"{KEYS}/{ROOM}": {"sessions": {"s": key()}},
        KEYS: {"rooms": {ROOM: {"sessions": {"s": key()}}}},
    }
    for path, body in bodies.items():
        refused = await alice.put(path, body, version=old)
        assert (refused.status, refused.errcode) == (403, "M_WRONG_ROOM_KEYS_VERSION")
        assert refused.json["current_version"] == new
        for unknown in ("99", "x", "-1", "1e3", "9" * 30):
            assert (await alice.put(path, body, version=unknown)).errcode == "M_NOT_FOUND"
        assert (await alice.put(path, body)).errcode == "M_MISSING_PARAM"
    assert (await alice.get(KEYS, version=old)).json == {"rooms": {}}


async def test_keys_are_deleted_by_session_by_room_and_together(alice):
    version = await begin(alice)
    rooms = {room: {"sessions": {"s": key(), "t": key()}} for room in (ROOM, OTHER)}
    await alice.put(KEYS, {"rooms": rooms}, version=version)
    etags = set()
    for path, count in ((f"{KEYS}/{ROOM}/s", 3), (f"{KEYS}/{OTHER}", 1), (KEYS, 0)):
        answer = await alice.delete(path, version=version)
        assert answer.json["count"] == count
        etags.add(answer.json["etag"])
        assert (await alice.delete(path, version=version)).json == answer.json
        assert (await alice.delete(path, version="99")).errcode == "M_NOT_FOUND"
        assert (await alice.delete(path)).errcode == "M_MISSING_PARAM"
        assert (await alice.get(path)).errcode == "M_MISSING_PARAM"
        assert (await alice.get(path, version="99")).errcode == "M_NOT_FOUND"
    assert len(etags) == 3


@pytest.mark.parametrize(
    ("method", "path", "body", "errcode"),
    [
        ("POST", VERSION, {"algorithm": ALGORITHM}, "M_MISSING_PARAM"),
        ("POST", VERSION, {"algorithm": 1, "auth_data": {}}, "M_BAD_JSON"),
        ("POST", VERSION, {"algorithm": "", "auth_data": {}}, "M_INVALID_PARAM"),
        ("PUT", f"{KEYS}/{ROOM}/s?version=1", {}, "M_MISSING_PARAM"),
        ("PUT", f"{KEYS}/{ROOM}/s?version=1", key() | {"first_message_index": -1}, "M_BAD_JSON"),
        ("PUT", f"{KEYS}/{ROOM}/s?version=1", key() | {"forwarded_count": 2**60}, "M_BAD_JSON"),
        ("PUT", f"{KEYS}/{ROOM}/s?version=1", key() | {"is_verified": "yes"}, "M_BAD_JSON"),
        ("PUT", f"{KEYS}/{ROOM}/s?version=1", key() | {"session_data": "x"}, "M_BAD_JSON"),
        ("PUT", f"{KEYS}/{ROOM}?version=1", {"sessions": {"\0": key()}}, "M_INVALID_PARAM"),
        ("PUT", f"{KEYS}/{ROOM}?version=1", {"sessions": {"x" * 300: key()}}, "M_INVALID_PARAM"),
        ("PUT", f"{KEYS}?version=1", {"rooms": {ROOM: {}}}, "M_MISSING_PARAM"),
        ("PUT", f"{KEYS}?version=1", {"rooms": []}, "M_BAD_JSON"),
    ],
)
async def test_what_is_not_understood_is_refused(alice, method, path, body, errcode):
    await begin(alice)
    refused = await alice.request(method, path, json=body)
    assert (refused.status, refused.errcode) == (400, errcode)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", VERSION),
        *((method, VERSION + "/1") for method in ("GET", "PUT", "DELETE")),
        ("GET", VERSION),
        *((method, KEYS + rest) for rest in ("", "/!r:x", "/!r:x/s") for method in ("GET", "PUT", "DELETE")),
    ],
)
@pytest.mark.parametrize(("token", "errcode"), [(None, "M_MISSING_TOKEN"), ("wrong", "M_UNKNOWN_TOKEN")])
async def test_without_a_token(homeserver, method, path, token, errcode):
    answer = await homeserver.client.as_user(token).request(method, path, json={})
    assert (answer.status, answer.errcode) == (401, errcode)
