"""Whoever follows by sync v3, with lost answers, forgotten tokens and many kinds of pages, knows in the end what a
first classic sync tells.
"""

import random
from collections.abc import Callable
from typing import Any

import pytest

from ...http.client import segment
from ...http.homeserver import eventually
from ...http.rooms import C, ask, create, say, set_state
from .client import V3
from .conftest import KINDS
from .test_scenarios import typing

STEPS = 40


class Follower:
    """What a client of sync v3 knows of one room, of its rooms and of its own account data."""

    def __init__(self, client: V3, room_id: str, dice: random.Random) -> None:
        self.client, self.room_id, self.dice = client, room_id, dice
        self.members: dict[str, str] = {}  # user -> event id
        self.typing: list[str] = []
        self.rooms: dict[str, Any] = {}
        self.account_data: dict[tuple[str | None, str], Any] = {}
        self.messages: list[int] = []
        self.token: str | None = None

    async def begin(self) -> None:
        """A new session: everything is asked for once more."""
        self.members, self.rooms, self.account_data, self.typing = {}, {}, {}, []
        self.token = None
        body = {
            "room_members": {
                "room_id": self.room_id,
                "limit": 2,
                "sort": self.dice.choice(["by_pl", "by_name"]),
            },
            "rooms": {"limit": 2, "sort": self.dice.choice(["by_name", "by_recency", "by_tag"])},
            "typing": {"room_id": self.room_id},
            "account_data": {},
            "to_device": {"limit": 2},
        }
        answer = await self.client.sync(body)
        self.apply(answer)
        await self.page(answer)

    async def page(self, answer: dict[str, Any]) -> None:
        """Get the further pages of whatever has some. The position of the token does not move with it."""
        for stream in ("room_members", "rooms"):
            p = answer.get(stream, {}).get("p", {})
            while "next" in p:
                more = await self.client.sync({stream: {"p": {"since": p["next"]}}}, self.token)
                assert more["next"].split("_")[-3] == self.token.split("_")[-3]
                p = more[stream]["p"]
                self.apply({stream: more[stream], "next": self.token})

    async def go_on(self, *, forgets: bool = True) -> None:
        """One request: its answer arrives, or is lost, or the token is."""
        fate = self.dice.random()
        if fate < 0.1 and forgets:
            await self.begin()
            return
        answer = await self.client.sync({}, self.token)
        if fate < 0.3:
            # The answer is lost: the same again may tell more, and nothing less.
            answer = await self.client.sync({}, self.token)
        self.apply(answer)
        await self.page(answer)

    def apply(self, answer: dict[str, Any]) -> None:
        for event in answer.get("room_members", {}).get("events", ()):
            self.members[event["state_key"]] = event["event_id"]
        if "typing" in answer:
            self.typing = sorted(answer["typing"]["user_ids"])
        for room in answer.get("rooms", {}).get("rooms", ()):
            self.rooms[room["room_id"]] = room
        for room_id in answer.get("rooms", {}).get("del_rooms", ()):
            del self.rooms[room_id]
        for event in answer.get("account_data", {}).get("events", ()):
            self.account_data[event.get("room_id"), event["type"]] = event["content"]
        for event in answer.get("to_device", {}).get("events", ()):
            if event["content"]["n"] not in self.messages:
                self.messages.append(event["content"]["n"])
        self.token = answer["next"]


async def truth(user: Any, room_id: str) -> dict[str, Any]:
    """What a first classic sync tells."""
    found = (await user.get(f"{C}/sync")).json
    joined = found.get("rooms", {}).get("join", {})
    room = joined[room_id]
    state = [*room["state"]["events"], *(one for one in room["timeline"]["events"] if "state_key" in one)]
    account_data = {(None, one["type"]): one["content"] for one in found["account_data"]["events"]}
    for other_id, other in joined.items():
        for one in other["account_data"]["events"]:
            account_data[other_id, one["type"]] = one["content"]
    typing_events = [one for one in room["ephemeral"]["events"] if one["type"] == "m.typing"]
    return {
        "members": {one["state_key"]: one["event_id"] for one in state if one["type"] == "m.room.member"},
        "rooms": set(joined),
        "account_data": account_data,
        "typing": sorted(typing_events[-1]["content"]["user_ids"]) if typing_events else [],
    }


