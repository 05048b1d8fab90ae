"""Sliding sync in both forms: what a user of it would try first, and what is refused. Spec: MSC4186."""

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest

from ..sliding_client import ALL_EXTENSIONS, FINAL, FORMS, SIMPLIFIED, Form, SlidingClient
from .client import segment
from .homeserver import Homeserver, User
from .rooms import C, create, do, say, set_state

LAZY = (("m.room.create", ""), ("m.room.member", "$LAZY"), ("m.room.member", "$ME"))


def connect(user: User, form: Form, conn_id: str | None = None) -> SlidingClient:
    return SlidingClient(user, form, conn_id=conn_id, user_id=user.user_id)


async def invite_and_join(owner: User, room: str, guest: User) -> None:
    await do(owner, room, "invite", user_id=guest.user_id)
    await do(guest, room, "join")


async def test_versions_announce_it(homeserver: Homeserver) -> None:
    answer = await homeserver.client.get("/_matrix/client/versions")
    assert answer.json["unstable_features"]["org.matrix.simplified_msc3575"] is True


async def test_the_first_window_of_the_deployed_form(homeserver: Homeserver) -> None:
    alice = await homeserver.register("alice")
    rooms = [await create(alice, name=f"room {number}") for number in range(3)]
    await say(alice, rooms[0], "newest")
    body = {
        "lists": {"all": {"ranges": [[0, 1]], "required_state": [["m.room.create", ""]], "timeline_limit": 1}}
    }
    told = (await alice.post(SIMPLIFIED, body)).json
    newest = [rooms[0], rooms[2]]
    assert told["lists"]["all"] == {"count": 3, "ops": [{"op": "SYNC", "range": [0, 1], "room_ids": newest}]}
    assert list(told["rooms"]) == newest
    room = told["rooms"][rooms[0]]
    assert room["initial"] is True
    assert room["name"] == "room 0"
    assert [event["type"] for event in room["required_state"]] == ["m.room.create"]
    assert [event["content"]["body"] for event in room["timeline"]] == ["newest"]
    assert room["limited"] is True
    assert (room["joined_count"], room["invited_count"], room["num_live"]) == (1, 0, 0)
    assert (room["notification_count"], room["highlight_count"]) == (0, 0)
    assert "room_id" not in room["timeline"][0]


async def test_the_first_window_of_the_final_form(homeserver: Homeserver) -> None:
    alice = await homeserver.register("alice")
    room_id = await create(alice)
    config = {
        "required_state": {"include": [{}], "exclude": [{"type": "m.room.create"}]},
        "timeline_limit": 1,
    }
    told = (await alice.post(FINAL, {"lists": {"all": {**config, "range": [0, 9]}, "rest": config}})).json
    assert told["lists"] == {"all": {"count": 1}, "rest": {"count": 1}}
    room = told["rooms"][room_id]
    assert (room["membership"], room["lists"], room["initial"]) == ("join", ["all", "rest"], True)
    assert "notification_count" not in room
    assert {event["type"] for event in room["required_state"]} >= {"m.room.power_levels", "m.room.member"}
    assert "m.room.create" not in {event["type"] for event in room["required_state"]}
    assert "name" not in room


@pytest.mark.parametrize("form", FORMS)
async def test_a_message_arrives_at_once(homeserver: Homeserver, form: Form) -> None:
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    room_id = await create(alice)
    await invite_and_join(alice, room_id, bob)
    client = connect(alice, form)
    client.lists = {"all": client.config(5, LAZY, (0, 19))}
    await client.sync()
    assert (await client.sync())["rooms"] == {}
    waiting = asyncio.create_task(client.sync(timeout_ms=60_000))
    await asyncio.sleep(0)
    await say(bob, room_id, "hello")
    async with asyncio.timeout(40):
        told = await waiting
    room = told["rooms"][room_id]
    assert "initial" not in room
    assert room["num_live"] == 1
    assert [event["content"]["body"] for event in room["timeline"]] == ["hello"]
    if form == "simplified":
        assert room["notification_count"] == 1
        await do(alice, room_id, f"receipt/m.read.private/{segment(room['timeline'][0]['event_id'])}")
        told = await client.sync()
        assert told["rooms"][room_id]["notification_count"] == 0


