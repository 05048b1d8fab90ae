"""What somebody who knew the protocol of July 2021 would try first."""

import asyncio

import pytest

from ...http.client import segment
from ...http.homeserver import eventually
from ...http.rooms import C, create, do, say, set_state
from .client import PATH, names
from .conftest import KINDS

pytestmark = pytest.mark.parametrize("kind", KINDS, indirect=True)


async def typing(user, room_id, is_typing=True):
    path = f"{C}/rooms/{segment(room_id)}/typing/{segment(user.user_id)}"
    answer = await user.put(path, {"typing": is_typing, "timeout": 20_000})
    assert answer.status == 200, answer.body


async def send_to(sender, receiver, n):
    messages = {receiver.user_id: {receiver.device_id: {"n": n}}}
    answer = await sender.put(f"{C}/sendToDevice/m.test/{receiver.device_id}{n}", {"messages": messages})
    assert answer.status == 200, answer.body


def numbers(answer):
    return [event["content"]["n"] for event in answer["to_device"]["events"]]


@pytest.fixture
async def people(homeserver):
    return [await homeserver.register(name) for name in ("alice", "bob", "carol", "dave", "erin")]


@pytest.fixture
async def room_id(people):
    """A public room of alice's with bob, carol and dave."""
    alice, *others = people[:4]
    room_id = await create(alice, preset="public_chat", name="Room")
    for user in others:
        await do(user, room_id, "join")
    return room_id


async def test_an_empty_request_makes_a_session(people, v3):
    answer = await v3(people[0]).sync()
    assert list(answer) == ["next"]
    assert answer["next"].startswith("V3_S")


async def test_a_session_belongs_to_one_request_without_a_token(people, v3):
    one, other = [(await v3(people[0]).sync())["next"] for _ in range(2)]
    assert one.split("_")[1] != other.split("_")[1]


async def test_the_token_stands_in_the_header_alone(people, v3):
    alice = people[0]
    for token, query in ((None, {}), (None, {"access_token": alice.token})):
        answer = await v3(alice.as_user(token)).client.post(PATH, {}, **query)
        assert answer.status == 401, answer.body
        assert answer.errcode in ("M_MISSING_TOKEN", "M_UNKNOWN_TOKEN")
    answer = await v3(alice.as_user("wrong")).ask()
    assert (answer.status, answer.errcode) == (401, "M_UNKNOWN_TOKEN")


async def test_members_come_in_pages_of_one_snapshot(people, room_id, v3):
    client = v3(people[0])
    body = {"room_members": {"room_id": room_id, "p": {"limit": 2, "sort": "by_name"}}}
    first = await client.sync(body)
    token = first["next"]
    assert names(first["room_members"]) == ["@alice", "@bob"]
    assert first["room_members"]["p"] == {"limit": 2, "sort": "by_name", "next": "2"}
    # Whoever comes meanwhile is none of the snapshot.
    await do(people[4], room_id, "join")
    second = await client.sync({"room_members": {"p": {"since": "2"}}}, token)
    assert names(second["room_members"]) == ["@carol", "@dave"]
    assert "next" not in second["room_members"]["p"]
    # The token for what is sticky may be new; its positions are not.
    assert second["next"] == token
    beyond = await client.ask({"room_members": {"p": {"since": "3"}}}, token)
    assert (beyond.status, beyond.errcode) == (400, "M_INVALID_PARAM")


async def test_the_powerful_come_first(people, room_id, v3):
    levels = {"users": {people[3].user_id: 50}}
    await set_state(people[0], room_id, "m.room.power_levels", levels)
    answer = await v3(people[1]).sync({"room_members": {"room_id": room_id}})
    assert names(answer["room_members"]) == ["@alice", "@dave", "@bob", "@carol"]
    assert answer["room_members"]["sort"] == "by_pl"


async def test_what_the_server_does_not_do_is_negotiated(people, room_id, v3):
    p = {"limit": 999_999, "sort": "by_colour"}
    answer = await v3(people[0]).sync({"room_members": {"room_id": room_id, "p": p}})
    assert answer["room_members"]["p"] == {"limit": 1000, "sort": "by_pl"}
    assert (answer["room_members"]["limit"], answer["room_members"]["sort"]) == (1000, "by_pl")