async def happen(dice: random.Random, room_id: str, people: list[Any], others: list[str]) -> None:
    """Something, most of the time."""
    alice, *rest = people
    user = dice.choice(rest)
    tag = f"{C}/user/{segment(alice.user_id)}/rooms/{segment(dice.choice(others))}/tags/m.favourite"
    match dice.randrange(10):
        case 0 | 1:
            await ask(user, room_id, "join")
        case 2:
            await ask(user, room_id, "leave")
        case 3:
            await ask(alice, room_id, dice.choice(["ban", "unban", "kick"]), user_id=user.user_id)
        case 4:
            name = {"displayname": dice.choice(["Zed", "ann", "Ö"])}
            await user.put(f"{C}/profile/{segment(user.user_id)}/displayname", name)
        case 5:
            await say(alice, dice.choice(others), f"hello {dice.random()}")
        case 6:
            await set_state(alice, dice.choice(others), "m.room.name", {"name": f"name {dice.random()}"})
        case 7:
            await alice.put(tag, {"order": dice.random()})
        case 8:
            await ask(alice, dice.choice(others), dice.choice(["leave", "join"]))
        case _:
            content = {"n": dice.random()}
            await alice.put(
                f"{C}/user/{segment(alice.user_id)}/account_data/org.{dice.randrange(3)}", content
            )


@pytest.mark.parametrize("kind", KINDS, indirect=True)
@pytest.mark.parametrize("seed", range(3))
async def test_a_follower_knows_what_a_first_sync_tells(homeserver, v3, seed):
    await check(homeserver, v3, seed)


async def check(homeserver: Any, v3: Callable[[Any], V3], seed: int) -> None:
    """Let things happen to a follower, and compare what it knows at the end."""
    dice = random.Random(seed)
    people = [await homeserver.register(name) for name in ("alice", "bob", "carol", "dave", "erin")]
    alice = people[0]
    room_id = await create(alice, preset="public_chat", name="Room")
    others = [await create(alice, preset="public_chat", name=f"Other {n}") for n in range(5)]
    follower = Follower(v3(alice), room_id, dice)
    await follower.begin()
    sent = 0
    for _ in range(STEPS):
        for _ in range(dice.randrange(4)):
            try:
                await happen(dice, room_id, people, others)
            except AssertionError:
                continue  # refused, as it may be: alice is not in that room any more
        if dice.random() < 0.4:
            sent += 1
            messages = {alice.user_id: {alice.device_id: {"n": sent}}}
            await people[1].put(f"{C}/sendToDevice/m.test/{seed}{sent}", {"messages": messages})
        await follower.go_on()
    await ask(people[1], room_id, "join")
    await ask(people[1], room_id, "leave")
    await ask(alice, room_id, "unban", user_id=people[1].user_id)
    await ask(people[1], room_id, "join")
    await typing(people[1], room_id)

    found: list[Any] = []

    async def is_equal() -> bool:
        await follower.go_on(forgets=False)
        expected = await truth(alice, room_id)
        known = {
            "members": follower.members,
            "rooms": set(follower.rooms),
            # Of rooms that were left classic sync tells nothing.
            "account_data": {
                key: content
                for key, content in follower.account_data.items()
                if key[0] is None or key[0] in expected["rooms"]
            },
            "typing": follower.typing,
        }
        found[:] = [known, expected, follower.messages, sent]
        return known == expected and follower.messages == list(range(1, sent + 1))

    try:
        await eventually(is_equal)
    except TimeoutError:
        assert found[0] == found[1]
        raise