@pytest.mark.parametrize("form", FORMS)
async def test_wider_ranges_bring_only_what_was_not_told(homeserver: Homeserver, form: Form) -> None:
    alice = await homeserver.register("alice")
    rooms = [await create(alice) for _ in range(3)]
    client = connect(alice, form)
    client.lists = {"all": client.config(1, (), (0, 0))}
    assert list((await client.sync())["rooms"]) == [rooms[2]]
    client.lists = {"all": client.config(1, (), (0, 99))}
    assert list((await client.sync())["rooms"]) == [rooms[1], rooms[0]]


@pytest.mark.parametrize("form", FORMS)
async def test_a_greater_timeline_limit_expands(homeserver: Homeserver, form: Form) -> None:
    alice = await homeserver.register("alice")
    room_id = await create(alice)
    for text in "abc":
        await say(alice, room_id, text)
    client = connect(alice, form)
    client.lists = {"all": client.config(1, (), (0, 9))}
    await client.sync()
    client.lists = {"all": client.config(3, (), (0, 9))}
    room = (await client.sync(timeout_ms=60_000))["rooms"][room_id]
    name = "unstable_expanded_timeline" if form == "simplified" else "expanded_timeline"
    assert room[name] is True
    assert [event["content"]["body"] for event in room["timeline"]] == ["a", "b", "c"]
    assert room["num_live"] == 0
    assert "initial" not in room
    client.lists = {"all": client.config(2, (), (0, 9))}
    await client.sync()
    client.lists = {"all": client.config(3, (), (0, 9))}
    assert (await client.sync())["rooms"] == {}, "it has these"


@pytest.mark.parametrize("form", FORMS)
async def test_more_required_state_comes_at_once(homeserver: Homeserver, form: Form) -> None:
    alice = await homeserver.register("alice")
    room_id = await create(alice, name="Tea", topic="green")
    client = connect(alice, form)
    client.lists = {"all": client.config(1, (("m.room.name", ""),), (0, 9))}
    await client.sync()
    client.lists = {"all": client.config(1, (("m.room.name", ""), ("m.room.topic", "")), (0, 9))}
    room = (await client.sync(timeout_ms=60_000))["rooms"][room_id]
    assert [event["type"] for event in room["required_state"]] == ["m.room.topic"]
    # What changes while it is not asked for is told when it is asked for again.
    client.lists = {"all": client.config(1, (("m.room.name", ""),), (0, 9))}
    await set_state(alice, room_id, "m.room.topic", {"topic": "black"})
    assert (await client.sync())["rooms"][room_id]["required_state"] == []
    client.lists = {"all": client.config(1, (("m.room.name", ""), ("m.room.topic", "")), (0, 9))}
    room = (await client.sync())["rooms"][room_id]
    assert [event["content"] for event in room["required_state"]] == [{"topic": "black"}]


@pytest.mark.parametrize("form", FORMS)
async def test_subscriptions(homeserver: Homeserver, form: Form) -> None:
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    old, secret = await create(alice), await create(bob)
    await create(alice)
    client = connect(alice, form)
    client.lists = {"all": client.config(1, (), (0, 0))}
    await client.sync()
    client.subscriptions = {old: client.config(2), secret: client.config(2), "!nonsense": client.config(2)}
    told = await client.sync()
    assert list(told["rooms"]) == [old]
    assert "lists" not in told["rooms"][old] or form == "simplified"


@pytest.mark.parametrize("form", FORMS)
async def test_a_position_may_be_shown_again_and_an_old_one_not(homeserver: Homeserver, form: Form) -> None:
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    room_id = await create(alice)
    client = connect(alice, form)
    client.lists = {"all": client.config(5, LAZY, (0, 19))}
    await client.sync()
    first = client.pos
    await say(alice, room_id, "hello")
    once, again = await client.ask(pos=first), await client.ask(pos=first)
    assert list(once.json["rooms"]) == [room_id]
    told = [answer.json["rooms"][room_id] for answer in (once, again)]
    for section in told:
        del section["timeline"][0]["unsigned"]["age"]  # a moment has passed
    assert told[0] == told[1]
    # Either answer may be the one that arrived; then what was before is gone.
    assert (await client.ask(pos=once.json["pos"])).json["rooms"] == {}
    for old in (first, again.json["pos"]):
        refused = await client.ask(pos=old)
        assert (refused.status, refused.errcode) == (400, "M_UNKNOWN_POS")
    stranger = connect(bob, form)
    for pos in (once.json["pos"], "nonsense", "l1_2_3", "s5", f"l{2**43}_1_1"):
        refused = await stranger.ask(pos=pos)
        assert (refused.status, refused.errcode) == (400, "M_UNKNOWN_POS")
    other = connect(await homeserver.login("alice"), form)
    assert (await other.ask(pos=once.json["pos"])).errcode == "M_UNKNOWN_POS"


