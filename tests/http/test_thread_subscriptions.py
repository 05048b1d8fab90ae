"""Threads that users follow, and how their clients hear of it."""

from typing import Any

from .client import Answer, segment
from .homeserver import Homeserver, User
from .rooms import C, create, do, say

U = "/_matrix/client/unstable/io.element.msc4306"
LIST = "/_matrix/client/unstable/io.element.msc4308/thread_subscriptions"
SLIDING = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
EXTENSION = "io.element.msc4308.thread_subscriptions"


def path(room_id: str, root: str) -> str:
    return f"{U}/rooms/{segment(room_id)}/thread/{segment(root)}/subscription"


async def reply(user: User, room_id: str, root: str, body: str) -> str:
    answer = await user.put(
        f"{C}/rooms/{segment(room_id)}/send/m.room.message/{segment(body)}",
        {"msgtype": "m.text", "body": body, "m.relates_to": {"rel_type": "m.thread", "event_id": root}},
    )
    event_id: str = answer.json["event_id"]
    return event_id


async def subscribe(user: User, room_id: str, root: str, cause: str | None = None) -> Answer:
    return await user.put(path(room_id, root), {} if cause is None else {"automatic": cause})


async def sync(user: User, pos: str | None = None, timeout: int = 0, **extension: Any) -> Any:  # noqa: ASYNC109
    body = {"extensions": {EXTENSION: {"enabled": True, **extension}}}
    answer = await user.post(SLIDING, body, pos=pos, timeout=timeout)
    assert answer.status == 200, answer.body
    return answer.json


async def test_a_user_subscribes_and_unsubscribes(homeserver: Homeserver) -> None:
    alice = await homeserver.register("alice")
    room_id = await create(alice)
    root = await say(alice, room_id, "root")
    assert (await alice.get(path(room_id, root))).errcode == "M_NOT_FOUND"
    assert (await alice.delete(path(room_id, root))).status == 200
    assert (await subscribe(alice, room_id, root)).json == {}
    assert (await alice.get(path(room_id, root))).json == {"automatic": False}
    for _ in range(2):
        assert (await alice.delete(path(room_id, root))).json == {}
    assert (await alice.get(path(room_id, root))).errcode == "M_NOT_FOUND"


async def test_a_manual_subscription_is_stronger(homeserver: Homeserver) -> None:
    alice = await homeserver.register("alice")
    room_id = await create(alice)
    root = await say(alice, room_id, "root")
    cause = await reply(alice, room_id, root, "reply")
    for by, automatic in ((cause, True), (None, False), (cause, False)):
        assert (await subscribe(alice, room_id, root, by)).status == 200
        assert (await alice.get(path(room_id, root))).json == {"automatic": automatic}


async def test_only_later_events_subscribe_again(homeserver: Homeserver) -> None:
    alice = await homeserver.register("alice")
    room_id = await create(alice)
    root = await say(alice, room_id, "root")
    first = await reply(alice, room_id, root, "1")
    await subscribe(alice, room_id, root, first)
    second = await reply(alice, room_id, root, "2")
    await alice.delete(path(room_id, root))
    third = await reply(alice, room_id, root, "3")
    for old in (first, second):
        refused = await subscribe(alice, room_id, root, old)
        assert (refused.status, refused.errcode) == (409, "IO.ELEMENT.MSC4306.M_CONFLICTING_UNSUBSCRIPTION")
    assert (await alice.get(path(room_id, root))).status == 404
    assert (await subscribe(alice, room_id, root, third)).status == 200


async def test_the_cause_has_to_be_in_the_thread(homeserver: Homeserver) -> None:
    alice = await homeserver.register("alice")
    room_id = await create(alice)
    root, other = await say(alice, room_id, "root"), await say(alice, room_id, "other")
    for cause in (root, await reply(alice, room_id, other, "elsewhere"), "$nowhere"):
        refused = await subscribe(alice, room_id, root, cause)
        assert (refused.status, refused.errcode) == (400, "IO.ELEMENT.MSC4306.M_NOT_IN_THREAD")


async def test_threads_that_one_may_not_see_are_not_there(homeserver: Homeserver) -> None:
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    room_id = await create(alice)
    root = await say(alice, room_id, "root")
    for who, event_id in ((bob, root), (alice, "$nowhere")):
        assert (await subscribe(who, room_id, event_id)).errcode == "M_NOT_FOUND"
        assert (await who.get(path(room_id, event_id))).errcode == "M_NOT_FOUND"
        assert (await who.delete(path(room_id, event_id))).errcode == "M_NOT_FOUND"
    assert (await homeserver.client.get(path(room_id, root))).status == 401


async def test_sliding_sync_tells_changes_once(homeserver: Homeserver) -> None:
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    room_id = await create(alice, preset="public_chat")
    await do(bob, room_id, "join")
    root = await say(alice, room_id, "root")
    first = await sync(alice)
    assert first["extensions"][EXTENSION] == {}
    await subscribe(bob, room_id, root)
    await subscribe(alice, room_id, root)
    second = await sync(alice, first["pos"], 5000)
    (told,) = second["extensions"][EXTENSION]["subscribed"][room_id].values()
    assert told["automatic"] is False
    assert (await sync(alice, second["pos"]))["extensions"][EXTENSION] == {}
    await alice.delete(path(room_id, root))
    third = await sync(alice, second["pos"], 5000)
    gone = third["extensions"][EXTENSION]["unsubscribed"][room_id][root]
    assert gone["bump_stamp"] > told["bump_stamp"]
    assert "subscribed" not in third["extensions"][EXTENSION]


