"""However a client came to where it stands, it knows what one that begins now is told.

Random histories of two rooms and three users, followed by clients that sync now and then, with small limits, so
that most of their timelines are cut. A cheaper test would not meet the order of events that breaks a sync.
"""

import asyncio
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.sync_equivalent import Follower, assert_equivalent, check_full_members

from .client import segment
from .homeserver import running_homeserver

C = "/_matrix/client/v3"
USERS = ("alice", "bob", "carol")
LAZY = {"state": {"lazy_load_members": True}, "timeline": {"limit": 3}}
PROFILES = (
    {"room_filter": {"timeline": {"limit": 3}}},
    {"room_filter": {"timeline": {"limit": 3}}, "use_state_after": "true"},
    {"room_filter": LAZY},
    {"room_filter": LAZY, "use_state_after": "true"},
    {"room_filter": {"timeline": {"limit": 3, "types": ["m.room.message"]}}},
    {},
)

_users = st.integers(0, 2)
_rooms = st.integers(0, 1)
ACTIONS = st.one_of(
    st.tuples(st.just("say"), _users, _rooms),
    st.tuples(st.just("say"), _users, _rooms),
    st.tuples(st.just("name"), _users, _rooms),
    st.tuples(st.just("topic"), _users, _rooms),
    st.tuples(st.just("join"), _users, _rooms),
    st.tuples(st.just("leave"), _users, _rooms),
    st.tuples(st.just("invite"), _users, _rooms, _users),
    st.tuples(st.just("kick"), _users, _rooms, _users),
    st.tuples(st.just("ban"), _users, _rooms, _users),
    st.tuples(st.just("unban"), _users, _rooms, _users),
    st.tuples(st.just("visibility"), _users, _rooms, st.sampled_from(("joined", "invited", "shared"))),
    st.tuples(st.just("data"), _users, _rooms),
    st.tuples(st.just("read"), _users, _rooms, st.sampled_from(("m.read", "m.read.private"))),
    st.tuples(st.just("typing"), _users, _rooms, st.booleans()),
    st.tuples(st.just("sync"), st.integers(0, len(PROFILES) - 1)),
    st.tuples(st.just("sync"), st.integers(0, len(PROFILES) - 1)),
)


class World:
    """Two rooms, three users; actions may be refused, which is as good as anything that happens."""

    def __init__(self, users, rooms):
        self.users = users
        self.rooms = rooms
        self.count = 0
        self.last_events = dict.fromkeys(rooms)

    async def act(self, action, *args):
        self.count += 1
        await getattr(self, f"_{action}")(*args)

    def _path(self, room, rest):
        return f"{C}/rooms/{segment(self.rooms[room])}/{rest}"

    async def _say(self, user, room):
        answer = await self.users[user].put(
            self._path(room, f"send/m.room.message/{self.count}"), {"body": str(self.count)}
        )
        if answer.status == 200:
            self.last_events[self.rooms[room]] = answer.json["event_id"]

    async def _state(self, user, room, event_type, content):
        await self.users[user].put(self._path(room, f"state/{event_type}"), content)

    async def _name(self, user, room):
        await self._state(user, room, "m.room.name", {"name": f"name {self.count}"})

    async def _topic(self, user, room):
        await self._state(user, room, "m.room.topic", {"topic": f"topic {self.count}"})

    async def _visibility(self, user, room, visibility):
        await self._state(user, room, "m.room.history_visibility", {"history_visibility": visibility})

    async def _join(self, user, room):
        await self.users[user].post(self._path(room, "join"), {})

    async def _leave(self, user, room):
        await self.users[user].post(self._path(room, "leave"), {})

    async def _member(self, user, room, target, action):
        await self.users[user].post(self._path(room, action), {"user_id": self.users[target].user_id})

    async def _invite(self, user, room, target):
        await self._member(user, room, target, "invite")

    async def _kick(self, user, room, target):
        await self._member(user, room, target, "kick")

    async def _ban(self, user, room, target):
        await self._member(user, room, target, "ban")

    async def _unban(self, user, room, target):
        await self._member(user, room, target, "unban")

    async def _data(self, user, room):
        me = self.users[user]
        path = f"{C}/user/{segment(me.user_id)}"
        await me.put(f"{path}/account_data/test.{self.count % 3}", {"count": self.count})
        await me.put(f"{path}/rooms/{segment(self.rooms[room])}/account_data/test", {"count": self.count})

    async def _read(self, user, room, receipt_type):
        event_id = self.last_events[self.rooms[room]]
        if event_id is not None:
            await self.users[user].post(self._path(room, f"receipt/{receipt_type}/{segment(event_id)}"), {})

    async def _typing(self, user, room, is_typing):
        body = {"typing": is_typing, **({"timeout": 30_000} if is_typing else {})}
        await self.users[user].put(self._path(room, f"typing/{segment(self.users[user].user_id)}"), body)


async def _run(actions):
    with tempfile.TemporaryDirectory() as directory:
        async with running_homeserver(Path(directory)) as homeserver:
            users = [await homeserver.register(name) for name in USERS]
            rooms = []
            for _ in range(2):
                answer = await users[0].post(f"{C}/createRoom", {"preset": "public_chat"})
                rooms.append(answer.json["room_id"])
            world = World(users, rooms)
            await world.act("join", 1, 0)
            followers = [Follower(users[1], **profile) for profile in PROFILES]
            for action, *args in actions:
                if action == "sync":
                    await followers[args[0]].sync()
                else:
                    await world.act(action, *args)
            for follower, profile in zip(followers, PROFILES, strict=True):
                fresh = Follower(users[1], **profile)
                await assert_equivalent(follower, fresh)
                if "lazy_load_members" not in str(profile):
                    check_full_members(follower, fresh)


@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(ACTIONS, min_size=5, max_size=40))
def test_a_client_that_followed_knows_what_a_new_one_is_told(actions):
    asyncio.run(_run(actions))