@pytest.mark.parametrize("form", FORMS)
async def test_connections_are_independent_and_begin_anew(homeserver: Homeserver, form: Form) -> None:
    alice = await homeserver.register("alice")
    await create(alice)
    clients = [connect(alice, form, conn_id) for conn_id in (None, "one", "two")]
    for client in clients:
        client.lists = {"all": client.config(1, (), (0, 9))}
        assert (await client.sync())["rooms"]
    for client in clients:
        assert not (await client.sync())["rooms"]
    abandoned = clients[1].pos
    clients[1].pos = None
    assert (await clients[1].sync())["rooms"]
    assert (await clients[1].ask(pos=abandoned)).errcode == "M_UNKNOWN_POS"
    assert (await clients[2].ask(pos=clients[2].pos)).status == 200


@pytest.mark.parametrize("form", FORMS)
async def test_the_position_works_for_messages(homeserver: Homeserver, form: Form) -> None:
    alice = await homeserver.register("alice")
    room_id = await create(alice)
    client = connect(alice, form)
    client.lists = {"all": client.config(1, (), (0, 9))}
    await client.sync()
    await say(alice, room_id, "later")
    page = await alice.get(f"{C}/rooms/{segment(room_id)}/messages", dir="f", **{"from": client.pos})
    assert [event["content"]["body"] for event in page.json["chunk"]] == ["later"]