async def test_what_one_answer_does_not_hold_is_paged(homeserver: Homeserver) -> None:
    alice = await homeserver.register("alice")
    room_id = await create(alice)
    roots = [await say(alice, room_id, f"root {number}") for number in range(5)]
    await subscribe(alice, room_id, roots[0])
    before = await sync(alice)
    for root in roots[1:]:
        await subscribe(alice, room_id, root)
    told = (await sync(alice, before["pos"], limit=2))["extensions"][EXTENSION]
    assert list(told["subscribed"][room_id]) == [roots[4], roots[3]]
    page = (await alice.get(LIST, dir="b", **{"from": told["prev_batch"]}, to=before["pos"], limit=1)).json
    assert list(page["subscribed"][room_id]) == [roots[2]]
    page = (await alice.get(LIST, dir="b", **{"from": page["end"]}, to=before["pos"])).json
    assert list(page["subscribed"][room_id]) == [roots[1]]
    assert "end" not in page
    assert len((await alice.get(LIST, dir="b")).json["subscribed"][room_id]) == 5
    for wrong in ({"dir": "f"}, {"dir": "b", "from": "x"}, {"dir": "b", "to": "x"}, {"dir": "b", "limit": 0}):
        assert (await alice.get(LIST, **wrong)).status == 400


async def unread(user: User, room_id: str) -> int:
    """Notifications of the room and its threads."""
    answer = await user.get(f"{C}/sync")
    count: int = answer.json["rooms"]["join"][room_id]["unread_notifications"]["notification_count"]
    return count


async def test_threads_notify_by_subscription(homeserver: Homeserver) -> None:
    alice, bob, carol = [await homeserver.register(name) for name in ("alice", "bob", "carol")]
    room_id = await create(alice, preset="public_chat")
    for other in (bob, carol):
        await do(other, room_id, "join")
    followed, left = await say(alice, room_id, "followed"), await say(alice, room_id, "left")
    for user in (bob, carol):
        path_of_receipt = f"{C}/rooms/{segment(room_id)}/receipt/m.read/{segment(left)}"
        assert (await user.post(path_of_receipt, {})).status == 200
    await subscribe(bob, room_id, followed)
    await reply(alice, room_id, followed, "1")
    await reply(alice, room_id, left, "2")
    assert await unread(bob, room_id) == 1
    assert await unread(carol, room_id) == 2, "who never subscribed hears of all threads"
    await bob.delete(path(room_id, followed))
    await reply(alice, room_id, followed, "3")
    assert await unread(bob, room_id) == 1
    await subscribe(bob, room_id, left)
    await reply(alice, room_id, left, "4")
    assert await unread(bob, room_id) == 2
    await say(alice, room_id, "main timeline")
    assert await unread(bob, room_id) == 3


async def test_a_subscription_is_stronger_than_a_muted_room_and_a_mention_than_none(
    homeserver: Homeserver,
) -> None:
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    room_id = await create(alice, preset="public_chat")
    await do(bob, room_id, "join")
    followed, other = await say(alice, room_id, "followed"), await say(alice, room_id, "other")
    rule = f"{C}/pushrules/global/room/{segment(room_id)}"
    assert (await bob.put(rule, {"actions": []})).status == 200
    await subscribe(bob, room_id, followed)
    before = await unread(bob, room_id)
    await reply(alice, room_id, followed, "1")
    await reply(alice, room_id, other, "2")
    assert await unread(bob, room_id) == before + 1
    mention = {
        "msgtype": "m.text",
        "body": "bob",
        "m.mentions": {"user_ids": ["@bob:test"]},
        "m.relates_to": {"rel_type": "m.thread", "event_id": other},
    }
    await alice.put(f"{C}/rooms/{segment(room_id)}/send/m.room.message/mention", mention)
    assert await unread(bob, room_id) == before + 2


async def test_the_rules_are_there_for_whoever_subscribed(homeserver: Homeserver) -> None:
    alice = await homeserver.register("alice")
    room_id = await create(alice)
    rules = f"{C}/pushrules/global"
    assert "postcontent" not in (await alice.get(f"{C}/pushrules/")).json["global"]
    await subscribe(alice, room_id, await say(alice, room_id, "root"))
    told = (await alice.get(f"{C}/pushrules/")).json["global"]["postcontent"]
    names = [".io.element.msc4306.rule.unsubscribed_thread", ".io.element.msc4306.rule.subscribed_thread"]
    assert [rule["rule_id"] for rule in told] == names
    assert told[0]["conditions"] == [{"kind": "io.element.msc4306.thread_subscription", "subscribed": False}]
    assert (await alice.put(f"{rules}/postcontent/{names[0]}/enabled", {"enabled": False})).status == 200
    assert (await alice.get(f"{rules}/postcontent/{names[0]}/enabled")).json == {"enabled": False}
    refused = await alice.put(f"{rules}/postcontent/own", {"actions": [], "conditions": []})
    assert (refused.status, refused.errcode) == (400, "M_INVALID_PARAM")
