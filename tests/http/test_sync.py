"""Syncing: what clients are told, first and later. That nothing is lost on the way: test_sync_equivalent."""

import asyncio
import json
import time

import pytest

from ranvier.store.tables.device_lists import insert_device_change

from .client import segment
from .rooms import C, create, do, say, set_state


async def sync(user, since=None, set_presence="offline", **query):
    """The answer; nobody is shown as online unless the test is about that."""
    answer = await user.get(f"{C}/sync", since=since, set_presence=set_presence, **query)
    assert answer.status == 200, answer.body
    return answer.json


async def begin(user, **query):
    """The token of a client that has seen all there is."""
    return (await sync(user, **query))["next_batch"]


def as_filter(**parts):
    return json.dumps({"room": parts})


def bodies(section):
    return [event["content"].get("body", event["type"]) for event in section["timeline"]["events"]]


def slots(events):
    return {(event["type"], event["state_key"]) for event in events}


def joined(told, room):
    return told.get("rooms", {}).get("join", {}).get(room)


@pytest.fixture
async def room(alice, bob):
    """Public, of alice and bob."""
    room_id = await create(alice, preset="public_chat")
    await do(bob, room_id, "join")
    return room_id


async def test_a_message_reaches_who_waits(alice, bob, room):
    since = await begin(bob)
    waiting = asyncio.create_task(sync(bob, since, timeout=10_000))
    await asyncio.sleep(0)
    await say(alice, room, "hello")
    told = await waiting
    assert bodies(joined(told, room)) == ["hello"]
    assert "rooms" not in await sync(bob, told["next_batch"])


async def test_who_asks_wrongly_is_told_so(homeserver, alice):
    for query in (
        {"since": "x"},
        {"since": "t5"},
        {"timeout": "soon"},
        {"full_state": "yes"},
        {"use_state_after": "1"},
        {"set_presence": "asleep"},
        {"filter": "17"},
    ):
        answer = await alice.get(f"{C}/sync", **query)
        assert (answer.status, answer.errcode) == (400, "M_INVALID_PARAM"), query
    assert (await alice.get(f"{C}/sync", filter="{")).errcode == "M_NOT_JSON"
    assert (await alice.get(f"{C}/sync", filter='{"room":7}')).errcode == "M_BAD_JSON"
    assert (await homeserver.client.get(f"{C}/sync")).errcode == "M_MISSING_TOKEN"
    assert (await alice.as_user("wrong").get(f"{C}/sync")).errcode == "M_UNKNOWN_TOKEN"


async def test_a_timeline_that_is_cut_goes_on_in_messages(alice, bob, room):
    limit = as_filter(timeline={"limit": 2})
    since = await begin(bob, filter=limit)
    for number in range(5):
        await say(alice, room, f"m{number}")
    section = joined(await sync(bob, since, filter=limit), room)
    assert section["timeline"]["limited"] is True
    assert bodies(section) == ["m3", "m4"]
    page = await bob.get(
        f"{C}/rooms/{segment(room)}/messages", dir="b", limit=3, **{"from": section["timeline"]["prev_batch"]}
    )
    assert [event["content"]["body"] for event in page.json["chunk"]] == ["m2", "m1", "m0"]


async def test_state_in_a_gap_is_told_where_the_client_expects_it(alice, bob, room):
    limit = as_filter(timeline={"limit": 1})
    since = await begin(bob, filter=limit)
    await set_state(alice, room, "m.room.name", {"name": "in the gap"})
    await set_state(alice, room, "m.room.topic", {"topic": "in the timeline"})
    section = joined(await sync(bob, since, filter=limit), room)
    assert slots(section["state"]["events"]) == {("m.room.name", "")}
    after = joined(await sync(bob, since, filter=limit, use_state_after="true"), room)
    assert "state" not in after
    assert slots(after["state_after"]["events"]) == {("m.room.name", ""), ("m.room.topic", "")}
    unstable = "org.matrix.msc4222"
    early = joined(await sync(bob, since, filter=limit, **{f"{unstable}.use_state_after": "true"}), room)
    assert early[f"{unstable}.state_after"] == after["state_after"]