async def test_changes_of_members_or_the_first_page_anew(people, room_id, v3):
    client = v3(people[0])
    body = {"room_members": {"room_id": room_id, "sort": "by_name", "limit": 3}}
    token = (await client.sync(body))["next"]
    await do(people[4], room_id, "join")

    async def has_come():
        return names((await client.sync({}, token))["room_members"]) == ["@erin"]

    await eventually(has_come)
    anew = await client.sync({"room_members": {"p": {"since": "1"}}}, token)
    assert names(anew["room_members"]) == ["@alice", "@bob", "@carol"]
    # A client that keeps its old token pages through the new snapshot all the same.
    more = await client.sync({"room_members": {"p": {"since": anew["room_members"]["p"]["next"]}}}, token)
    assert names(more["room_members"]) == ["@dave", "@erin"]
    more = await client.sync({"room_members": {"p": {"since": "2"}}}, anew["next"])
    assert names(more["room_members"]) == ["@dave", "@erin"]
    after = await client.sync({}, anew["next"])
    assert after["room_members"]["events"] == []


async def test_the_names_of_the_code(people, room_id, v3):
    client = v3(people[0])
    answer = await client.sync({"room_member": {"room_id": room_id}, "room_list": {}})
    assert len(answer["room_member"]["events"]) == 4
    assert [room["room_id"] for room in answer["room_list"]["rooms"]] == [room_id]
    assert set(await client.sync({}, answer["next"])) == {"room_member", "room_list", "next"}
    again = await client.sync({"room_members": {"p": {"since": "1"}}}, answer["next"])
    assert "room_members" in again
    assert "room_member" not in again


async def test_somebody_types(people, room_id, v3):
    alice, bob = people[:2]
    client = v3(alice)
    token = (await client.sync({"room_members": {"room_id": room_id}}))["next"]
    waiting = asyncio.create_task(client.sync({"typing": {"room_id": room_id}}, token, wait_ms=10_000))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    await typing(bob, room_id)
    answer = await asyncio.wait_for(waiting, 5)
    content = {"user_ids": [bob.user_id]}
    assert answer["typing"]["events"] == [{"type": "m.typing", "room_id": room_id, "content": content}]
    assert answer["typing"]["user_ids"] == [bob.user_id]
    # Sticky: the new token still asks for it.
    waiting = asyncio.create_task(client.sync({}, answer["next"], wait_ms=10_000))
    await asyncio.sleep(0.05)
    await typing(bob, room_id, False)
    answer = await asyncio.wait_for(waiting, 5)
    assert answer["typing"]["events"][0]["content"] == {"user_ids": []}


async def test_nobody_types(people, room_id, v3):
    client = v3(people[0])
    token = (await client.sync({"room_members": {"room_id": room_id}}))["next"]
    body = {"typing": {"room_id": room_id}, "room_members": None}
    answer = await client.sync(body, token, wait_ms=150)
    assert list(answer) == ["next"]
    assert answer["next"] != token  # it names the stream that was asked for
    await typing(people[1], room_id)

    async def types():
        return "typing" in await client.sync({}, answer["next"])

    await eventually(types)
    assert "room_members" not in await client.sync({}, answer["next"])


async def test_who_types_already_is_told_to_who_asks_anew(people, room_id, v3):
    client = v3(people[0])
    await typing(people[1], room_id)
    token = (await client.sync())["next"]

    async def types():
        answer = await client.sync({"typing": {"room_id": room_id}}, token)
        return "typing" in answer and answer["typing"]["user_ids"] == [people[1].user_id]

    await eventually(types)


async def test_messages_stay_until_every_session_has_them(people, v3):
    alice, bob = people[:2]
    client = v3(bob)
    body = {"to_device": {}}
    one, other = (await client.sync(body))["next"], (await client.sync(body))["next"]
    for n in range(3):
        await send_to(alice, bob, n)

    async def has_all():
        return numbers(await client.sync({}, one)) == [0, 1, 2]

    await eventually(has_all)
    # Not acknowledged: the same again.
    answer = await client.sync({}, one)
    assert numbers(answer) == [0, 1, 2]
    assert answer["to_device"]["limit"] == 100
    assert numbers(await client.sync({}, answer["next"])) == []
    second = await client.sync({}, other)
    assert numbers(second) == [0, 1, 2]
    assert numbers(await client.sync({}, second["next"])) == []
    assert numbers(await client.sync(body)) == []


async def test_a_limit_cuts_and_nothing_is_lost(people, v3):
    alice, bob = people[:2]
    client = v3(bob)
    token = (await client.sync({"to_device": {"limit": 2}}))["next"]
    for n in range(5):
        await send_to(alice, bob, n)

    async def has_two():
        return numbers(await client.sync({}, token)) == [0, 1]

    await eventually(has_two)
    got = []
    while True:
        answer = await client.sync({}, token, wait_ms=0)
        token = answer["next"]
        if not numbers(answer) and len(got) == 5:
            break
        assert len(numbers(answer)) <= 2
        got += numbers(answer)
    assert got == [0, 1, 2, 3, 4]


