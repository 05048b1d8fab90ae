"""Unread counts of whole histories against a naive reference: each event evaluated for each user by itself.

What a cheaper test would miss: audiences in memory that fall behind joins, rules and the room being dropped.
"""

import random
from typing import Any

import msgspec
import pytest

from ranvier.core.push.edit import parse_rule, put_rule, set_enabled
from ranvier.core.push.evaluate import Audience, evaluate
from ranvier.core.push.event import PushEvent, RoomContext
from ranvier.core.push.rules import RuleKind, UserRules
from ranvier.core.push.ruleset import compile_ruleset
from ranvier.store.tables import notifications, rooms

from .client import segment
from .homeserver import Homeserver, User
from .scripted_room import Room

MAIN = "main"
HIGHLIGHT = {"set_tweak": "highlight"}


class Seen(msgspec.Struct):
    """An event as one user was notified of it."""

    place: int
    thread: str
    notify: bool
    highlight: bool


class Reference:
    """What every user should see as unread."""

    def __init__(self, users: list[User]) -> None:
        self.rules = {user.user_id: UserRules() for user in users}
        self.joined: set[str] = set()
        self.seen: dict[str, list[Seen]] = {user.user_id: [] for user in users}
        self.marks: dict[tuple[str, str | None], int] = {}
        self.events: list[tuple[str, str]] = []  # (event_id, thread)

    def sent(self, sender: User, event_id: str, content: dict[str, Any], thread: str, room_id: str) -> None:
        self.events.append((event_id, thread))
        event = {"type": "m.room.message", "sender": sender.user_id, "content": content, "room_id": room_id}
        context = RoomContext(
            member_count=len(self.joined), sender_power=100 if sender.user_id.startswith("@user0") else 0
        )
        for user_id in self.joined:
            ruleset = compile_ruleset(self.rules[user_id])
            outcome = evaluate(PushEvent(event, context), Audience(frozenset(), {user_id: ruleset})).of(
                user_id
            )
            if outcome.notify:
                self.seen[user_id].append(Seen(len(self.events), thread, True, outcome.highlight))
        self.read(sender.user_id, thread, len(self.events))

    def read(self, user_id: str, thread: str | None, place: int) -> None:
        self.marks[user_id, thread] = max(place, self.marks.get((user_id, thread), 0))

    def unread(self, user_id: str) -> dict[str, tuple[int, int]]:
        found: dict[str, tuple[int, int]] = {}
        for one in self.seen[user_id]:
            marks = (self.marks.get((user_id, None), 0), self.marks.get((user_id, one.thread), 0))
            if one.place > max(marks):
                notify, highlight = found.get(one.thread, (0, 0))
                found[one.thread] = (notify + 1, highlight + one.highlight)
        return found


THERE = {"kind": "event_match", "key": "room_id"}