async def test_full_state_answers_at_once_with_all_state(alice, bob, room):
    since = await begin(bob)
    told = await sync(bob, since, full_state="true", timeout=30_000)
    section = joined(told, room)
    assert section["timeline"]["events"] == []
    assert {("m.room.create", ""), ("m.room.member", alice.user_id)} <= slots(section["state"]["events"])


async def test_a_room_that_is_new_comes_with_everything(alice, bob):
    since = await begin(bob)
    room = await create(alice, preset="public_chat", name="new")
    await do(bob, room, "join")
    section = joined(await sync(bob, since), room)
    assert section["timeline"]["limited"] is True
    assert section["summary"] == {"m.joined_member_count": 2, "m.invited_member_count": 0}
    events = [*section["state"]["events"], *section["timeline"]["events"]]
    assert ("m.room.name", "") in slots(event for event in events if "state_key" in event)


@pytest.mark.parametrize("visibility", ["joined", "invited"])
async def test_who_joins_is_not_told_what_was_before_unless_allowed(alice, bob, visibility):
    room = await create(alice, preset="public_chat")
    await set_state(alice, room, "m.room.history_visibility", {"history_visibility": visibility})
    await say(alice, room, "secret")
    await set_state(alice, room, "m.room.topic", {"topic": "of before"})
    since = await begin(bob)
    await do(bob, room, "join")
    await say(alice, room, "hello")
    for told in (await sync(bob, since), await sync(bob)):
        section = joined(told, room)
        assert "secret" not in bodies(section)
        assert bodies(section)[-1] == "hello"
        assert ("m.room.topic", "") in slots(section["state"]["events"])
        assert section["timeline"]["events"][-1]["unsigned"]["membership"] == "join"


async def test_heroes_name_a_room_without_name(alice, bob, room):
    assert joined(await sync(bob), room)["summary"]["m.heroes"] == [alice.user_id]
    since = await begin(bob)
    await say(alice, room, "hello")
    assert "summary" not in joined(await sync(bob, since), room)
    await do(alice, room, "leave")
    summary = joined(await sync(bob, since), room)["summary"]
    assert summary == {"m.heroes": [alice.user_id], "m.joined_member_count": 1, "m.invited_member_count": 0}


async def test_invites_show_the_room_unless_the_inviter_is_ignored(homeserver, alice, bob):
    carol = await homeserver.register("carol")
    since = await begin(bob)
    room = await create(alice, name="club", invite=[bob.user_id])
    told = await sync(bob, since)
    stripped = told["rooms"]["invite"][room]["invite_state"]["events"]
    wanted = {("m.room.create", ""), ("m.room.name", ""), ("m.room.member", bob.user_id)}
    assert wanted <= slots(stripped)
    *others, own = stripped
    assert all(event.keys() == {"content", "sender", "state_key", "type"} for event in others)
    # Clients sort invites by when they came, and show it.
    assert own["event_id"].startswith("$")
    assert abs(own["origin_server_ts"] / 1000 - time.time()) < 60
    assert room in (await sync(bob))["rooms"]["invite"]
    ignored = {"ignored_users": {carol.user_id: {}}}
    path = f"{C}/user/{segment(bob.user_id)}/account_data/m.ignored_user_list"
    assert (await bob.put(path, ignored)).status == 200
    since = await begin(bob)
    await create(carol, invite=[bob.user_id])
    assert "rooms" not in await sync(bob, since)


async def test_a_rejected_invite_is_taken_away(alice, bob):
    room = await create(alice, invite=[bob.user_id])
    since = await begin(bob)
    await do(bob, room, "leave")
    section = (await sync(bob, since))["rooms"]["leave"][room]
    assert [event["state_key"] for event in section["timeline"]["events"]] == [bob.user_id]
    assert section["state"]["events"] == []
    after = (await sync(bob, since, use_state_after="true"))["rooms"]["leave"][room]
    assert slots(after["state_after"]["events"]) == {("m.room.member", bob.user_id)}


