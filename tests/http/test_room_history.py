"""GET /messages, /event, /context: pages join without gap or repetition, and nobody sees what they may not."""

from typing import Any

import orjson
import pytest

from ranvier.store.tables.account_data import set_ignored_users

from .client import Answer
from .homeserver import Homeserver, User
from .scripted_room import Room


@pytest.fixture
async def room(homeserver: Homeserver, alice: User) -> Room:
    return await Room.create(homeserver, alice)


def bodies(answer: Answer, key: str = "chunk") -> list[Any]:
    assert answer.status == 200, answer.body
    return [event["content"].get("body") for event in answer.json[key] if event["type"] == "m.room.message"]


async def read_all(user: User, room: Room, **query: Any) -> tuple[list[dict[str, Any]], int]:
    """Every event in one direction, and how many pages it took."""
    found: list[dict[str, Any]] = []
    pages, token = 0, query.pop("from", None)
    while True:
        answer = await user.get(f"{room.path}/messages", **query, **({"from": token} if token else {}))
        assert answer.status == 200, answer.body
        found += answer.json["chunk"]
        pages += 1
        if token:
            assert answer.json["start"] == token
        token = answer.json.get("end")
        if token is None:
            return found, pages


async def test_pages_in_both_directions(alice: User, room: Room) -> None:
    said = [await room.say(alice, str(number)) for number in range(7)]
    back, pages = await read_all(alice, room, dir="b", limit=4)
    assert pages == 3  # 5 state events and 7 messages
    assert [event["event_id"] for event in back[:7]] == said[::-1]
    assert back[-1]["type"] == "m.room.create"
    forth, _ = await read_all(alice, room, dir="f", limit=5)
    assert [event["event_id"] for event in forth] == [event["event_id"] for event in back[::-1]]
    assert all(event["room_id"] == room.room_id for event in forth)


async def test_the_last_page_has_no_end_even_if_it_is_full(alice: User, room: Room) -> None:
    answer = await alice.get(f"{room.path}/messages", dir="b", limit=5)
    assert len(answer.json["chunk"]) == 5
    assert "end" not in answer.json


async def test_what_a_filter_finds_has_an_end_at_which_nothing_is_left(alice: User, room: Room) -> None:
    picture = await room.say(alice, "picture", url="mxc://test/picture")
    for direction in ("b", "f"):
        query = {"dir": direction, "filter": '{"contains_url":true}'}
        page = (await alice.get(f"{room.path}/messages", **query)).json
        assert [event["event_id"] for event in page["chunk"]] == [picture]
        rest = (await alice.get(f"{room.path}/messages", **query, **{"from": page["end"]})).json
        assert rest["chunk"] == []
        assert "end" not in rest


async def test_to_ends_a_page(alice: User, room: Room) -> None:
    await room.say(alice, "old")
    now = (await alice.get(f"{room.path}/messages", dir="b", limit=1)).json["start"]
    await room.say(alice, "new")
    back = await alice.get(f"{room.path}/messages", dir="b", to=now)
    assert bodies(back) == ["new"]
    assert "end" not in back.json
    assert bodies(await alice.get(f"{room.path}/messages", dir="f", **{"from": now})) == ["new"]
    forth = await alice.get(f"{room.path}/messages", dir="f", to=now, limit=100)
    assert bodies(forth) == ["old"]


async def test_sync_tokens_are_places_too(homeserver: Homeserver, alice: User, room: Room) -> None:
    await room.say(alice, "old")
    token = f"s{homeserver.foundation.ports.db.position()}"
    await room.say(alice, "new")
    assert bodies(await alice.get(f"{room.path}/messages", dir="b", **{"from": token})) == ["old"]
    assert bodies(await alice.get(f"{room.path}/messages", dir="f", **{"from": token})) == ["new"]