@pytest.mark.parametrize("form", FORMS)
async def test_invites_knocks_and_what_comes_of_them(homeserver: Homeserver, form: Form) -> None:
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    client = connect(bob, form)
    client.lists = {"all": client.config(5, LAZY, (0, 19))}
    await client.sync()
    invited = await create(alice, invite=[bob.user_id], name="Tea", is_direct=True)
    section = (await client.sync())["rooms"][invited]
    stripped = section["invite_state" if form == "simplified" else "stripped_state"]
    assert {event["type"] for event in stripped} >= {"m.room.create", "m.room.name", "m.room.member"}
    assert client.rooms[invited].membership == "invite"
    assert "timeline" not in section
    await do(bob, invited, "leave")
    assert (await client.sync())["rooms"][invited]["required_state"]
    assert client.rooms[invited].membership == "leave"
    await do(alice, invited, "invite", user_id=bob.user_id)
    await client.sync()
    await do(bob, invited, "join")
    assert (await client.sync())["rooms"][invited]["initial"] is True
    await do(alice, invited, "kick", user_id=bob.user_id)
    await say(alice, invited, "secret")
    section = (await client.sync())["rooms"][invited]
    assert [event["type"] for event in section["timeline"]] == ["m.room.member"]
    assert client.rooms[invited].membership == "leave"
    assert (await client.sync())["rooms"] == {}
    rules = [{"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}]
    knocked = await create(alice, initial_state=rules)
    await bob.post(f"{C}/knock/{segment(knocked)}", {})
    await client.sync()
    assert client.rooms[knocked].membership == "knock"


async def test_invites_of_ignored_users_are_not_told(homeserver: Homeserver) -> None:
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    await alice.put(
        f"{C}/user/{segment(alice.user_id)}/account_data/m.ignored_user_list",
        {"ignored_users": {bob.user_id: {}}},
    )
    await create(bob, invite=[alice.user_id])
    client = connect(alice, "simplified")
    client.lists = {"all": client.config(5, LAZY, (0, 19))}
    told = await client.sync()
    assert (told["rooms"], told["lists"]["all"]["count"]) == ({}, 0)


@pytest.mark.parametrize("form", FORMS)
async def test_lazy_members_come_once(homeserver: Homeserver, form: Form) -> None:
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    carol = await homeserver.register("carol")
    room_id = await create(alice, preset="public_chat", name="Tea")
    for user in (bob, carol):
        await do(user, room_id, "join")
    for number in range(4):
        await say(alice, room_id, str(number))
    client = connect(alice, form)
    client.lists = {"all": client.config(2, (("m.room.member", "$LAZY"),), (0, 9))}

    def members(told: dict[str, Any]) -> set[str]:
        return {event["state_key"] for event in told["rooms"][room_id]["required_state"]}

    assert members(await client.sync()) == {alice.user_id}
    await say(bob, room_id, "first")
    assert members(await client.sync()) == {bob.user_id}
    await say(bob, room_id, "second")
    assert members(await client.sync()) == set()
    await do(carol, room_id, "leave")
    assert members(await client.sync()) == {carol.user_id}


@pytest.mark.parametrize("form", FORMS)
async def test_filters(homeserver: Homeserver, form: Form) -> None:
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    plain = await create(alice)
    space = await create(alice, creation_content={"type": "m.space"})
    encryption = [
        {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}
    ]
    secret = await create(alice, initial_state=encryption)
    invited = await create(bob, invite=[alice.user_id])
    await set_state(alice, space, "m.space.child", {"via": ["test"]}, plain)
    await set_state(alice, space, "m.space.child", {}, secret)
    own = f"{C}/user/{segment(alice.user_id)}"
    await alice.put(f"{own}/account_data/m.direct", {bob.user_id: [secret]})
    await alice.put(f"{own}/rooms/{segment(plain)}/tags/m.favourite", {})
    is_invited = "is_invite" if form == "simplified" else "is_invited"
    client = connect(alice, form)
    for filters, expected in (
        ({}, {plain, space, secret, invited}),
        ({"is_dm": True}, {secret}),
        ({"is_dm": False}, {plain, space, invited}),
        ({"is_encrypted": True}, {secret}),
        ({"is_encrypted": False}, {plain, space, invited}),
        ({is_invited: True}, {invited}),
        ({is_invited: False}, {plain, space, secret}),
        ({"room_types": ["m.space"]}, {space}),
        ({"room_types": [None]}, {plain, secret, invited}),
        ({"not_room_types": ["m.space"]}, {plain, secret, invited}),
        ({"room_types": ["m.space"], "not_room_types": ["m.space"]}, set()),
        ({"tags": ["m.favourite", "x"]}, {plain}),
        ({"not_tags": ["m.favourite"]}, {space, secret, invited}),
        ({"spaces": [space]}, {plain}),
        ({"spaces": ["!unknown:test", plain]}, set()),
    ):
        client.pos = None
        client.lists = {"some": client.config(0, (), (0, 99), **filters)}
        told = await client.sync()
        assert set(told["rooms"]) == expected, filters
        assert told["lists"]["some"]["count"] == len(expected)


async def test_rooms_are_ordered_by_their_latest_event_and_bumped_by_activity(homeserver: Homeserver) -> None:
    alice = await homeserver.register("alice")
    rooms = [await create(alice) for _ in range(2)]
    client = connect(alice, "simplified")
    client.lists = {"all": client.config(1, (), (0, 9))}
    await client.sync()
    stamps = {room_id: client.rooms[room_id].bump_stamp for room_id in rooms}
    await set_state(alice, rooms[0], "m.room.topic", {"topic": "tea"})
    await client.sync()
    assert client.shown["all"] == rooms
    assert client.rooms[rooms[0]].bump_stamp == stamps[rooms[0]]
    await say(alice, rooms[0], "hello")
    await client.sync()
    assert client.rooms[rooms[0]].bump_stamp > stamps[rooms[1]]


@pytest.mark.parametrize("form", FORMS)
async def test_heroes_and_direct_messages(homeserver: Homeserver, form: Form) -> None:
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    await bob.put(f"{C}/profile/{segment(bob.user_id)}/displayname", {"displayname": "Bob"})
    room_id = await create(alice, preset="private_chat")
    await invite_and_join(alice, room_id, bob)
    client = connect(alice, form)
    client.lists = {"all": client.config(1, (), (0, 9))}
    section = (await client.sync())["rooms"][room_id]
    assert section["heroes"] == [{"user_id": bob.user_id, "displayname": "Bob"}]
    assert "is_dm" not in section
    own = f"{C}/user/{segment(alice.user_id)}/account_data/m.direct"
    await alice.put(own, {bob.user_id: [room_id]})
    assert (await client.sync())["rooms"][room_id]["is_dm"] is True
    await alice.put(own, {})
    section = (await client.sync())["rooms"][room_id]
    assert section.get("is_dm") is (False if form == "final" else None)
    await set_state(alice, room_id, "m.room.name", {"name": "Tea"})
    assert (await client.sync())["rooms"][room_id]["name"] == "Tea"
    await set_state(alice, room_id, "m.room.name", {"name": ""})
    section = (await client.sync())["rooms"][room_id]
    assert section["heroes"]
    assert form == "simplified" or section["name"] is None


async def test_history_that_a_newcomer_may_not_see_stays_hidden(homeserver: Homeserver) -> None:
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    visibility = [
        {"type": "m.room.history_visibility", "state_key": "", "content": {"history_visibility": "joined"}}
    ]
    room_id = await create(alice, preset="public_chat", initial_state=visibility)
    await say(alice, room_id, "secret")
    client = connect(bob, "simplified")
    client.lists = {"all": client.config(20, LAZY, (0, 9))}
    await client.sync()
    await do(bob, room_id, "join")
    section = (await client.sync())["rooms"][room_id]
    assert section["timeline"][-1]["state_key"] == bob.user_id
    assert "m.room.message" not in {event["type"] for event in section["timeline"]}


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({"lists": {"a": {"required_state": []}}}, "M_MISSING_PARAM"),
        ({"lists": {"a": {"timeline_limit": 1}}}, "M_MISSING_PARAM"),
        ({"room_subscriptions": {"!a:b": {}}}, "M_MISSING_PARAM"),
        ({"lists": []}, "M_BAD_JSON"),
        ({"lists": {"a": {"timeline_limit": "1", "required_state": []}}}, "M_BAD_JSON"),
        ({"lists": {"a": {"timeline_limit": 1, "required_state": [["one"]]}}}, "M_BAD_JSON"),
        ({"lists": {"a": {"timeline_limit": 1, "required_state": [], "ranges": [[0]]}}}, "M_BAD_JSON"),
        ({"lists": {"a": {"timeline_limit": 1, "required_state": [], "ranges": [[0.5, 1]]}}}, "M_BAD_JSON"),
        ({"lists": {"a": {"timeline_limit": -1, "required_state": []}}}, "M_INVALID_PARAM"),
        ({"lists": {"a": {"timeline_limit": 1001, "required_state": []}}}, "M_INVALID_PARAM"),
        (
            {"lists": {"a": {"timeline_limit": 1, "required_state": [], "ranges": [[-1, 5]]}}},
            "M_INVALID_PARAM",
        ),
        (
            {"lists": {"a": {"timeline_limit": 1, "required_state": [], "ranges": [[5, 1]]}}},
            "M_INVALID_PARAM",
        ),
        (
            {"lists": {"a": {"timeline_limit": 1, "required_state": [], "ranges": [[0, 1]] * 101}}},
            "M_INVALID_PARAM",
        ),
        ({"lists": {"a": {"timeline_limit": 1, "required_state": [["a", "b"]] * 501}}}, "M_INVALID_PARAM"),
        (
            {"lists": {str(n): {"timeline_limit": 1, "required_state": []} for n in range(101)}},
            "M_INVALID_PARAM",
        ),
        ({"lists": {"a" * 65: {"timeline_limit": 1, "required_state": []}}}, "M_INVALID_PARAM"),
        (
            {
                "room_subscriptions": {
                    f"!{n}:b": {"timeline_limit": 1, "required_state": []} for n in range(101)
                }
            },
            "M_INVALID_PARAM",
        ),
        ({"conn_id": "x" * 256}, "M_INVALID_PARAM"),
        ({"conn_id": 5}, "M_BAD_JSON"),
        ({"extensions": {"to_device": {"enabled": True, "since": "x"}}}, "M_INVALID_PARAM"),
        ({"extensions": {"to_device": {"enabled": True, "limit": 0}}}, "M_INVALID_PARAM"),
        ({"extensions": {"typing": {"enabled": "yes"}}}, "M_BAD_JSON"),
        ({"extensions": {"typing": []}}, None),
        ({"extensions": {"unknown": 5}}, None),
        ({"lists": {"a": {"timeline_limit": 1, "required_state": [], "ranges": [[0, 2**53]]}}}, None),
        ({"lists": {"a": {"timeline_limit": 1000, "required_state": [], "slow_get_all_rooms": True}}}, None),
        ({}, None),
    ],
)
async def test_what_is_refused(homeserver: Homeserver, body: Any, errcode: str | None) -> None:
    alice = await homeserver.register("alice")
    answer = await alice.post(SIMPLIFIED, body)
    assert (answer.status, answer.errcode) == (200 if errcode is None else 400, errcode), answer.body