async def test_who_knocks_sees_what_they_knock_on(alice, bob):
    rules = [{"type": "m.room.join_rules", "state_key": "", "content": {"join_rule": "knock"}}]
    room = await create(alice, initial_state=rules)
    since = await begin(bob)
    answer = await bob.post(f"{C}/knock/{segment(room)}", {})
    assert answer.status == 200, answer.body
    stripped = (await sync(bob, since))["rooms"]["knock"][room]["knock_state"]["events"]
    assert ("m.room.create", "") in slots(stripped)


async def test_who_leaves_is_told_up_to_there(alice, bob, room):
    since = await begin(bob)
    await say(alice, room, "bye")
    await do(alice, room, "kick", user_id=bob.user_id)
    await say(alice, room, "gone?")
    told = await sync(bob, since)
    assert joined(told, room) is None
    section = told["rooms"]["leave"][room]
    assert bodies(section) == ["bye", "m.room.member"]
    assert "rooms" not in await sync(bob, told["next_batch"])
    assert "rooms" not in await sync(bob)
    archived = (await sync(bob, filter=as_filter(include_leave=True)))["rooms"]["leave"][room]
    assert bodies(archived)[-1] == "m.room.member"
    assert "gone?" not in bodies(archived)
    await do(bob, room, "forget")
    assert "rooms" not in await sync(bob, filter=as_filter(include_leave=True))


async def test_who_comes_back_is_told_everything_anew(alice, bob, room):
    since = await begin(bob)
    await do(bob, room, "leave")
    await set_state(alice, room, "m.room.name", {"name": "meanwhile"})
    await do(bob, room, "join")
    section = joined(await sync(bob, since, filter=as_filter(timeline={"limit": 1})), room)
    assert section["timeline"]["limited"] is True
    assert ("m.room.name", "") in slots(section["state"]["events"])


async def test_the_sending_device_alone_gets_the_transaction_id(homeserver, alice, bob, room):
    phone = await homeserver.login("alice")
    clients = (alice, phone, bob)
    tokens = [await begin(client) for client in clients]
    await say(alice, room, "hello", "txn1")
    told = [joined(await sync(client, since), room) for client, since in zip(clients, tokens, strict=True)]
    told += [joined(await sync(client), room) for client in clients]
    ids = [section["timeline"]["events"][-1]["unsigned"].get("transaction_id") for section in told]
    assert ids == ["txn1", None, None, "txn1", None, None]


async def test_a_changed_state_event_says_what_it_replaced(alice, bob, room):
    first = await set_state(alice, room, "m.room.name", {"name": "one"})
    since = await begin(bob)
    await set_state(alice, room, "m.room.name", {"name": "two"})
    (event,) = joined(await sync(bob, since), room)["timeline"]["events"]
    assert event["unsigned"]["replaces_state"] == first
    assert event["unsigned"]["prev_content"] == {"name": "one"}
    assert event["unsigned"]["age"] >= 0


async def test_a_redacted_event_is_told_without_its_content(alice, bob, room):
    event_id = await say(alice, room, "secret")
    assert "secret" in bodies(joined(await sync(bob), room))
    path = f"{C}/rooms/{segment(room)}/redact/{segment(event_id)}/r"
    assert (await alice.put(path, {})).status == 200
    events = {event["event_id"]: event for event in joined(await sync(bob), room)["timeline"]["events"]}
    assert events[event_id]["content"] == {}
    assert events[event_id]["unsigned"]["redacted_because"]["type"] == "m.room.redaction"
    federation = json.dumps({"event_format": "federation"})
    raw = joined(await sync(bob, filter=federation), room)["timeline"]["events"]
    assert raw[-2]["content"] == {}
    assert "secret" not in json.dumps(raw)


async def test_what_ignored_users_say_is_not_told_but_their_state_is(alice, bob, room):
    path = f"{C}/user/{segment(bob.user_id)}/account_data/m.ignored_user_list"
    assert (await bob.put(path, {"ignored_users": {alice.user_id: {}}})).status == 200
    since = await begin(bob)
    await say(alice, room, "listen!")
    await set_state(alice, room, "m.room.name", {"name": "mine"})
    for told in (await sync(bob, since), await sync(bob)):
        assert "listen!" not in bodies(joined(told, room))
        assert "m.room.name" in bodies(joined(told, room))


