"""What only this homeserver can show: classic sync beside sync v3, sessions that expire, being switched off."""

import asyncio

import pytest

from ranvier.historical.sync_v3.sessions import DAY_MS, IDLE_MS, MAX_SESSIONS
from ranvier.store.tables.sync_v3_sessions import MAX_FILTERS, delete_unused_sessions
from ranvier.store.tables.to_device import list_messages

from ...http.homeserver import eventually
from ...http.rooms import C, create, do
from .client import PATH, V3, names
from .test_scenarios import numbers, send_to


@pytest.fixture
async def alice(homeserver):
    return await homeserver.register("alice")


@pytest.fixture
async def bob(homeserver):
    return await homeserver.register("bob")


async def classic(user, since=None):
    answer = await user.get(PATH, since=since, timeout=0)
    assert answer.status == 200, answer.body
    found = answer.json
    return [one["content"]["n"] for one in found.get("to_device", {}).get("events", [])], found["next_batch"]


async def count_stored(homeserver, user):
    def read(txn):
        (nid,) = txn.first("SELECT device_nid FROM devices WHERE device_id = :id", id=user.device_id)
        return len(list_messages(txn, nid, 0, txn.position, 1000))

    return await homeserver.foundation.ports.db.read(read)


async def test_classic_sync_counts_as_one_more_session(homeserver, alice, bob):
    client = V3(bob)
    _, since = await classic(bob)
    await classic(bob, since)
    token = (await client.sync({"to_device": {}}))["next"]
    await send_to(alice, bob, 1)

    async def has_come():
        return numbers(await client.sync({}, token)) == [1]

    await eventually(has_come)
    answer = await client.sync({}, token)
    assert numbers(await client.sync({}, answer["next"])) == []
    # Sync v3 has it and said so; classic sync still gets it, and says so.
    found, after = await classic(bob, since)
    assert found == [1]
    assert await count_stored(homeserver, bob) == 1
    assert (await classic(bob, after))[0] == []

    async def is_gone():
        return await count_stored(homeserver, bob) == 0

    await eventually(is_gone)


async def test_sync_v3_keeps_what_classic_sync_has_got(homeserver, alice, bob):
    client = V3(bob)
    token = (await client.sync({"to_device": {}}))["next"]
    await send_to(alice, bob, 1)

    async def has_come():
        return (await classic(bob))[0] == [1]

    await eventually(has_come)
    _, since = await classic(bob)
    await classic(bob, since)
    await asyncio.sleep(0.1)
    answer = await client.sync({}, token)
    assert numbers(answer) == [1]
    await client.sync({}, answer["next"])
    assert await count_stored(homeserver, bob) == 0


async def test_an_abandoned_session_does_not_keep_messages_for_ever(homeserver, alice, bob):
    client = V3(bob)
    await client.sync({"to_device": {}})
    used = (await client.sync({"to_device": {}}))["next"]
    await send_to(alice, bob, 1)

    async def has_come():
        return numbers(await client.sync({}, used)) == [1]

    await eventually(has_come)
    after = (await client.sync({}, used))["next"]
    homeserver.clock.ahead_ms += IDLE_MS - DAY_MS
    await client.sync({}, after)
    assert await count_stored(homeserver, bob) == 1
    homeserver.clock.ahead_ms += 2 * DAY_MS
    await client.sync({}, after)
    assert await count_stored(homeserver, bob) == 0


async def test_a_session_expires(homeserver, alice):
    client = V3(alice)
    token = (await client.sync())["next"]
    homeserver.clock.ahead_ms += IDLE_MS + 1
    answer = await client.ask({}, token)
    assert (answer.status, answer.errcode) == (400, "M_UNKNOWN_SYNC_SESSION")
    await client.sync()
    db, now_ms = homeserver.foundation.ports.db, homeserver.clock.now_ms()
    assert await db.write(delete_unused_sessions, now_ms + 1, 100) >= 1


async def test_a_device_has_a_few_sessions_and_loses_the_longest_unused(alice):
    client = V3(alice)
    tokens = [(await client.sync())["next"] for _ in range(MAX_SESSIONS)]
    await client.sync({}, tokens[0])
    await asyncio.sleep(0.002)
    await client.sync({}, tokens[0])
    await client.sync()
    assert (await client.ask({}, tokens[0])).status == 200
    assert (await client.ask({}, tokens[1])).errcode == "M_UNKNOWN_SYNC_SESSION"
    assert (await client.ask({}, tokens[2])).status == 200


