"""Whom events notify, as clients see it: counts, lists, receipts and rules."""

from typing import Any

import pytest

from ranvier.core.identifiers import EventID, RoomID
from ranvier.store.tables import notifications, rooms

from .client import segment
from .homeserver import Homeserver, User
from .scripted_room import Room

RULES = "/_matrix/client/v3/pushrules"


@pytest.fixture
async def room(homeserver: Homeserver, alice: User, bob: User, carol: User) -> Room:
    """Alice's room, which Bob and Carol have joined: three, so that it is no room of two."""
    room = await Room.create(homeserver, alice)
    await room.join(bob)
    await room.join(carol)
    return room


async def unread(homeserver: Homeserver, user: User, room: Room) -> notifications.RoomCounts:
    foundation = homeserver.foundation
    nid = foundation.interner.users.number(user.user_id)
    stored = await foundation.ports.db.read(rooms.find_room, room.room_id)
    found = await foundation.ports.db.read(notifications.list_unread, [nid], [stored.room_nid])
    return found.get((nid, stored.room_nid), notifications.NOTHING_UNREAD)


async def counts(homeserver: Homeserver, user: User, room: Room) -> tuple[int, int]:
    total = (await unread(homeserver, user, room)).total
    return total.notify, total.highlight


def mention(*users: User) -> dict[str, Any]:
    return {"m.mentions": {"user_ids": [user.user_id for user in users]}}


async def read(user: User, room: Room, event_id: EventID, type_: str = "m.read", **body: Any) -> None:
    answer = await user.post(f"{room.path}/receipt/{type_}/{segment(event_id)}", body)
    assert (answer.status, answer.json) == (200, {})


async def test_messages_count_for_all_but_the_sender(homeserver, alice, bob, carol, room):
    await room.say(alice, "one")
    await room.say(alice, "two", **mention(bob))
    assert await counts(homeserver, alice, room) == (0, 0)
    assert await counts(homeserver, bob, room) == (2, 1)
    assert await counts(homeserver, carol, room) == (2, 0)


async def test_sending_reads_what_came_before(homeserver, alice, bob, carol, room):
    await room.say(alice, "one")
    await room.say(bob, "two")
    await room.say(alice, "three")
    assert await counts(homeserver, bob, room) == (1, 0)
    assert await counts(homeserver, carol, room) == (3, 0)


async def test_receipts_read_up_to_their_event(homeserver, alice, bob, carol, room):
    first = await room.say(alice, "one", **mention(bob))
    await room.say(alice, "two", **mention(bob))
    last = await room.say(alice, "three")
    await read(bob, room, first)
    assert await counts(homeserver, bob, room) == (2, 1)
    await read(bob, room, last, "m.read.private")
    assert await counts(homeserver, bob, room) == (0, 0)
    # A receipt behind it does not bring anything back.
    await read(bob, room, first)
    assert await counts(homeserver, bob, room) == (0, 0)
    assert await counts(homeserver, carol, room) == (3, 0)


async def test_what_was_sent_before_joining_does_not_count(homeserver, alice, bob, room):
    dora = await homeserver.register("dora")
    await room.say(alice, "before")
    await room.join(dora)
    await room.say(alice, "after")
    assert await counts(homeserver, dora, room) == (1, 0)
    await room.leave(dora)
    await room.say(alice, "without her")
    assert await counts(homeserver, dora, room) == (0, 0)
    await room.join(dora)
    assert await counts(homeserver, dora, room) == (0, 0)
    await room.say(alice, "with her", **mention(dora))
    assert await counts(homeserver, dora, room) == (1, 1)


async def test_threads_are_counted_apart(homeserver, alice, bob, room):
    root = await room.say(alice, "root")
    reply = await room.relate(alice, root, "m.thread", body="in the thread")
    reaction = {"m.relates_to": {"rel_type": "m.reference", "event_id": reply}}
    indirect = await room.post(alice, "m.room.message", {"msgtype": "m.text", "body": "ref", **reaction})
    found = await unread(homeserver, bob, room)
    assert (found.main.notify, [one.notify for one in found.threads.values()]) == (1, [2])
    await read(bob, room, root, thread_id="main")
    assert (await unread(homeserver, bob, room)).main.notify == 0
    assert await counts(homeserver, bob, room) == (2, 0)
    await read(bob, room, reply, thread_id=root)
    assert await counts(homeserver, bob, room) == (1, 0)
    await read(bob, room, indirect, thread_id=root)
    assert await counts(homeserver, bob, room) == (0, 0)
    await room.relate(alice, root, "m.thread", body="more")
    assert await counts(homeserver, bob, room) == (1, 0)
    await read(bob, room, await room.say(alice, "later"))
    assert await counts(homeserver, bob, room) == (0, 0)


