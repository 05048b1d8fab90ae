"""What clients keep here: account data, tags and filters, each user's own alone."""

import pytest

from ranvier.store.tables.account_data import list_ignored
from ranvier.store.tables.accounts import find_account_by_id
from ranvier.store.tables.interned import list_user_ids

from .client import segment

C = "/_matrix/client/v3"
ALICE = f"{C}/user/@alice:test"


@pytest.fixture
async def room_id(alice):
    return (await alice.post(f"{C}/createRoom", {})).json["room_id"]


async def test_account_data_is_kept_for_the_user_and_for_rooms(alice, room_id):
    in_room = f"{ALICE}/rooms/{segment(room_id)}/account_data/org.example"
    everywhere = f"{ALICE}/account_data/org.example"
    for path in (everywhere, in_room):
        assert (await alice.get(path)).errcode == "M_NOT_FOUND"
        assert (await alice.put(path, {"path": path, "float": 0.5})).json == {}
        assert (await alice.put(path, {"path": path})).status == 200
    for path in (everywhere, in_room):
        assert (await alice.get(path)).json == {"path": path}
        gone = path.replace(C, "/_matrix/client/unstable/org.matrix.msc3391")
        assert (await alice.delete(gone)).status == 200
        assert (await alice.get(path)).errcode == "M_NOT_FOUND"


@pytest.mark.parametrize("path", ["account_data/x", "rooms/!r:test/account_data/x", "rooms/!r:test/tags"])
async def test_others_data_is_out_of_reach(homeserver, alice, bob, path):
    for client, errcode in ((bob, "M_FORBIDDEN"), (homeserver.client, "M_MISSING_TOKEN")):
        assert (await client.get(f"{ALICE}/{path}")).errcode == errcode
        wanted = f"{ALICE}/{path}" + ("/u.work" if path.endswith("tags") else "")
        assert (await client.put(wanted, {})).errcode == errcode


@pytest.mark.parametrize(
    ("path", "body", "status", "errcode"),
    [
        ("account_data/m.push_rules", b"{}", 405, "M_BAD_JSON"),
        ("account_data/m.fully_read", b"{}", 405, "M_BAD_JSON"),
        ("rooms/ROOM/account_data/m.fully_read", b"{}", 405, "M_BAD_JSON"),
        ("account_data/x", b"[]", 400, "M_BAD_JSON"),
        ("account_data/x", b"", 400, "M_NOT_JSON"),
        ("account_data/" + "x" * 256, b"{}", 400, "M_INVALID_PARAM"),
        ("rooms/notaroom/account_data/x", b"{}", 400, "M_INVALID_PARAM"),
        ("rooms/!unknown:test/account_data/x", b"{}", 404, "M_NOT_FOUND"),
        ("rooms/!unknown:test/tags/u.work", b"{}", 404, "M_NOT_FOUND"),
        ("rooms/ROOM/tags/" + "x" * 256, b"{}", 400, "M_INVALID_PARAM"),
        ("rooms/ROOM/tags/u.work", b'{"order":"first"}', 400, "M_BAD_JSON"),
        ("rooms/ROOM/tags/u.work", b'{"order":true}', 400, "M_BAD_JSON"),
    ],
)
async def test_what_cannot_be_kept(alice, room_id, path, body, status, errcode):
    path = f"{ALICE}/{path.replace('ROOM', segment(room_id))}"
    answer = await alice.request("PUT", path, body=body)
    assert (answer.status, answer.errcode) == (status, errcode)


async def test_a_room_of_others_is_like_none(alice, bob, room_id):
    path = f"{C}/user/@bob:test/rooms/{segment(room_id)}/account_data/x"
    known, unknown = await bob.put(path, {}), await bob.put(path.replace(segment(room_id), "!no:test"), {})
    assert (known.status, known.body) == (unknown.status, unknown.body) == (404, known.body)
    assert (await bob.get(path)).errcode == "M_NOT_FOUND"