@pytest.mark.parametrize(
    ("body", "errcode"),
    [
        ({"lists": {"a": {"timeline_limit": 1}}}, "M_MISSING_PARAM"),
        ({"lists": {"a": {"timeline_limit": 1, "required_state": []}}}, "M_BAD_JSON"),
        ({"lists": {"a": {"timeline_limit": 1, "required_state": {}, "range": [3, 1]}}}, "M_INVALID_PARAM"),
        (
            {"lists": {str(n): {"timeline_limit": 1, "required_state": {}} for n in range(101)}},
            "M_INVALID_PARAM",
        ),
        ({"set_presence": "busy"}, "M_INVALID_PARAM"),
        ({"timeout": -1}, "M_INVALID_PARAM"),
        ({"timeout": "1"}, "M_BAD_JSON"),
        ({"pos": 5}, "M_BAD_JSON"),
        ({"set_presence": "offline", "lists": {"a": {"timeline_limit": 10**6, "required_state": {}}}}, None),
    ],
)
async def test_what_the_final_form_refuses(homeserver: Homeserver, body: Any, errcode: str | None) -> None:
    alice = await homeserver.register("alice")
    answer = await alice.post(FINAL, body)
    assert (answer.status, answer.errcode) == (200 if errcode is None else 400, errcode), answer.body


