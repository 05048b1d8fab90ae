"""First syncs of rooms that were told before: what is kept for one user is not told to another, nor for too long."""

from .rooms import create, do, say, set_state
from .test_sync import bodies, joined, sync


async def told(user, room):
    section = joined(await sync(user), room)
    return [
        (text, event["unsigned"].get("membership"))
        for text, event in zip(bodies(section), section["timeline"]["events"], strict=True)
    ]


async def test_each_gets_what_they_may_see_however_often_they_ask(alice, bob):
    room = await create(alice, preset="public_chat")
    await set_state(alice, room, "m.room.history_visibility", {"history_visibility": "joined"})
    await say(alice, room, "before bob")
    await do(bob, room, "join")
    await say(alice, room, "to both")
    for _ in range(3):
        of_alice, of_bob = await told(alice, room), await told(bob, room)
        assert ("before bob", "join") in of_alice
        assert ("m.room.create", "leave") in of_alice  # the creator was not in the room yet
        assert [text for text, _ in of_bob if text in ("before bob", "to both")] == ["to both"]


async def test_what_happens_is_told_and_so_is_leaving(alice, bob):
    room = await create(alice, preset="public_chat")
    await do(bob, room, "join")
    await told(bob, room)
    await say(alice, room, "news")
    assert (await told(bob, room))[-1] == ("news", "join")
    await do(bob, room, "leave")
    assert joined(await sync(bob), room) is None
    await say(alice, room, "without bob")
    await do(bob, room, "join")
    texts = dict(await told(bob, room))
    assert texts["without bob"] == "leave"  # history is shared: seen, but not as a member