async def test_an_unknown_session(people, v3):
    alice, bob = people[:2]
    answer = await v3(alice).ask({}, "V3_S999999_0_0_0")
    assert answer.status == 400
    assert answer.json == {"errcode": "M_UNKNOWN_SYNC_SESSION", "error": "Session unknown or expired"}
    foreign = (await v3(bob).sync())["next"]
    answer = await v3(alice).ask({}, foreign)
    assert (answer.status, answer.errcode) == (400, "M_UNKNOWN_SYNC_SESSION")


async def test_a_filter_of_another_session(people, room_id, v3):
    client = v3(people[0])
    one = (await client.sync({"typing": {"room_id": room_id}}))["next"]
    other = (await client.sync())["next"]
    parts = other.split("_")
    crossed = "_".join([*parts[:2], one.split("_")[2], *parts[2:]])
    answer = await client.ask({}, crossed)
    assert (answer.status, answer.errcode) == (400, "M_INVALID_PARAM")


async def test_the_list_of_rooms(people, room_id, v3):
    alice = people[0]
    client = v3(alice)
    other = await create(alice, name="Another")
    third = await create(alice, name="Third")
    tag = f"{C}/user/{segment(alice.user_id)}/rooms/{segment(third)}/tags/m.favourite"
    assert (await alice.put(tag, {"order": 0.5})).status == 200

    async def has_come():
        found = await client.sync({"rooms": {"sort": "by_tag"}})
        return len(found["rooms"]["rooms"]) == 3 and bool(found["rooms"]["rooms"][0]["tags"])

    await eventually(has_come)

    async def listed(sort):
        return [room["room_id"] for room in (await client.sync({"rooms": {"sort": sort}}))["rooms"]["rooms"]]

    assert await listed("by_recency") == [third, other, room_id]
    assert await listed("by_name") == [other, room_id, third]
    assert (await listed(["by_tag", "by_name"])) == [third, other, room_id]
    await say(alice, room_id, "hello")

    async def is_first():
        return (await listed("by_recency"))[0] == room_id

    await eventually(is_first)
    first = await client.sync({"rooms": {"p": {"limit": 2}}})
    entry = first["rooms"]["rooms"][0]
    assert (entry["name"], entry["joined_count"]) == ("Room", 4)
    # A page of the snapshot, whatever happens meanwhile.
    await say(alice, other, "later")
    rest = await client.sync({"rooms": {"p": {"since": first["rooms"]["p"]["next"]}}}, first["next"])
    assert [room["room_id"] for room in rest["rooms"]["rooms"]] == [other]
    assert "next" not in rest["rooms"]["p"]

    async def has_changed():
        delta = await client.sync({}, first["next"])
        return [room["room_id"] for room in delta["rooms"]["rooms"]] == [other]

    await eventually(has_changed)
    await do(alice, third, "leave")

    async def has_gone():
        return (await client.sync({}, first["next"]))["rooms"].get("del_rooms") == [third]

    await eventually(has_gone)


async def test_account_data(people, room_id, v3):
    alice = people[0]
    client = v3(alice)
    user = f"{C}/user/{segment(alice.user_id)}"
    assert (await alice.put(f"{user}/account_data/org.a", {"n": 1})).status == 200
    assert (await alice.put(f"{user}/rooms/{segment(room_id)}/account_data/org.b", {"n": 2})).status == 200
    mine = {"type": "org.a", "content": {"n": 1}}
    of_room = {"type": "org.b", "content": {"n": 2}, "room_id": room_id}

    async def has_come():
        events = (await client.sync({"account_data": {}}))["account_data"]["events"]
        return mine in events and of_room in events

    await eventually(has_come)
    answer = await client.sync({"account_data": {}})
    token = answer["next"]
    assert (await client.sync({}, token))["account_data"]["events"] == []
    waiting = asyncio.create_task(client.sync({}, token, wait_ms=10_000))
    await asyncio.sleep(0.05)
    assert (await alice.put(f"{user}/account_data/org.a", {"n": 3})).status == 200
    changed = (await asyncio.wait_for(waiting, 5))["account_data"]["events"]
    assert changed == [{"type": "org.a", "content": {"n": 3}}]
    only = await client.sync({"account_data": {"room_id": room_id}}, token)
    assert only["account_data"]["events"] == [of_room]


async def test_rooms_of_others_stay_closed(people, v3):
    alice, bob = people[:2]
    room_id = await create(alice)
    body = {"room_members": {"room_id": room_id}, "typing": {"room_id": room_id}}
    await typing(alice, room_id)
    assert list(await v3(bob).sync(body)) == ["next"]
    body = {"room_members": {"room_id": "!nowhere:test"}}
    assert list(await v3(bob).sync(body)) == ["next"]