class History:
    """Random actions on a room, told to the reference as well."""

    def __init__(self, homeserver: Homeserver, users: list[User], room: Room, seed: int) -> None:
        self.homeserver = homeserver
        self.users = users
        self.room = room
        self.chance = random.Random(seed)
        self.reference = Reference(users)
        self.reference.joined.add(users[0].user_id)

    async def step(self) -> None:
        actions = [
            self.say,
            self.say,
            self.say,
            self.say,
            self.read,
            self.read,
            self.move,
            self.set_rule,
            self.drop,
        ]
        await self.chance.choice(actions)(self.chance.choice(self.users))

    async def say(self, user: User) -> None:
        reference, chance = self.reference, self.chance
        if user.user_id not in reference.joined:
            return
        content: dict[str, Any] = {"msgtype": "m.text", "body": chance.choice(("hello", "some cake", "m"))}
        mentioned = [one.user_id for one in self.users if chance.random() < 0.2]
        if mentioned:
            content["m.mentions"] = {"user_ids": mentioned}
        elif chance.random() < 0.5:
            content["m.mentions"] = {"room": True}
        thread = MAIN
        roots = [event_id for event_id, in_thread in reference.events if in_thread == MAIN]
        if roots and chance.random() < 0.3:
            thread = chance.choice(roots[:3])
            content["m.relates_to"] = {"rel_type": "m.thread", "event_id": thread}
        event_id = await self.room.post(user, "m.room.message", content)
        reference.sent(user, event_id, content, thread, self.room.room_id)

    async def read(self, user: User) -> None:
        reference = self.reference
        if user.user_id not in reference.joined or not reference.events:
            return
        place = self.chance.randrange(len(reference.events))
        event_id, thread = reference.events[place]
        in_thread = self.chance.random() < 0.5
        type_ = self.chance.choice(("m.read", "m.read.private"))
        path = f"{self.room.path}/receipt/{type_}/{segment(event_id)}"
        answer = await user.post(path, {"thread_id": thread} if in_thread else {})
        assert answer.status == 200, answer.body
        reference.read(user.user_id, thread if in_thread else None, place + 1)

    async def move(self, user: User) -> None:
        joined = self.reference.joined
        if user is self.users[0]:
            return
        if user.user_id in joined:
            await self.room.leave(user)
            joined.discard(user.user_id)
        else:
            await self.room.join(user)
            joined.add(user.user_id)
            # What joining means for the mark of the main timeline: it is an event of the user's own.
            self.reference.read(user.user_id, MAIN, len(self.reference.events))
        self.reference.seen[user.user_id].clear()

    async def set_rule(self, user: User) -> None:
        rules = self.reference.rules
        kind, rule_id, body = self.chance.choice(
            (
                (RuleKind.ROOM, self.room.room_id, {"actions": []}),
                (RuleKind.ROOM, self.room.room_id, {"actions": ["notify"]}),
                (RuleKind.OVERRIDE, "mute", {"actions": [], "conditions": [dict(THERE)]}),
                (RuleKind.CONTENT, "cake", {"pattern": "cake", "actions": ["notify", HIGHLIGHT]}),
                (RuleKind.SENDER, self.users[0].user_id, {"actions": []}),
                (RuleKind.OVERRIDE, ".m.rule.master", {"enabled": self.chance.random() < 0.5}),
            )
        )
        for condition in body.get("conditions", ()):
            condition["pattern"] = self.room.room_id
        path = f"/_matrix/client/v3/pushrules/global/{kind.value}/{segment(rule_id)}"
        if "enabled" in body:
            answer = await user.put(f"{path}/enabled", body)
            changed = set_enabled(rules[user.user_id], kind, rule_id, enabled=body["enabled"])
        else:
            answer = await user.put(path, body)
            changed = put_rule(rules[user.user_id], kind, parse_rule(kind, rule_id, body))
        assert answer.status == 200, answer.body
        rules[user.user_id] = changed

    async def drop(self, _user: User) -> None:
        live = self.homeserver.foundation.live
        room = await live.find(self.room.room_id)
        assert room is not None
        live.drop(room)

    async def check(self) -> None:
        foundation = self.homeserver.foundation
        db, names = foundation.ports.db, foundation.interner.users
        stored = await db.read(rooms.find_room, self.room.room_id)
        assert stored is not None
        nids = {user.user_id: names.number(user.user_id) for user in self.users}
        found = await db.read(
            notifications.list_unread, [nid for nid in nids.values() if nid], [stored.room_nid]
        )
        for user_id, nid in nids.items():
            counts = found.get((nid or 0, stored.room_nid), notifications.NOTHING_UNREAD)
            expected = self.reference.unread(user_id)
            main = expected.pop(MAIN, (0, 0))
            assert (counts.main.notify, counts.main.highlight) == main, user_id
            assert sorted((one.notify, one.highlight) for one in counts.threads.values()) == sorted(
                expected.values()
            )


@pytest.mark.parametrize("seed", range(3))
async def test_counts_are_those_of_evaluating_each_event_for_each_user(homeserver, seed):
    users = [await homeserver.register(f"user{number}") for number in range(4)]
    room = await Room.create(homeserver, users[0])
    history = History(homeserver, users, room, seed)
    for _ in range(120):
        await history.step()
        await history.check()


async def test_who_mutes_a_room_costs_nothing_there(homeserver):
    """What is unread when it is muted stays so; then rows follow what notifies the user all the same."""
    alice, *others = [await homeserver.register(f"user{number}") for number in range(4)]
    room = await Room.create(homeserver, alice)
    for user in others:
        await room.join(user)
    await room.say(alice, "before")
    override = {"actions": [], "conditions": [{**THERE, "pattern": room.room_id}]}
    mutes = [("room", segment(room.room_id), {"actions": []}), ("override", "mute", override)]
    for user, (kind, rule_id, body) in zip(others[:2], mutes, strict=True):
        path = f"/_matrix/client/v3/pushrules/global/{kind}/{rule_id}"
        assert (await user.put(path, body)).status == 200

    async def rows():
        db = homeserver.foundation.ports.db
        return await db.read(lambda txn: txn.value("SELECT COUNT(*) FROM user_notifications"))

    async def unread(user):
        answer = (await user.get("/_matrix/client/v3/sync")).json["rooms"]["join"][room.room_id]
        return answer["unread_notifications"]["notification_count"]

    kept = await rows()
    for number in range(10):
        await room.say(alice, f"m{number}")
    assert await rows() == kept
    assert [await unread(user) for user in others] == [1, 1, 11]
    await room.say(alice, "you", **{"m.mentions": {"user_ids": [user.user_id for user in others]}})
    assert await rows() == kept + 2  # a mute of kind override wins over mentions
    assert [await unread(user) for user in others] == [2, 1, 12]
    # Heard again, the room counts from there on.
    for user, (kind, rule_id, _) in zip(others[:2], mutes, strict=True):
        assert (await user.delete(f"/_matrix/client/v3/pushrules/global/{kind}/{rule_id}")).status == 200
    await room.say(alice, "again")
    assert [await unread(user) for user in others] == [3, 2, 13]