@pytest.mark.parametrize(
    ("query", "errcode"),
    [
        ("dir=x", "M_INVALID_PARAM"),
        ("dir=b&from=x", "M_INVALID_PARAM"),
        ("dir=b&to=t99999999999999999999", "M_INVALID_PARAM"),
        ("dir=b&limit=-1", "M_INVALID_PARAM"),
        ("dir=b&limit=x", "M_INVALID_PARAM"),
        ("dir=b&filter=x", "M_NOT_JSON"),
        ("dir=b&filter=%7B%22types%22%3A1%7D", "M_BAD_JSON"),
    ],
)
async def test_questions_that_cannot_be_answered(alice: User, room: Room, query: str, errcode: str) -> None:
    answer = await alice.get(f"{room.path}/messages?{query}")
    assert (answer.status, answer.errcode) == (400, errcode)


async def test_a_filter_with_very_many_wildcards_is_refused(alice: User, room: Room) -> None:
    types = orjson.dumps({"types": [f"{number}*" for number in range(100)]}).decode()
    answer = await alice.get(f"{room.path}/messages", dir="b", filter=types)
    assert (answer.status, answer.errcode) == (400, "M_BAD_JSON")


@pytest.mark.parametrize("token", ["t9223372036854775807", "t-9223372036854775808", "t0", "s0"])
@pytest.mark.parametrize("direction", ["b", "f"])
async def test_tokens_at_the_ends_of_the_world(alice: User, room: Room, token: str, direction: str) -> None:
    query = {"from": token, "to": token, "dir": direction}
    assert (await alice.get(f"{room.path}/messages", **query)).json["chunk"] == []
    assert (await alice.get(f"{room.path}/messages", dir=direction, **{"from": token})).status == 200


async def test_no_events_may_be_asked_for(alice: User, room: Room) -> None:
    answer = (await alice.get(f"{room.path}/messages", dir="b", limit=0)).json
    assert answer["chunk"] == []
    assert answer["end"] == answer["start"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"types": ["m.room.message"]}, ["c", "b", "a"]),
        ({"types": ["m.room.m*"], "senders": ["@bob:test"]}, ["b"]),
        ({"not_types": ["m.room.message"]}, []),
        ({"not_senders": ["@bob:test", "@nobody:test"]}, ["c", "a"]),
        ({"senders": ["@nobody:test"]}, []),
        ({"contains_url": True}, ["c"]),
        ({"rooms": ["!other:test"]}, []),
        ({"not_rooms": ["!other:test"]}, ["c", "b", "a"]),
        ({"types": []}, []),
        ({"types": ["a\0b", "*\0"]}, []),
        ({"related_by_rel_types": ["m.thread"]}, ["a"]),
        ({"related_by_rel_types": ["m.thread"], "related_by_senders": ["@bob:test"]}, []),
        ({"org.matrix.msc3874.rel_types": ["m.thread"]}, ["t"]),
        ({"org.matrix.msc3874.not_rel_types": ["m.thread"], "types": ["m.room.message"]}, ["c", "b", "a"]),
    ],
)
async def test_filters(alice: User, bob: User, room: Room, wanted: Any, found: list[str]) -> None:
    await room.join(bob)
    first = await room.say(alice, "a")
    await room.say(bob, "b")
    await room.say(alice, "c", url="mxc://x/y")
    await room.relate(alice, first, "m.thread", body="t")
    filter_ = orjson.dumps(wanted).decode()
    events, _ = await read_all(alice, room, dir="b", limit=2, filter=filter_)
    names = [event["content"]["body"] for event in events if event["type"] == "m.room.message"]
    if not any(key in wanted for key in ("related_by_rel_types", "org.matrix.msc3874.rel_types")):
        names = [name for name in names if name != "t"]
    assert names == found


