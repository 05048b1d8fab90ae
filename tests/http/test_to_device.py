"""Messages from device to device: to those that are named, once each, and until they have them."""

import asyncio

import pytest

from ranvier.services.sync.reading import MAX_TO_DEVICE
from ranvier.store.database import Kind
from ranvier.store.tables.devices import find_device
from ranvier.store.tables.interned import find_user_nids
from ranvier.store.tables.to_device import Addressee, delete_acknowledged, insert_messages

C = "/_matrix/client/v3"


async def send(user, txn_id, messages, type_="m.test"):
    answer = await user.put(f"{C}/sendToDevice/{type_}/{txn_id}", {"messages": messages})
    assert answer.status == 200, answer.body
    assert answer.json == {}


async def receive(user, since=None):
    answer = (await user.get(f"{C}/sync", since=since, timeout=0, set_presence="offline")).json
    return answer.get("to_device", {}).get("events", []), answer["next_batch"]


async def test_a_message_arrives_at_the_devices_that_are_named(homeserver):
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    phone = await homeserver.login("bob", device_id="PHONE")
    await send(alice, "1", {bob.user_id: {"PHONE": {"for": "phone"}, "GONE": {}}, "@nobody:test": {"*": {}}})
    event = {"type": "m.test", "sender": alice.user_id, "content": {"for": "phone"}}
    assert (await receive(phone))[0] == [event]
    assert (await receive(bob))[0] == []


async def test_a_star_means_all_devices_but_those_that_are_named(homeserver):
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    phone = await homeserver.login("bob", device_id="PHONE")
    await send(alice, "1", {bob.user_id: {"*": {"n": 1}, "PHONE": {"n": 2}}})
    assert [event["content"] for event in (await receive(bob))[0]] == [{"n": 1}]
    assert [event["content"] for event in (await receive(phone))[0]] == [{"n": 2}]


async def test_a_message_is_given_again_until_the_token_that_came_with_it_is_used(homeserver):
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    _, before = await receive(bob)
    await send(alice, "1", {bob.user_id: {bob.device_id: {"n": 1}}})
    for _ in range(2):
        events, after = await receive(bob, before)
        assert [event["content"] for event in events] == [{"n": 1}]
    await send(alice, "2", {bob.user_id: {bob.device_id: {"n": 2}}})
    events, _ = await receive(bob, after)
    assert [event["content"] for event in events] == [{"n": 2}]


async def test_a_repeated_request_sends_nothing_more(homeserver):
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    tablet = await homeserver.login("alice")
    message = {bob.user_id: {bob.device_id: {}}}
    for _ in range(2):
        await send(alice, "1", message)
    assert len((await receive(bob))[0]) == 1
    await send(alice, "1", message, type_="m.other")
    await send(tablet, "1", message)
    await send(alice, "2", message)
    assert len((await receive(bob))[0]) == 4


async def test_a_long_queue_arrives_whole_in_order_and_in_parts(homeserver):
    bob = await homeserver.register("bob")
    _, since = await receive(bob)
    count = 2 * MAX_TO_DEVICE + 1

    def fill(txn):
        user_nid, device_nid = txn.first("SELECT user_nid, device_nid FROM devices")
        for number in range(count):
            contents = {Addressee(user_nid, device_nid): b'{"n":%d}' % number}
            insert_messages(txn, "@alice:test", "m.test", contents)

    await homeserver.foundation.ports.db.write(fill)
    arrived = []
    for _ in range(3):
        events, since = await receive(bob, since)
        assert len(events) <= MAX_TO_DEVICE
        arrived += [event["content"]["n"] for event in events]
    assert arrived == list(range(count))
    assert (await receive(bob, since))[0] == []


async def test_a_message_wakes_a_waiting_sync(homeserver):
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    _, since = await receive(bob)
    waiting = asyncio.create_task(bob.get(f"{C}/sync", since=since, timeout=20_000, set_presence="offline"))
    await asyncio.sleep(0)
    await send(alice, "1", {bob.user_id: {"*": {"n": 1}}})
    assert [event["content"] for event in (await waiting).json["to_device"]["events"]] == [{"n": 1}]


async def test_messages_of_a_new_session_are_not_those_of_the_old_device_of_that_name(homeserver):
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    phone = await homeserver.login("bob", device_id="PHONE")
    await send(alice, "1", {bob.user_id: {"PHONE": {}}})
    await phone.post(f"{C}/logout", {})
    phone = await homeserver.login("bob", device_id="PHONE")
    assert (await receive(phone))[0] == []