@pytest.mark.parametrize("path", [SIMPLIFIED, FINAL])
async def test_without_a_token(homeserver: Homeserver, path: str) -> None:
    assert (await homeserver.client.post(path, {})).errcode == "M_MISSING_TOKEN"
    assert (await homeserver.client.as_user("wrong").post(path, {})).errcode == "M_UNKNOWN_TOKEN"
    alice = await homeserver.register("alice")
    assert (await alice.request("POST", path, body=b"{")).errcode == "M_NOT_JSON"
    assert (await alice.request("POST", path, body=b"[]")).errcode == "M_BAD_JSON"


async def test_a_device_has_a_bounded_number_of_connections(homeserver: Homeserver) -> None:
    alice = await homeserver.register("alice")
    first = connect(alice, "simplified", "first")
    await first.sync()
    for number in range(16):
        await connect(alice, "simplified", f"c{number}").sync()
    assert (await first.ask(pos=first.pos)).errcode == "M_UNKNOWN_POS"


@pytest.mark.parametrize("form", FORMS)
async def test_an_idle_poll_reads_nothing(
    homeserver: Homeserver, form: Form, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = await homeserver.register("alice")
    await create(alice)
    client = connect(alice, form)
    client.lists = {"all": client.config(1, LAZY, (0, 9))}
    client.extensions = ALL_EXTENSIONS | {"to_device": {"enabled": True, "since": "0"}}
    await client.sync()
    await client.sync()

    db = homeserver.foundation.ports.db
    read_as_ever = db.read
    is_this_poll = ContextVar("is_this_poll", default=False)  # workers of the server have their own context

    async def read(*args: Any, **named: Any) -> Any:
        assert not is_this_poll.get(), "nothing happened, so nothing is to be read"
        return await read_as_ever(*args, **named)

    monkeypatch.setattr(db, "read", read)
    is_this_poll.set(True)
    told = await client.sync()
    assert told["lists"]["all"]["count"] == 1
    assert told["extensions"]["e2ee"]["device_one_time_keys_count"] == {"signed_curve25519": 0}