async def test_members_of_the_senders_come_along(alice: User, bob: User, room: Room) -> None:
    join = await room.join(bob)
    await room.say(alice, "1")
    await room.say(bob, "2")
    lazy = '{"lazy_load_members":true}'
    answer = (await alice.get(f"{room.path}/messages", dir="b", limit=2, filter=lazy)).json
    assert {event["state_key"] for event in answer["state"]} == {alice.user_id, bob.user_id}
    assert {event["type"] for event in answer["state"]} == {"m.room.member"}
    # Also those that are in the page themselves.
    answer = (await alice.get(f"{room.path}/messages", dir="b", limit=3, filter=lazy)).json
    assert [event["event_id"] for event in answer["chunk"]][-1] == join
    assert {event["state_key"] for event in answer["state"]} == {alice.user_id, bob.user_id}
    plain = (await alice.get(f"{room.path}/messages", dir="b", limit=2)).json
    assert "state" not in plain


async def test_strangers_see_nothing(alice: User, bob: User, room: Room) -> None:
    event_id = await room.say(alice, "secret")
    stranger = bob.as_user(None)
    assert (await stranger.get(f"{room.path}/messages", dir="b")).errcode == "M_MISSING_TOKEN"
    unknown = "/_matrix/client/v3/rooms/!nowhere:test"
    for path in (room.path, unknown):
        messages = await bob.get(f"{path}/messages", dir="b")
        assert (messages.status, messages.errcode) == (403, "M_FORBIDDEN")
        event = await bob.get(f"{path}/event/{event_id}")
        assert (event.status, event.errcode) == (404, "M_NOT_FOUND")
        context = await bob.get(f"{path}/context/{event_id}")
        assert (context.status, context.errcode) == (404, "M_NOT_FOUND")


async def test_an_invited_user_is_not_in_the_room_yet(alice: User, bob: User, room: Room) -> None:
    await room.set_membership(alice, bob, "invite")
    assert (await bob.get(f"{room.path}/messages", dir="b")).status == 403


async def test_an_event_of_another_room_is_not_found(homeserver: Homeserver, alice: User, room: Room) -> None:
    other = await Room.create(homeserver, alice)
    event_id = await other.say(alice, "elsewhere")
    assert (await alice.get(f"{other.path}/event/{event_id}")).status == 200
    assert (await alice.get(f"{room.path}/event/{event_id}")).status == 404
    assert (await alice.get(f"{room.path}/event/$nothing")).status == 404


async def test_who_left_sees_what_came_before(alice: User, bob: User, room: Room) -> None:
    await room.say(alice, "before")
    await room.join(bob)
    await room.say(alice, "with")
    left = await room.leave(bob)
    late = await room.say(alice, "after")
    answer = await bob.get(f"{room.path}/messages", dir="b", limit=100)
    assert bodies(answer) == ["with", "before"]
    assert answer.json["chunk"][0]["event_id"] == left
    assert (await bob.get(f"{room.path}/event/{late}")).status == 404
    forth = await bob.get(f"{room.path}/messages", dir="f", limit=100)
    assert bodies(forth) == ["before", "with"]
    assert "end" not in forth.json


@pytest.mark.parametrize(
    ("visibility", "seen"),
    [
        ("world_readable", ["before", "invited", "joined"]),
        ("shared", ["before", "invited", "joined"]),
        ("invited", ["invited", "joined"]),
        ("joined", ["joined"]),
    ],
)
async def test_history_visibility(
    homeserver: Homeserver, alice: User, bob: User, visibility: str, seen: list[str]
) -> None:
    room = await Room.create(homeserver, alice, visibility=visibility)
    ids = {"before": await room.say(alice, "before")}
    await room.set_membership(alice, bob, "invite")
    ids["invited"] = await room.say(alice, "invited")
    await room.join(bob)
    ids["joined"] = await room.say(alice, "joined")
    events, _ = await read_all(bob, room, dir="f", limit=2)
    assert [event["content"]["body"] for event in events if event["type"] == "m.room.message"] == seen
    for name, event_id in ids.items():
        status = (await bob.get(f"{room.path}/event/{event_id}")).status
        assert status == (200 if name in seen else 404)


