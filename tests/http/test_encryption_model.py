"""One-time keys, messages to devices and device lists against a small model of what they promise, while the server
crashes between any two requests and answers are lost.

A crash: the process's memory is gone and the database is what was committed. An answer is lost: the request was
carried out, and the client does not know.
"""

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from ..postgres import POOL
from .homeserver import Homeserver, User, running_homeserver
from .olm import device_keys, one_time_key

C = "/_matrix/client/v3"
ALGORITHM = "signed_curve25519"
NAMES = ("alice", "bob", "carol")
T = TypeVar("T")

people = st.sampled_from(NAMES)
rooms = st.integers(0, 1)
some = st.integers(0, 7)
"""Chooses one of a user's devices, whatever their number."""


class Device:
    """What a device knows, and what there is for it."""

    def __init__(self, session: dict[str, str]) -> None:
        self.session = session
        self.is_published = False  # its device keys
        self.keys: list[str] = []  # that nobody has claimed, oldest first
        self.fallback: str | None = None
        self.inbox: list[int] = []  # all that was ever sent to it
        self.token: str | None = None
        self.seen = 0  # of the inbox, what came up to the token
        self.versions: dict[str, int] = {}  # of all users, when the token was made
        self.company: set[str] = set()  # with whom a room was shared then
        self.moves = 0  # all that anybody had made until then