async def test_account_data_is_told_once_and_deletions_as_empty(alice, room):
    path = f"{C}/user/{segment(alice.user_id)}"
    since = await begin(alice)
    await alice.put(f"{path}/account_data/test", {"a": 1})
    await alice.put(f"{path}/rooms/{segment(room)}/account_data/test", {"b": 2})
    told = await sync(alice, since)
    assert told["account_data"]["events"] == [{"type": "test", "content": {"a": 1}}]
    assert joined(told, room)["account_data"]["events"] == [{"type": "test", "content": {"b": 2}}]
    assert joined(told, room)["timeline"]["events"] == []
    assert "account_data" not in await sync(alice, told["next_batch"])
    types = [event["type"] for event in (await sync(alice))["account_data"]["events"]]
    assert sorted(types) == ["m.push_rules", "test"]


@pytest.mark.parametrize("is_threaded_last", [True, False])
async def test_a_receipt_without_a_thread_hides_one_in_a_thread(alice, bob, room, is_threaded_last):
    root = await say(alice, room, "root")
    content = {
        "msgtype": "m.text",
        "body": "reply",
        "m.relates_to": {"rel_type": "m.thread", "event_id": root},
    }
    reply = (await alice.put(f"{C}/rooms/{room}/send/m.room.message/reply", content)).json["event_id"]
    bodies = [{}, {"thread_id": root}]
    for body in bodies if is_threaded_last else bodies[::-1]:
        assert (await bob.post(f"{C}/rooms/{room}/receipt/m.read/{reply}", body)).status == 200
    (event,) = (await alice.get(f"{C}/sync")).json["rooms"]["join"][room]["ephemeral"]["events"]
    assert event["content"][reply]["m.read"][bob.user_id].keys() == {"ts"}


async def test_private_receipts_are_told_to_their_owner_alone(homeserver, alice, bob, room):
    event_id = await say(alice, room, "hello")
    phone = await homeserver.login("bob")
    clients = (alice, bob, phone)
    tokens = [await begin(client) for client in clients]
    path = f"{C}/rooms/{segment(room)}/receipt"
    assert (await bob.post(f"{path}/m.read.private/{segment(event_id)}", {})).status == 200
    told = [joined(await sync(client, since), room) for client, since in zip(clients, tokens, strict=True)]
    assert told[0] is None
    for section in told[1:]:
        (event,) = section["ephemeral"]["events"]
        assert event["content"][event_id].keys() == {"m.read.private"}
    assert (await bob.post(f"{path}/m.read/{segment(event_id)}", {"thread_id": "main"})).status == 200
    (event,) = joined(await sync(alice, tokens[0]), room)["ephemeral"]["events"]
    assert event["content"][event_id]["m.read"][bob.user_id]["thread_id"] == "main"
    assert event["content"][event_id].keys() == {"m.read"}


async def test_typing_is_told_when_it_begins_and_ends(alice, bob, room):
    path = f"{C}/rooms/{segment(room)}/typing/{segment(alice.user_id)}"
    since = await begin(bob)
    for is_typing, users in ((True, [alice.user_id]), (False, [])):
        await alice.put(path, {"typing": is_typing, **({"timeout": 30_000} if is_typing else {})})
        told = await sync(bob, since)
        since = told["next_batch"]
        (event,) = joined(told, room)["ephemeral"]["events"]
        assert event == {"type": "m.typing", "content": {"user_ids": users}}


async def test_presence_reaches_who_shares_a_room(homeserver, alice, bob, room):
    carol = await homeserver.register("carol")
    since, other = await begin(bob), await begin(carol)
    path = f"{C}/presence/{segment(alice.user_id)}/status"
    assert (await alice.put(path, {"presence": "online", "status_msg": "hi"})).status == 200
    events = (await sync(bob, since))["presence"]["events"]
    assert [event["sender"] for event in events] == [alice.user_id]
    assert events[0]["content"]["status_msg"] == "hi"
    assert "presence" not in await sync(carol, other)
    assert [event["sender"] for event in (await sync(bob))["presence"]["events"]] == [alice.user_id]