async def test_passers_by_read_what_the_world_may_read(
    homeserver: Homeserver, alice: User, bob: User
) -> None:
    room = await Room.create(homeserver, alice, visibility="joined")
    await room.say(alice, "hidden")
    await room.set_state(alice, "m.room.history_visibility", {"history_visibility": "world_readable"})
    await room.say(alice, "shown")
    assert bodies(await bob.get(f"{room.path}/messages", dir="b", limit=100)) == ["shown"]


async def test_very_much_that_is_invisible_is_passed_over(
    homeserver: Homeserver, alice: User, bob: User
) -> None:
    room = await Room.create(homeserver, alice, visibility="joined")
    start = (await alice.get(f"{room.path}/messages", dir="b", limit=1)).json["start"]
    for number in range(30):
        await room.say(alice, str(number))
    await room.join(bob)
    answer = await bob.get(f"{room.path}/messages", dir="f", limit=1, **{"from": start})
    assert [event["type"] for event in answer.json["chunk"]] == ["m.room.member"]
    assert "end" not in answer.json


async def test_membership_is_what_it_was_at_the_event(alice: User, bob: User, room: Room) -> None:
    before = await room.say(alice, "before")
    await room.set_membership(alice, bob, "invite")
    invited = await room.say(alice, "invited")
    join = await room.join(bob)
    with_bob = await room.say(alice, "with")
    for event_id, membership in ((before, "leave"), (invited, "invite"), (join, "join"), (with_bob, "join")):
        event = (await bob.get(f"{room.path}/event/{event_id}")).json
        assert event["unsigned"]["membership"] == membership


async def test_a_redacted_event_has_lost_its_content(alice: User, room: Room) -> None:
    event_id = await room.say(alice, "regretted")
    seen_before = await alice.get(f"{room.path}/event/{event_id}")
    assert seen_before.json["content"]["body"] == "regretted"
    redaction = await room.redact(alice, event_id)
    event = (await alice.get(f"{room.path}/event/{event_id}")).json
    assert event["content"] == {}
    because = event["unsigned"]["redacted_because"]
    assert (because["event_id"], because["type"]) == (redaction, "m.room.redaction")
    assert because["content"]["reason"] == "spam"
    assert because["redacts"] == event_id
    in_page = (await alice.get(f"{room.path}/messages", dir="b", limit=2)).json["chunk"]
    assert in_page[0]["redacts"] == event_id
    assert in_page[1]["content"] == {}
    # What a redaction says may be redacted, too.
    await room.redact(alice, redaction)
    event = (await alice.get(f"{room.path}/event/{event_id}")).json
    assert "reason" not in event["unsigned"]["redacted_because"]["content"]


async def test_state_tells_what_it_replaced(alice: User, bob: User, room: Room) -> None:
    first = await room.set_state(alice, "m.room.topic", {"topic": "one"})
    second = await room.set_state(alice, "m.room.topic", {"topic": "two"})
    event = (await alice.get(f"{room.path}/event/{second}")).json
    assert event["unsigned"]["replaces_state"] == first
    assert event["unsigned"]["prev_content"] == {"topic": "one"}
    assert "replaces_state" not in (await alice.get(f"{room.path}/event/{first}")).json["unsigned"]
    await room.redact(alice, first)
    event = (await alice.get(f"{room.path}/event/{second}")).json
    assert event["unsigned"]["prev_content"] == {}


async def test_who_may_not_see_what_was_replaced_is_not_told(
    homeserver: Homeserver, alice: User, bob: User
) -> None:
    room = await Room.create(homeserver, alice, visibility="joined")
    first = await room.set_state(alice, "m.room.topic", {"topic": "secret"})
    await room.join(bob)
    second = await room.set_state(alice, "m.room.topic", {"topic": "open"})
    unsigned = (await bob.get(f"{room.path}/event/{second}")).json["unsigned"]
    assert unsigned["replaces_state"] == first
    assert "prev_content" not in unsigned
    unsigned = (await alice.get(f"{room.path}/event/{second}")).json["unsigned"]
    assert unsigned["prev_content"] == {"topic": "secret"}