async def test_for_other_servers_messages_wait_in_the_outbox(homeserver):
    alice = await homeserver.register("alice")
    big = {"@bob:two": {f"D{number}": {"x": "y" * 40_000} for number in range(3)}, "@eve:three": {"*": {}}}
    for _ in range(2):
        await send(alice, "1", big)

    def queued(txn):
        return txn.all(
            "SELECT s.server_name, e.edu_type, e.content FROM outbox o JOIN servers s ON s.server_nid ="
            " o.server_nid JOIN outbox_edus e ON e.position = o.position ORDER BY o.position"
        )

    rows = await homeserver.foundation.ports.db.read(queued)
    assert [row[:2] for row in rows] == [("two", "m.direct_to_device")] * 3 + [
        ("three", "m.direct_to_device")
    ]
    assert all(len(row[2]) < 65_536 for row in rows)


@pytest.mark.parametrize(
    ("body", "status", "errcode"),
    [
        ({}, 400, "M_MISSING_PARAM"),
        ({"messages": []}, 400, "M_BAD_JSON"),
        ({"messages": {"@b:test": []}}, 400, "M_BAD_JSON"),
        ({"messages": {"@b:test": {"D": "x"}}}, 400, "M_BAD_JSON"),
        ({"messages": {"nobody": {}}}, 400, "M_INVALID_PARAM"),
        ({"messages": {"@b:test": {"D": {"x": "y" * 70_000}}}}, 413, "M_TOO_LARGE"),
    ],
)
async def test_what_is_not_understood_is_refused(homeserver, body, status, errcode):
    alice = await homeserver.register("alice")
    refused = await alice.put(f"{C}/sendToDevice/m.test/1", body)
    assert (refused.status, refused.errcode) == (status, errcode)


async def test_names_have_bounds(homeserver):
    alice = await homeserver.register("alice")
    for path in (f"{'t' * 256}/1", f"m.test/{'1' * 256}", "m.test/%00"):
        refused = await alice.put(f"{C}/sendToDevice/{path}", {"messages": {}})
        assert (refused.status, refused.errcode) == (400, "M_INVALID_PARAM")
    await send(alice, "1", {alice.user_id: {"\0": {}}})


@pytest.mark.parametrize(("token", "errcode"), [(None, "M_MISSING_TOKEN"), ("wrong", "M_UNKNOWN_TOKEN")])
async def test_without_a_token(homeserver, token, errcode):
    answer = await homeserver.client.as_user(token).put(f"{C}/sendToDevice/m.test/1", {"messages": {}})
    assert (answer.status, answer.errcode) == (401, errcode)


class Counting:
    """A transaction that counts the rows that it reads."""

    def __init__(self, txn):
        self._txn = txn
        self.rows = 0

    def __getattr__(self, name):
        return getattr(self._txn, name)

    def all(self, sql, /, **params):
        rows = self._txn.all(sql, **params)
        self.rows += len(rows)
        return rows


async def test_ten_thousand_waiting_messages_slow_nobody(homeserver):
    """Neither the device, which gets them in parts, nor others, whose writes come in between when they are deleted."""
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    db, interner = homeserver.foundation.ports.db, homeserver.foundation.interner
    total = 10_000

    def fill(txn):
        user_nid = find_user_nids(txn, interner, [bob.user_id])[bob.user_id]
        device = find_device(txn, user_nid, bob.device_id)
        for first in range(0, total, 1_000):
            rows = [
                {"device_nid": device.device_nid, "position": txn.next_position(), "content": b'{"n":%d}' % n}
                for n in range(first, first + 1_000)
            ]
            txn.execute_many(
                "INSERT INTO to_device_messages (device_nid, position, sender, type, content) "
                "VALUES (:device_nid, :position, '@alice:test', 'm.test', :content)",
                rows,
            )
        txn.hint(Kind.USER, user_nid)
        return device.device_nid

    device_nid = await db.write(fill)
    read = db.read
    counted = []

    def count(txn, fn, *args, **kwargs):
        counting = Counting(txn)
        answer = fn(counting, *args, **kwargs)
        counted.append(counting.rows)
        return answer

    db.read = lambda fn, *args, **kwargs: read(count, fn, *args, **kwargs)
    try:
        since, got = None, []
        for _ in range(3):
            events, since = await receive(bob, since)
            assert len(events) == MAX_TO_DEVICE
            got += [event["content"]["n"] for event in events]
        assert got == list(range(3 * MAX_TO_DEVICE))
        await receive(alice)
    finally:
        del db.read
    assert max(counted) < 2 * MAX_TO_DEVICE

    # Acknowledged all at once: each write deletes a part only.
    def acknowledge(txn):
        return delete_acknowledged(txn, device_nid, txn.position)

    parts = 0
    while (deleted := await db.write(acknowledge)) > 0:
        assert deleted <= 1_000
        parts += 1
    assert parts >= (total - 3 * MAX_TO_DEVICE) / 1_000