async def test_who_joins_sees_who_is_there_and_is_seen(homeserver, alice, bob, room):
    carol = await homeserver.register("carol")
    for user in (alice, carol):
        path = f"{C}/presence/{segment(user.user_id)}/status"
        assert (await user.put(path, {"presence": "online"})).status == 200
    since, hers = await begin(bob), await begin(carol)
    await do(carol, room, "join")
    events = (await sync(carol, hers))["presence"]["events"]
    assert alice.user_id in {event["sender"] for event in events}
    events = (await sync(bob, since))["presence"]["events"]
    assert {event["sender"] for event in events} == {carol.user_id}


async def test_messages_to_a_device_come_until_they_are_acknowledged(alice, bob):
    since = await begin(bob)
    body = {"messages": {bob.user_id: {bob.device_id: {"n": 1}}}}
    assert (await alice.put(f"{C}/sendToDevice/m.test/1", body)).status == 200
    expected = [{"type": "m.test", "sender": alice.user_id, "content": {"n": 1}}]
    told = await sync(bob, since)
    assert told["to_device"]["events"] == expected
    assert (await sync(bob, since))["to_device"]["events"] == expected
    assert "to_device" not in await sync(bob, told["next_batch"])
    # Writes take effect in their order: behind this one, what was acknowledged is deleted.
    await alice.put(f"{C}/user/{segment(alice.user_id)}/account_data/test", {})
    assert "to_device" not in await sync(bob)


async def test_many_messages_to_a_device_come_in_parts(homeserver, alice, bob, room):
    since = await begin(bob)
    for number in range(510):
        body = {"messages": {bob.user_id: {bob.device_id: {"n": number}}}}
        await alice.put(f"{C}/sendToDevice/m.test/{number}", body)
        if number == 505:
            await say(alice, room, "late")
    first = await sync(bob, since)
    assert joined(first, room) is None, "it came after the last message of this part"
    second = await sync(bob, first["next_batch"])
    assert bodies(joined(second, room)) == ["late"]
    events = [*first["to_device"]["events"], *second["to_device"]["events"]]
    assert [event["content"]["n"] for event in events] == list(range(510))


async def test_key_counts_are_in_every_answer_and_a_claim_wakes_the_device(alice, bob):
    path = f"{C}/keys"
    one_time = {f"signed_curve25519:{name}": {"key": name, "signatures": {}} for name in "AB"}
    fallback = {"signed_curve25519:F": {"key": "F", "fallback": True, "signatures": {}}}
    answer = await bob.post(f"{path}/upload", {"one_time_keys": one_time, "fallback_keys": fallback})
    assert answer.status == 200, answer.body
    told = await sync(bob)
    assert told["device_one_time_keys_count"] == {"signed_curve25519": 2}
    assert told["device_unused_fallback_key_types"] == ["signed_curve25519"]
    waiting = asyncio.create_task(sync(bob, told["next_batch"], timeout=30_000))
    await asyncio.sleep(0)
    claim = {"one_time_keys": {bob.user_id: {bob.device_id: "signed_curve25519"}}}
    assert (await alice.post(f"{path}/claim", claim)).status == 200
    assert (await waiting)["device_one_time_keys_count"] == {"signed_curve25519": 1}


async def change_devices(homeserver, user):
    """As if the user had uploaded other keys."""
    db, interner = homeserver.foundation.ports.db, homeserver.foundation.interner
    await db.write(lambda txn: insert_device_change(txn, interner.users.number(user.user_id), None))