async def test_the_sending_device_finds_its_transaction(
    homeserver: Homeserver, alice: User, bob: User, room: Room
) -> None:
    await room.join(bob)
    answer = await alice.put(f"{room.path}/send/m.room.message/txn1", {"msgtype": "m.text", "body": "hello"})
    path = f"{room.path}/event/{answer.json['event_id']}"
    assert (await alice.get(path)).json["unsigned"]["transaction_id"] == "txn1"
    assert "transaction_id" not in (await bob.get(path)).json["unsigned"]
    elsewhere = await homeserver.login("alice")
    assert "transaction_id" not in (await elsewhere.get(path)).json["unsigned"]


async def test_ignored_users_are_not_heard(
    homeserver: Homeserver, alice: User, bob: User, room: Room
) -> None:
    await room.join(bob)
    heard = await room.say(bob, "noise")
    topic = await room.set_state(bob, "m.room.topic", {"topic": "noise"})
    await _ignore(homeserver, alice, bob)
    answer = await alice.get(f"{room.path}/messages", dir="b", limit=100)
    assert bodies(answer) == []
    assert topic in [event["event_id"] for event in answer.json["chunk"]]
    assert (await alice.get(f"{room.path}/event/{heard}")).status == 404
    assert bodies(await bob.get(f"{room.path}/messages", dir="b", limit=100)) == ["noise"]


async def _ignore(homeserver: Homeserver, user: User, ignored: User) -> None:
    foundation = homeserver.foundation
    nids = [foundation.interner.users.number(one.user_id) for one in (user, ignored)]
    await foundation.ports.db.write(set_ignored_users, nids[0], [nids[1]])


async def test_context(alice: User, room: Room) -> None:
    said = [await room.say(alice, str(number)) for number in range(9)]
    answer = await alice.get(f"{room.path}/context/{said[4]}", limit=5)
    assert answer.json["event"]["event_id"] == said[4]
    assert bodies(answer, "events_before") == ["3", "2"]
    assert bodies(answer, "events_after") == ["5", "6", "7"]
    assert {event["type"] for event in answer.json["state"]} >= {"m.room.create", "m.room.member"}
    back = await alice.get(f"{room.path}/messages", dir="b", **{"from": answer.json["start"]})
    assert bodies(back) == ["1", "0"]
    forth = await alice.get(f"{room.path}/messages", dir="f", **{"from": answer.json["end"]})
    assert bodies(forth) == ["8"]


async def test_context_of_the_event_alone(alice: User, room: Room) -> None:
    event_id = await room.say(alice, "alone")
    await room.say(alice, "next")
    answer = (await alice.get(f"{room.path}/context/{event_id}", limit=0)).json
    assert (answer["events_before"], answer["events_after"]) == ([], [])
    assert answer["event"]["event_id"] == event_id


async def test_the_filter_of_context_is_not_for_the_event(alice: User, bob: User, room: Room) -> None:
    await room.join(bob)
    await room.say(alice, "1")
    event_id = await room.say(bob, "2")
    await room.say(alice, "3")
    filter_ = '{"types":["m.room.member"],"lazy_load_members":true}'
    answer = (await alice.get(f"{room.path}/context/{event_id}", filter=filter_)).json
    assert answer["event"]["event_id"] == event_id
    assert {event["type"] for event in answer["events_before"]} == {"m.room.member"}
    assert answer["events_after"] == []
    assert {event["type"] for event in answer["state"]} == {"m.room.member"}