async def test_requests_of_a_session_are_remembered_up_to_a_number(alice):
    client = V3(alice)
    first = (await client.sync({"to_device": {"limit": 1}}))["next"]
    token = first
    for limit in range(2, MAX_FILTERS + 3):
        token = (await client.sync({"to_device": {"limit": limit}}, token))["next"]
    assert (await client.sync({}, token))["to_device"]["limit"] == MAX_FILTERS + 2
    assert (await client.ask({}, first)).errcode == "M_INVALID_PARAM"


async def test_an_old_token_still_means_the_old_request(alice):
    client = V3(alice)
    old = (await client.sync({"to_device": {"limit": 7}, "rooms": {}}))["next"]
    new = (await client.sync({"to_device": {"limit": 9}, "rooms": None}, old))["next"]
    answer = await client.sync({}, new)
    assert answer["to_device"]["limit"] == 9
    assert "rooms" not in answer
    answer = await client.sync({}, old)
    assert answer["to_device"]["limit"] == 7
    assert "rooms" in answer
    # null takes a parameter back, too.
    assert (await client.sync({"to_device": {"limit": None}}, old))["to_device"]["limit"] == 100


async def test_a_second_device_has_messages_and_sessions_of_its_own(homeserver, alice, bob):
    phone = await homeserver.login("bob")
    token = (await V3(bob).sync({"to_device": {}}))["next"]
    assert (await V3(phone).ask({}, token)).errcode == "M_UNKNOWN_SYNC_SESSION"
    await send_to(alice, bob, 1)

    async def has_come():
        return numbers(await V3(bob).sync({}, token)) == [1]

    await eventually(has_come)
    assert numbers(await V3(phone).sync({"to_device": {}})) == []


async def test_a_new_access_token_of_the_same_device_goes_on(homeserver, bob):
    token = (await V3(bob).sync({"to_device": {}}))["next"]
    again = await homeserver.login("bob", device_id=bob.device_id)
    assert (await V3(again).ask({}, token)).status == 200


async def test_who_left_sees_no_more(alice, bob):
    room_id = await create(alice, preset="public_chat")
    await do(bob, room_id, "join")
    client = V3(bob)
    body = {"room_members": {"room_id": room_id}}
    token = (await client.sync(body))["next"]
    await do(bob, room_id, "leave")
    assert "room_members" not in await client.sync({}, token)
    await do(bob, room_id, "join")
    # Back again: what went on meanwhile is told as a first page.
    assert "p" in (await client.sync({}, token))["room_members"]
    # The snapshot of the old token is from before this stay.
    assert "room_members" not in await client.sync({"room_members": {"p": {"since": "2"}}}, token)


async def test_changes_are_cut_at_the_limit_and_go_on(homeserver, alice):
    room_id = await create(alice, preset="public_chat")
    client = V3(alice)
    body = {"room_members": {"room_id": room_id, "limit": 2}, "account_data": {}, "rooms": {}}
    token = (await client.sync(body))["next"]
    for name in "bcdef":
        await do(await homeserver.register(name), room_id, "join")
    got = []
    while len(got) < 5:
        answer = await client.sync({}, token, wait_ms=5_000)
        assert len(answer["room_members"]["events"]) <= 2
        got += names(answer["room_members"])
        token = answer["next"]
    assert got == ["@b", "@c", "@d", "@e", "@f"]
    answer = await client.sync({}, token)
    assert answer["room_members"]["events"] == answer["rooms"]["rooms"] == []


async def test_a_long_poll_ends_when_the_server_stops(homeserver, alice):
    client = V3(alice)
    token = (await client.sync({"to_device": {}}))["next"]
    waiting = asyncio.create_task(client.sync({}, token, wait_ms=60_000))
    await asyncio.sleep(0.05)
    homeserver.foundation.waiters.close()
    assert await asyncio.wait_for(waiting, 5) == {"next": token}


async def test_it_is_off_by_default(start_homeserver):
    homeserver = await start_homeserver()
    alice = await homeserver.register("alice")
    answer = await alice.post(PATH, {})
    assert (answer.status, answer.errcode) == (405, "M_UNRECOGNIZED")


async def test_a_get_is_the_classic_sync(alice):
    answer = await alice.get(PATH)
    assert answer.status == 200
    assert "next_batch" in answer.json
    assert (await alice.put(PATH, {})).status == 405


async def test_the_path_of_before_v1_1(alice):
    answer = await alice.post("/_matrix/client/r0/sync", {})
    assert answer.status == 200
    assert f"{C}/sync" == PATH