async def test_changed_devices_wake_those_who_share_a_room(homeserver, alice, bob, room):
    carol = await homeserver.register("carol")
    since, other = await begin(bob), await begin(carol)
    waiting = asyncio.create_task(sync(bob, since, timeout=30_000))
    await asyncio.sleep(0)
    await change_devices(homeserver, alice)
    assert (await waiting)["device_lists"] == {"changed": [alice.user_id], "left": []}
    assert "device_lists" not in await sync(carol, other)


async def test_who_comes_and_who_goes_is_in_device_lists(homeserver, alice, bob, room):
    carol = await homeserver.register("carol")
    since, hers = await begin(bob), await begin(carol)
    await do(carol, room, "join")
    told = await sync(bob, since)
    assert told["device_lists"] == {"changed": [carol.user_id], "left": []}
    lists = (await sync(carol, hers))["device_lists"]
    assert {alice.user_id, bob.user_id} <= set(lists["changed"])
    await do(carol, room, "leave")
    assert (await sync(bob, told["next_batch"]))["device_lists"] == {"changed": [], "left": [carol.user_id]}


async def test_members_are_loaded_with_what_they_say_and_once(homeserver, alice, bob, room):
    lazy = as_filter(state={"lazy_load_members": True}, timeline={"limit": 1})
    carol = await homeserver.register("carol")
    await do(carol, room, "join")
    await say(alice, room, "one")
    told = await sync(bob, filter=lazy)
    members = {key for kind, key in slots(joined(told, room)["state"]["events"]) if kind == "m.room.member"}
    assert {alice.user_id, bob.user_id} <= members
    await say(alice, room, "two")
    again = await sync(bob, told["next_batch"], filter=lazy)
    assert joined(again, room)["state"]["events"] == [], "alice is known"
    repeated = await sync(bob, told["next_batch"], filter=lazy)
    assert joined(repeated, room)["state"]["events"] == [], "whether or not the answer was lost"
    redundant = as_filter(
        state={"lazy_load_members": True, "include_redundant_members": True}, timeline={"limit": 1}
    )
    told = await sync(bob, filter=redundant)
    await say(alice, room, "three")
    section = joined(await sync(bob, told["next_batch"], filter=redundant), room)
    assert slots(section["state"]["events"]) == {("m.room.member", alice.user_id)}


async def test_a_lost_answer_leaves_no_member_behind(homeserver, alice, bob, room):
    lazy = as_filter(state={"lazy_load_members": True}, timeline={"limit": 1})
    carol = await homeserver.register("carol")
    await do(carol, room, "join")
    await say(alice, room, "one")
    for _ in range(6):
        member = await homeserver.register(f"m{_}")
        await do(member, room, "join")
    await say(alice, room, "two")
    since = await begin(bob, filter=lazy)
    await say(member, room, "lost")
    lost = await sync(bob, since, filter=lazy)
    assert ("m.room.member", member.user_id) in slots(joined(lost, room)["state"]["events"])
    await say(alice, room, "newer")
    told = await sync(bob, since, filter=lazy)
    await say(member, room, "again")
    section = joined(await sync(bob, told["next_batch"], filter=lazy), room)
    assert ("m.room.member", member.user_id) in slots(section["state"]["events"])


async def test_filters_decide_what_is_told(alice, bob, room):
    other = await create(bob)
    await say(alice, room, "hello")
    await set_state(alice, room, "m.room.name", {"name": "named"})
    only_rooms = await sync(bob, filter=as_filter(rooms=[room]))
    assert only_rooms["rooms"]["join"].keys() == {room}
    not_rooms = await sync(bob, filter=as_filter(not_rooms=[room]))
    assert not_rooms["rooms"]["join"].keys() == {other}
    messages = joined(await sync(bob, filter=as_filter(timeline={"types": ["m.room.message"]})), room)
    assert bodies(messages) == ["hello"]
    assert ("m.room.name", "") in slots(messages["state"]["events"]), "state that the timeline leaves out"
    nothing = joined(await sync(bob, filter=as_filter(timeline={"types": []}, state={"types": []})), room)
    assert nothing["timeline"]["events"] == nothing["state"]["events"] == []
    fields = joined(await sync(bob, filter=json.dumps({"event_fields": ["content.body"]})), room)
    assert {"content": {"body": "hello"}} in fields["timeline"]["events"]
    raw = joined(await sync(bob, filter=json.dumps({"event_format": "federation"})), room)
    assert {"auth_events", "depth", "hashes", "prev_events"} <= raw["timeline"]["events"][-1].keys()
    answer = await bob.post(f"{C}/user/{segment(bob.user_id)}/filter", {"room": {"rooms": [other]}})
    stored = await sync(bob, filter=answer.json["filter_id"])
    assert stored["rooms"]["join"].keys() == {other}


