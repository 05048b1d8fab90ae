"""What a message costs: the room is looked up as often as the path needs it, and nobody is asked who is not there."""

import pytest

from ranvier.services.push import effects
from ranvier.services.rooms.live import LiveRooms

from .rooms import create, do, say
from .test_sync import joined, sync


@pytest.fixture
def found(monkeypatch):
    """The rooms that are looked up, as it happens."""
    seen = []
    find = LiveRooms.find

    async def counted(self, room_id, slots=()):
        seen.append(room_id)
        return await find(self, room_id, slots)

    monkeypatch.setattr(LiveRooms, "find", counted)
    return seen


@pytest.fixture
def judged(monkeypatch):
    """The senders of the events that push rules are asked about."""
    seen = []
    evaluate = effects.evaluate

    def counted(event, audience):
        seen.append(event.sender)
        return evaluate(event, audience)

    monkeypatch.setattr(effects, "evaluate", counted)
    return seen


async def test_a_message_looks_its_room_up_twice(alice, found):
    """Once for the transaction id, and once to build on it."""
    room = await create(alice)
    await say(alice, room, "one")
    found.clear()
    await say(alice, room, "two")
    assert found == [room, room]


async def test_push_rules_are_not_asked_where_nobody_else_is(alice, bob, judged):
    room = await create(alice, preset="public_chat")
    judged.clear()
    await say(alice, room, "to nobody")
    assert judged == []
    await do(bob, room, "join")
    await say(alice, room, "to bob")
    assert alice.user_id in judged
    assert joined(await sync(bob), room)["unread_notifications"]["notification_count"] == 1
    await do(bob, room, "leave")
    judged.clear()
    await say(alice, room, "to nobody again")
    assert judged == []
    await do(bob, room, "join")
    assert joined(await sync(bob), room)["unread_notifications"]["notification_count"] == 0