async def test_a_thread_id_has_to_fit_the_event(alice, bob, room):
    root = await room.say(alice, "root")
    reply = await room.relate(alice, root, "m.thread", body="in the thread")
    other = await room.say(alice, "other")

    async def status(event_id: EventID, thread_id: Any, type_: str = "m.read") -> tuple[int, str | None]:
        path = f"{room.path}/receipt/{type_}/{segment(event_id)}"
        answer = await bob.post(path, {"thread_id": thread_id})
        return answer.status, answer.errcode

    refused = (400, "M_INVALID_PARAM")
    assert await status(reply, "main") == refused
    assert await status(other, root) == refused
    assert await status(other, "$nowhere") == refused
    assert await status(other, "") == refused
    assert await status(other, 7) == refused
    assert await status(other, None) == refused
    assert await status(other, "x" * 300) == refused
    assert await status(other, "main", "m.fully_read") == refused
    assert await status(other, "main", "m.unheard_of") == refused
    assert await status(root, root) == (200, None)
    assert await status(root, "main") == (200, None)
    assert await status(reply, root, "m.read.private") == (200, None)


async def test_receipts_are_for_members_and_events_of_the_room(homeserver, alice, bob, room):
    event_id = await room.say(alice, "hello")
    dora = await homeserver.register("dora")
    elsewhere = await Room.create(homeserver, alice)
    other = await elsewhere.say(alice, "elsewhere")
    path = f"{room.path}/receipt/m.read"
    assert (await dora.post(f"{path}/{segment(event_id)}", {})).errcode == "M_FORBIDDEN"
    unknown = await bob.post(f"/_matrix/client/v3/rooms/!no:test/receipt/m.read/{segment(event_id)}", {})
    assert unknown.errcode == "M_FORBIDDEN"
    for missing in (other, EventID("$nothing")):
        answer = await bob.post(f"{path}/{segment(missing)}", {})
        assert (answer.status, answer.errcode) == (404, "M_NOT_FOUND")
    assert (await bob.post(f"{path}/nonsense", {})).errcode == "M_INVALID_PARAM"
    assert (await bob.as_user(None).post(f"{path}/{segment(event_id)}", {})).errcode == "M_MISSING_TOKEN"
    assert (await bob.request("POST", f"{path}/{segment(event_id)}", body=b"")).status == 200


async def test_read_markers(homeserver, alice, bob, room):
    first, second = await room.say(alice, "one"), await room.say(alice, "two")
    path = f"{room.path}/read_markers"
    marker = f"/_matrix/client/v3/user/{bob.user_id}/rooms/{room.room_id}/account_data/m.fully_read"
    assert (await bob.post(path, {"m.fully_read": second, "m.read": first})).json == {}
    assert (await bob.get(marker)).json == {"event_id": second}
    assert await counts(homeserver, bob, room) == (1, 0)
    assert (await bob.post(path, {"m.fully_read": first, "m.read.private": second})).json == {}
    assert (await bob.get(marker)).json == {"event_id": second}
    assert await counts(homeserver, bob, room) == (0, 0)
    assert (await bob.post(path, {})).status == 200
    assert (await bob.post(path, {"m.read": None})).status == 200
    assert (await bob.post(path, {"m.read": 5})).errcode == "M_INVALID_PARAM"
    assert (await bob.post(path, {"m.fully_read": "$nothing"})).errcode == "M_NOT_FOUND"
    third = await room.say(alice, "three")
    assert (await bob.post(f"{room.path}/receipt/m.fully_read/{segment(third)}", {})).status == 200
    assert (await bob.get(marker)).json == {"event_id": third}
    assert await counts(homeserver, bob, room) == (1, 0)


async def test_rules_decide_from_the_next_event_on(homeserver, alice, bob, carol, room):
    await room.say(alice, "counts")
    mute = f"{RULES}/global/room/{segment(room.room_id)}"
    assert (await bob.put(mute, {"actions": []})).json == {}
    await room.say(alice, "muted for Bob")
    await room.say(alice, "a mention goes through", **mention(bob))
    assert await counts(homeserver, bob, room) == (2, 1)
    assert await counts(homeserver, carol, room) == (3, 0)
    assert (await bob.delete(mute)).json == {}
    await room.say(alice, "counts again")
    assert await counts(homeserver, bob, room) == (3, 1)
    keyword = f"{RULES}/global/content/cake"
    await carol.put(keyword, {"pattern": "c?ke", "actions": ["notify", {"set_tweak": "highlight"}]})
    await room.say(alice, "let them eat Cake!")
    assert await counts(homeserver, carol, room) == (5, 1)
    await carol.put(f"{RULES}/global/override/.m.rule.master/enabled", {"enabled": True})
    await room.say(alice, "cake for nobody")
    assert await counts(homeserver, carol, room) == (5, 1)