class Machine(RuleBasedStateMachine):
    """The server, the model, and clients that drive both."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = Path(tempfile.mkdtemp())
        self.lives = 0
        self.stack = AsyncExitStack()
        self.devices: dict[str, list[Device]] = {name: [] for name in NAMES}
        self.members: list[set[str]] = [set(), set()]
        self.moved: list[tuple[str, set[str]]] = []  # who came or went, and who was there
        self.versions = dict.fromkeys(NAMES, 0)  # of device lists
        self.given: set[str] = set()  # one-time keys that were claimed
        self.count = 0
        self.last_sent: tuple[str, dict[str, Any]] | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    async def start(self) -> None:
        self.stack = AsyncExitStack()
        running = running_homeserver(self.directory / str(self.lives))
        self.server: Homeserver = await self.stack.enter_async_context(running)

    @initialize()
    def begin(self) -> None:
        self.run(self.start())
        for name in NAMES:
            user = self.run(self.server.register(name))
            self.add_device(name, user)
        self.room_ids = []
        for members in self.members:
            body = {"preset": "public_chat"}
            answer = self.run(self.user("alice", 0).post(f"{C}/createRoom", body))
            self.room_ids.append(answer.json["room_id"])
            members.add("alice")

    def teardown(self) -> None:
        self.run(self.stack.aclose())
        self.runner.close()
        shutil.rmtree(self.directory)

    def add_device(self, name: str, user: User) -> None:
        session = {"access_token": user.token or "", "user_id": user.user_id, "device_id": user.device_id}
        self.devices[name].append(Device(session))
        self.versions[name] += 1

    def user(self, name: str, which: int) -> User:
        return self.server.user(self.device(name, which).session)

    def device(self, name: str, which: int) -> Device:
        return self.devices[name][which % len(self.devices[name])]

    def next(self) -> int:
        self.count += 1
        return self.count

    @rule()
    def crash(self) -> None:
        """Go on with a copy of the files as they are now; what the old process does yet is seen by nobody. With
        PostgreSQL, whose files are not ours: another process goes on, and then the old one ends."""
        if POOL is None:
            before, self.lives = self.directory / str(self.lives), self.lives + 1
            shutil.copytree(before, self.directory / str(self.lives))
        old = self.stack
        self.run(self.start())
        self.run(old.aclose())

    @rule(name=people)
    def log_in(self, name: str) -> None:
        if len(self.devices[name]) < 3:
            self.add_device(name, self.run(self.server.login(name)))

    @rule(name=people, which=some)
    def log_out(self, name: str, which: int) -> None:
        if len(self.devices[name]) > 1:
            answer = self.run(self.user(name, which).post(f"{C}/logout", {}))
            assert answer.status == 200
            self.devices[name].remove(self.device(name, which))
            self.versions[name] += 1

    @rule(name=people, which=some, count=st.integers(1, 4), fallback=st.booleans())
    def upload(self, name: str, which: int, count: int, fallback: bool) -> None:
        user, device = self.user(name, which), self.device(name, which)
        names = [f"{ALGORITHM}:{self.next():06}" for _ in range(count)]
        body: dict[str, Any] = {
            "device_keys": device_keys(user),
            "one_time_keys": {key: one_time_key(user, int(key[-6:])) for key in names},
        }
        if fallback:
            device.fallback = f"{ALGORITHM}:f{self.next()}"
            body["fallback_keys"] = {device.fallback: one_time_key(user, self.count, fallback=True)}
        answer = self.run(user.post(f"{C}/keys/upload", body))
        device.keys += names
        assert answer.json == {"one_time_key_counts": {ALGORITHM: len(device.keys)}}
        if not device.is_published:
            # The same keys again are no news.
            device.is_published = True
            self.versions[name] += 1

    @rule(claimer=people, name=people, which=some, is_lost=st.booleans(), times=st.integers(1, 3))
    def claim(self, claimer: str, name: str, which: int, is_lost: bool, times: int) -> None:
        """Several at the same moment; whether or not the answers arrive, no key comes again."""
        device, user = self.device(name, which), self.user(claimer, 0)
        body = {"one_time_keys": {self.id(name): {device.session["device_id"]: ALGORITHM}}}

        async def ask() -> list[Any]:
            return await asyncio.gather(*(user.post(f"{C}/keys/claim", body) for _ in range(times)))

        answers = self.run(ask())
        expected, device.keys = device.keys[:times], device.keys[times:]
        expected += [device.fallback] * (times - len(expected)) if device.fallback else []
        if not is_lost:
            found = [
                key
                for answer in answers
                for keys in answer.json["one_time_keys"].get(self.id(name), {}).values()
                for key in keys
            ]
            assert sorted(found) == sorted(expected)
        given = [key for key in expected if key != device.fallback]
        assert not self.given & set(given)
        self.given.update(given)
        if is_lost:
            self.crash()

    @rule(sender=people, name=people, which=some, to_all=st.booleans(), is_lost=st.booleans())
    def send(self, sender: str, name: str, which: int, to_all: bool, is_lost: bool) -> None:
        number = self.next()
        targets = self.devices[name] if to_all else [self.device(name, which)]
        addressed = "*" if to_all else targets[0].session["device_id"]
        body = {"messages": {self.id(name): {addressed: {"n": number}}}}
        path = f"{C}/sendToDevice/m.test/{number}"
        assert self.run(self.user(sender, 0).put(path, body)).status == 200
        for device in targets:
            device.inbox.append(number)
        if is_lost:
            self.crash()
            # The client tries again: nothing is sent twice.
            assert self.run(self.user(sender, 0).put(path, body)).status == 200

    @rule(name=people, room=rooms)
    def come_or_go(self, name: str, room: int) -> None:
        members, verb = self.members[room], "leave" if name in self.members[room] else "join"
        answer = self.run(self.user(name, 0).post(f"{C}/rooms/{self.room_ids[room]}/{verb}", {}))
        assert answer.status == 200, answer.body
        self.moved.append((name, members | {name}))
        members ^= {name}

    @rule(name=people, which=some, is_lost=st.booleans())
    def sync(self, name: str, which: int, is_lost: bool) -> None:
        user, device = self.user(name, which), self.device(name, which)
        answer = self.run(user.get(f"{C}/sync", since=device.token, timeout=0, set_presence="offline")).json
        messages = [event["content"]["n"] for event in answer.get("to_device", {}).get("events", [])]
        assert messages == device.inbox[device.seen :]
        assert answer["device_one_time_keys_count"] == {ALGORITHM: len(device.keys)}
        company = self.company(name)
        if device.token is not None:
            self.check_lists(name, device, company, answer.get("device_lists", {}))
        if not is_lost:
            device.token, device.seen = answer["next_batch"], len(device.inbox)
            device.versions, device.company = dict(self.versions), company
            device.moves = len(self.moved)

    def check_lists(self, name: str, device: Device, company: set[str], lists: dict[str, list[str]]) -> None:
        changed = {user_id.split(":")[0][1:] for user_id in lists.get("changed", [])}
        left = {user_id.split(":")[0][1:] for user_id in lists.get("left", [])}
        newer = {one for one in NAMES if self.versions[one] > device.versions[one]}
        moves = self.moved[device.moves :]
        moved = {one for mover, there in moves for one in ({mover} if mover != name else there)}
        seen = company | {name}
        assert (newer & seen) | (company - device.company) <= changed, "who must be asked for anew"
        assert changed <= ((newer | moved) & seen) | (company & moved) | {name}, "and nobody else"
        assert device.company - company - {name} <= left, "who can be forgotten"
        assert left <= moved - company, "and nobody else"

    def company(self, name: str) -> set[str]:
        """With whom a user shares a room."""
        return {one for members in self.members if name in members for one in members} - {name}

    def id(self, name: str) -> str:
        return f"@{name}:test"

    @invariant()
    def no_key_is_left_that_was_given(self) -> None:
        assert not any(self.given & set(device.keys) for of in self.devices.values() for device in of)


TestEncryptionModel = Machine.TestCase
pytestmark = pytest.mark.slow
TestEncryptionModel.settings = settings(
    max_examples=4, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