async def test_unread_counts_rise_and_fall(alice, bob, room):
    since = await begin(bob)
    event_id = await say(alice, room, "hello")
    told = await sync(bob, since)
    assert joined(told, room)["unread_notifications"] == {"highlight_count": 0, "notification_count": 1}
    await bob.post(f"{C}/rooms/{segment(room)}/receipt/m.read/{segment(event_id)}", {})
    section = joined(await sync(bob, told["next_batch"]), room)
    assert section["unread_notifications"] == {"highlight_count": 0, "notification_count": 0}


async def test_threads_are_counted_apart_where_asked(alice, bob, room):
    apart = as_filter(timeline={"unread_thread_notifications": True})
    since = await begin(bob, filter=apart)
    root = await say(alice, room, "root")
    relation = {"rel_type": "m.thread", "event_id": root}
    path = f"{C}/rooms/{segment(room)}/send/m.room.message/reply"
    await alice.put(path, {"body": "reply", "msgtype": "m.text", "m.relates_to": relation})
    section = joined(await sync(bob, since, filter=apart), room)
    assert section["unread_notifications"]["notification_count"] == 1
    assert section["unread_thread_notifications"][root] == {"highlight_count": 0, "notification_count": 1}
    together = joined(await sync(bob, since), room)
    assert together["unread_notifications"]["notification_count"] == 2
    assert "unread_thread_notifications" not in together


async def test_relations_are_bundled_into_limited_timelines(alice, bob, room):
    root = await say(alice, room, "root")
    since = await begin(bob)
    edit = {
        "body": "* new",
        "m.new_content": {"body": "new", "msgtype": "m.text"},
        "m.relates_to": {"rel_type": "m.replace", "event_id": root},
    }
    await alice.put(f"{C}/rooms/{segment(room)}/send/m.room.message/edit", edit)
    assert not joined(await sync(bob, since), room)["timeline"]["limited"]
    section = joined(await sync(bob, filter=as_filter(timeline={"limit": 2})), room)
    assert section["timeline"]["limited"] is True
    event = section["timeline"]["events"][0]
    assert event["unsigned"]["m.relations"]["m.replace"]["content"]["m.new_content"]["body"] == "new"


async def test_clients_follow_on_after_memory_is_lost(homeserver, alice, bob, room):
    """What hints no longer tell, the tables do."""
    since = await begin(bob)
    await say(alice, room, "hello")
    await change_devices(homeserver, alice)
    homeserver.foundation.changes.forget(homeserver.foundation.ports.db.position())
    told = await sync(bob, since)
    assert bodies(joined(told, room)) == ["hello"]
    assert told["device_lists"]["changed"] == [alice.user_id]


async def test_a_token_of_another_process_is_waited_for(homeserver, alice, bob, room):
    since = int((await begin(bob))[1:])
    waiting = asyncio.create_task(sync(bob, f"s{since + 2}", timeout=0))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    for number in range(3):
        await say(alice, room, f"m{number}")
    told = await waiting
    section = joined(told, room)
    assert section is None or not section["state"]["events"], "everything was told again"
    assert "m0" not in (bodies(section) if section else [])


async def test_a_token_from_beyond_is_answered_with_everything(monkeypatch, alice, bob, room):
    monkeypatch.setattr("ranvier.services.changes.CATCH_UP_S", 0.05)
    told = await sync(bob, "s999999")
    assert ("m.room.create", "") in slots(
        joined(told, room)["state"]["events"] + joined(told, room)["timeline"]["events"]
    )