async def test_a_display_name_in_the_room_is_looked_for(homeserver, alice, bob, room):
    rule = {
        "actions": ["notify", {"set_tweak": "highlight"}],
        "conditions": [{"kind": "contains_display_name"}],
    }
    await bob.put(f"{RULES}/global/override/my-name", rule)
    await room.set_membership(bob, bob, "join", displayname="Bobby")
    await room.say(alice, "bobby, are you there?")
    assert await counts(homeserver, bob, room) == (1, 1)
    await room.set_membership(bob, bob, "join", displayname="Robert")
    await room.say(alice, "bobby, are you there?")
    assert await counts(homeserver, bob, room) == (1, 0)


async def test_ignored_users_notify_nobody_who_ignores_them(homeserver, alice, bob, carol, room):
    await room.say(alice, "one")
    path = f"/_matrix/client/v3/user/{bob.user_id}/account_data/m.ignored_user_list"
    assert (await bob.put(path, {"ignored_users": {alice.user_id: {}}})).status == 200
    await room.say(alice, "two", **mention(bob))
    assert await counts(homeserver, bob, room) == (1, 0)
    assert await counts(homeserver, carol, room) == (2, 0)
    await room.say(carol, "three")
    assert await counts(homeserver, bob, room) == (2, 0)
    assert (await bob.put(path, {"ignored_users": {}})).status == 200
    await room.say(alice, "four", **mention(bob))
    assert await counts(homeserver, bob, room) == (3, 1)


async def test_everybody_can_be_mentioned_by_who_may(homeserver, alice, bob, carol, room):
    await room.say(carol, "not by Carol", **{"m.mentions": {"room": True}})
    assert await counts(homeserver, bob, room) == (1, 0)
    await room.say(alice, "all of you", **{"m.mentions": {"room": True}})
    assert await counts(homeserver, bob, room) == (2, 1)
    assert await counts(homeserver, carol, room) == (1, 1)
    assert await counts(homeserver, alice, room) == (0, 0)


async def test_an_invite_notifies_until_it_is_answered(homeserver, alice, bob, room):
    dora, emil = await homeserver.register("dora"), await homeserver.register("emil")
    for user in (dora, emil):
        await room.set_membership(alice, user, "invite")
        assert await counts(homeserver, user, room) == (1, 0)
    assert await counts(homeserver, bob, room) == (0, 0)
    await room.join(dora)
    await room.leave(emil)
    assert await counts(homeserver, dora, room) == (0, 0)
    assert await counts(homeserver, emil, room) == (0, 0)


async def test_the_list_of_notifications(homeserver, alice, bob, room):
    first = await room.say(alice, "one", **mention(bob))
    await room.say(bob, "my own")
    second = await room.say(alice, "two")
    third = await room.say(alice, "three", **mention(bob))
    path = "/_matrix/client/v3/notifications"
    whole = (await bob.get(path)).json
    assert [one["event"]["event_id"] for one in whole["notifications"]] == [third, second, first]
    assert [one["read"] for one in whole["notifications"]] == [False, False, True]
    newest = whole["notifications"][0]
    assert newest["room_id"] == room.room_id
    assert newest["actions"] == [
        "notify",
        {"set_tweak": "sound", "value": "default"},
        {"set_tweak": "highlight"},
    ]
    assert newest["ts"] == newest["event"]["origin_server_ts"]
    assert newest["event"]["content"]["body"] == "three"
    assert "next_token" not in whole
    page = (await bob.get(path, limit=2)).json
    assert [one["event"]["event_id"] for one in page["notifications"]] == [third, second]
    rest = (await bob.get(path, **{"from": page["next_token"]})).json
    assert [one["event"]["event_id"] for one in rest["notifications"]] == [first]
    assert "next_token" not in rest
    highlights = (await bob.get(path, only="highlight")).json["notifications"]
    assert [one["event"]["event_id"] for one in highlights] == [third, first]
    assert (await bob.get(path, **{"from": "nonsense"})).errcode == "M_INVALID_PARAM"
    assert (await bob.get(path, limit=0)).errcode == "M_INVALID_PARAM"
    assert (await bob.as_user(None).get(path)).status == 401
    dora = await homeserver.register("dora")
    assert (await dora.get(path)).json == {"notifications": []}


async def test_counts_survive_that_the_room_leaves_memory(homeserver, alice, bob, room):
    await room.say(alice, "one", **mention(bob))
    live = homeserver.foundation.live
    live.drop(await live.find(RoomID(room.room_id)))
    await room.say(alice, "two", **mention(bob))
    assert await counts(homeserver, bob, room) == (2, 2)


async def test_what_was_redacted_does_not_count(homeserver, alice, bob, carol, room):
    spam = await room.say(alice, "spam", **mention(bob))
    await room.say(alice, "sorry")
    await room.redact(alice, spam)
    assert await counts(homeserver, bob, room) == (1, 0)
    assert await counts(homeserver, carol, room) == (1, 0)