async def test_tags(alice, room_id):
    tags = f"{ALICE}/rooms/{segment(room_id)}/tags"
    assert (await alice.get(tags)).json == {"tags": {}}
    assert (await alice.put(f"{tags}/m.favourite", {"order": 0.25, "more": 1})).json == {}
    assert (await alice.put(f"{tags}/{segment('u.Büro/Keller')}", {})).status == 200
    expected = {"m.favourite": {"order": 0.25, "more": 1}, "u.Büro/Keller": {}}
    assert (await alice.get(tags)).json == {"tags": expected}
    assert (await alice.get(tags.replace("/tags", "/account_data/m.tag"))).json == {"tags": expected}
    for _ in range(2):
        assert (await alice.delete(f"{tags}/m.favourite")).json == {}
    assert (await alice.get(tags)).json == {"tags": {"u.Büro/Keller": {}}}


async def test_tags_that_a_client_broke_are_none(alice, room_id):
    tags = f"{ALICE}/rooms/{segment(room_id)}/tags"
    await alice.put(tags.replace("/tags", "/account_data/m.tag"), {"tags": [1]})
    assert (await alice.get(tags)).json == {"tags": {}}
    assert (await alice.put(f"{tags}/u.x", {})).status == 200
    assert (await alice.get(tags)).json == {"tags": {"u.x": {}}}


async def test_whom_a_user_ignores_is_kept_as_the_list_says(homeserver, alice):
    path = f"{ALICE}/account_data/m.ignored_user_list"
    db, interner = homeserver.foundation.ports.db, homeserver.foundation.interner

    def read(txn):
        nid = find_account_by_id(txn, "@alice:test").user_nid
        return set(list_user_ids(txn, interner, list_ignored(txn, nid)).values())

    for ignored, expected in (
        ({"@bob:test": {}, "@eve:elsewhere": {}, "nonsense": {}}, {"@bob:test", "@eve:elsewhere"}),
        ({"@bob:test": {}}, {"@bob:test"}),
        ([], set()),
    ):
        assert (await alice.put(path, {"ignored_users": ignored})).status == 200
        assert await db.read(read) == expected


async def test_a_filter_keeps_its_id(alice, bob):
    path = f"{ALICE}/filter"
    wanted = {"room": {"timeline": {"limit": 5, "not_senders": ["@spam:test"]}}, "custom": 1}
    filter_id = (await alice.post(path, wanted)).json["filter_id"]
    assert (await alice.post(path, wanted)).json["filter_id"] == filter_id
    assert (await alice.post(path, {})).json["filter_id"] != filter_id
    assert (await alice.get(f"{path}/{filter_id}")).json == wanted
    for unknown in ("999", "x", "-1", "9" * 30, "\u0661"):
        assert (await alice.get(f"{path}/{segment(unknown)}")).errcode == "M_NOT_FOUND"
    assert (await bob.get(f"{path}/{filter_id}")).errcode == "M_FORBIDDEN"
    assert (await bob.post(path, {})).errcode == "M_FORBIDDEN"
    assert (await alice.as_user(None).post(path, {})).errcode == "M_MISSING_TOKEN"


@pytest.mark.parametrize(
    "wanted", [{"room": 1}, {"room": {"timeline": {"limit": -1}}}, {"room": {"rooms": ["x"]}}]
)
async def test_what_is_no_filter(alice, wanted):
    answer = await alice.post(f"{ALICE}/filter", wanted)
    assert (answer.status, answer.errcode) == (400, "M_BAD_JSON")


async def test_push_rules_are_read_like_other_account_data(homeserver):
    alice = await homeserver.register("alice")
    answer = await alice.get(f"/_matrix/client/v3/user/{segment(alice.user_id)}/account_data/m.push_rules")
    assert answer.status == 200
    told = (await alice.get("/_matrix/client/v3/pushrules/")).json
    assert answer.json == told