async def test_state_of_context_is_that_behind_the_last_event(alice: User, room: Room) -> None:
    event_id = await room.say(alice, "1")
    await room.set_state(alice, "m.room.topic", {"topic": "new"})
    await room.say(alice, "2")

    async def topic(limit: int) -> list[str]:
        answer = (await alice.get(f"{room.path}/context/{event_id}", limit=limit)).json
        return [event["content"]["topic"] for event in answer["state"] if event["type"] == "m.room.topic"]

    assert await topic(0) == []
    assert await topic(1) == ["new"]


async def test_an_event_by_its_id_alone(alice: User, bob: User, room: Room) -> None:
    event_id = await room.say(alice, "hello")
    event = await alice.get(f"/_matrix/client/v3/events/{event_id}")
    assert (event.json["room_id"], event.json["content"]["body"]) == (room.room_id, "hello")
    for user, asked in ((bob, event_id), (alice, "$nothing")):
        answer = await user.get(f"/_matrix/client/v3/events/{asked}")
        assert (answer.status, answer.errcode) == (404, "M_NOT_FOUND")


async def test_a_room_in_one_answer(alice: User, bob: User, room: Room) -> None:
    tags = f"/_matrix/client/v3/user/{alice.user_id}/rooms/{room.room_id}/tags/m.favourite"
    assert (await alice.put(tags, {"order": 0.5})).status == 200
    await room.join(bob)
    said = [await room.say(alice, str(number)) for number in range(25)]
    await room.leave(bob)
    await room.set_state(alice, "m.room.topic", {"topic": "later"})
    answer = await alice.get(f"{room.path}/initialSync")
    assert answer.status == 200, answer.body
    found = answer.json
    assert (found["room_id"], found["membership"], found["visibility"]) == (room.room_id, "join", "private")
    assert found["account_data"][0]["type"] == "m.tag"
    chunk = found["messages"]["chunk"]
    assert [event["event_id"] for event in chunk[:18]] == said[7:]
    older = await alice.get(f"{room.path}/messages", dir="b", limit=1, **{"from": found["messages"]["start"]})
    assert older.json["chunk"][0]["event_id"] == said[6]
    assert "m.room.topic" in {event["type"] for event in found["state"]}
    left = (await bob.get(f"{room.path}/initialSync")).json
    assert left["membership"] == "leave"
    assert "m.room.topic" not in {event["type"] for event in left["state"]}
    assert left["messages"]["chunk"][-1]["state_key"] == bob.user_id
    assert (await bob.get("/_matrix/client/v3/rooms/!nowhere:test/initialSync")).errcode == "M_FORBIDDEN"


async def test_pages_join_what_sync_showed(alice: User, room: Room) -> None:
    said = [await room.say(alice, str(number)) for number in range(6)]
    filter_ = '{"room":{"timeline":{"limit":2}}}'
    synced = (await alice.get("/_matrix/client/v3/sync", filter=filter_)).json
    timeline = synced["rooms"]["join"][room.room_id]["timeline"]
    assert [event["event_id"] for event in timeline["events"]] == said[4:]
    older, _ = await read_all(alice, room, dir="b", limit=3, **{"from": timeline["prev_batch"]})
    assert [event["event_id"] for event in older[:4]] == said[3::-1]
    assert older[-1]["type"] == "m.room.create"
    said += [await room.say(alice, str(number)) for number in range(6, 12)]
    since = synced["next_batch"]
    synced = (await alice.get("/_matrix/client/v3/sync", filter=filter_, since=since)).json
    timeline = synced["rooms"]["join"][room.room_id]["timeline"]
    assert timeline["limited"] is True
    # What lies between two syncs is had from either end.
    gap = {"from": timeline["prev_batch"], "to": since}
    between, _ = await read_all(alice, room, dir="b", limit=3, **gap)
    assert [event["event_id"] for event in between] == said[9:5:-1]
    gap = {"from": since, "to": timeline["prev_batch"]}
    between, _ = await read_all(alice, room, dir="f", limit=3, **gap)
    assert [event["event_id"] for event in between] == said[6:10]
