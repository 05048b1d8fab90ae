"""Users who act, on all servers at once, and do not care what the others do."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ranvier.core.room_versions import get_room_version

from ..http.client import Answer, segment
from .clients import CLIENT, Line
from .loop import ConnectionLost
from .server import SimServer, Watcher

KEEPER = "keeper"
"""One on each server who is never thrown out and merely speaks: his server stays in the room."""

ACTORS = ("user", "friend")
REPEATS = 6
REFUSALS = frozenset({400, 403, 404, 409, 429, 502, 504})


class Actor(msgspec.Struct):
    """A user at a server."""

    server: SimServer
    client: Any  # a tests.http.homeserver.User
    line: Line

    @property
    def user_id(self) -> str:
        user_id: str = self.client.user_id
        return user_id


class Room(msgspec.Struct):
    """A room, and what was done in it."""

    room_id: str
    version: str
    creator: str
    sent: list[str] = []  # event ids
    spoken: dict[str, str] = {}  # what was said (with success) -> event id
    speakers: dict[str, SimServer] = {}  # by what was said
    is_founding: bool = True  # all servers are in it, and stay
    alias: str | None = None
    travelers: set[str] = set()  # servers that were out of it for a while
    elsewhere: dict[str, set[str]] = {}  # by server: what was said before it came back

    @property
    def path(self) -> str:
        return f"{CLIENT}/rooms/{segment(self.room_id)}"


class Cast:
    """All users and rooms."""

    def __init__(self, watcher: Watcher, forgers: tuple[str, ...]) -> None:
        self.actors: list[Actor] = []
        self.keepers: list[Actor] = []
        self.rooms: list[Room] = []
        # To-device messages that were taken: from where, to whom, the text.
        self.letters: list[tuple[str, str, str]] = []
        self._watcher = watcher
        self._forgers = forgers

    @property
    def everybody(self) -> list[Actor]:
        return [*self.actors, *self.keepers]

    def levels(self, version: str, creator: str, rng: random.Random | None = None) -> dict[str, Any]:
        """Power levels: of the actors as chance has it, in the beginning the first ones may do most."""
        users = {keeper.user_id: 100 for keeper in self.keepers} | dict.fromkeys(self._forgers, 50)
        for index, actor in enumerate(self.actors):
            high = (100, 50, 50, 50)[index % 4] if rng is None else rng.choice((0, 50, 100))
            users[actor.user_id] = high
        users[creator] = 100
        if get_room_version(version).auth.privileged_creators:
            del users[creator]
        high = 0 if rng is None else rng.choice((0, 0, 50))
        events = {"m.room.topic": high}
        for name in ("power_levels", "join_rules", "history_visibility", "server_acl"):
            events[f"m.room.{name}"] = 50
        events["m.room.tombstone"] = 50
        return {"users": users, "state_default": 0, "redact": 50, "events": events}

    async def found_room(self, version: str, late: Sequence[str]) -> Room:
        """A room with everybody in it but those whose servers come late."""
        creator = self.actors[0]
        body = {
            "preset": "public_chat",
            "room_version": version,
            "power_level_content_override": self.levels(version, creator.user_id),
        }
        answer = await creator.client.post(f"{CLIENT}/createRoom", body)
        assert answer.status == 200, answer.body
        room = Room(answer.json["room_id"], version, creator.user_id)
        self.rooms.append(room)
        for one in self.everybody[1:]:
            if one.server.name in late:
                continue
            joined = await self.join(one, room)
            assert joined is not None, f"{one.user_id} cannot join"
            assert joined.status == 200, joined.body
        return room

    async def join(self, actor: Actor, room: Room, *, via: Sequence[SimServer] = ()) -> Answer | None:
        servers = via or [one.server for one in self.keepers]
        names = "&".join(f"server_name={one.server_name}" for one in servers)
        return await self.ask(actor, "POST", f"{CLIENT}/join/{segment(room.room_id)}?{names}", {})

    def forget(self, server: SimServer) -> None:
        """A server is gone, with all its users."""
        for one in self.everybody:
            one.line.is_dead |= one.server is server
        self.actors = [one for one in self.actors if one.server is not server]
        self.keepers = [one for one in self.keepers if one.server is not server]
        self.letters = [
            one
            for one in self.letters
            if one[0] != server.name and not one[1].endswith(f":{server.server_name}")
        ]
        for room in self.rooms:
            # Some of it may not have come to anybody else.
            room.spoken = {
                text: one for text, one in room.spoken.items() if room.speakers[text] is not server
            }

    async def ask(
        self, actor: Actor, method: str, path: str, body: Mapping[str, Any] | None = None, *, repeats: int = 0
    ) -> Answer | None:
        """The answer; None if there was none. `repeats`: how often the client tries again then."""
        for _ in range(repeats + 1):
            try:
                json = None if method == "GET" else body or {}
                answer = await actor.line.ask(actor.client, method, path, json=json)
            except ConnectionLost:
                await asyncio.sleep(0.5)
                continue
            self._watcher.told("client", actor.user_id, method, path, answer.status, answer.body)
            if answer.status == 503:
                await asyncio.sleep(0.5)
                continue
            if answer.status != 200 and answer.status not in REFUSALS:
                self._watcher.blame(f"{method} {path} of {actor.user_id}: {answer.status} {answer.body!r}")
            return answer
        return None

    async def speak(self, actor: Actor, room: Room, text: str) -> bool:
        """Say something under a transaction id of its own: it is said once, however often it is sent."""
        path = f"{room.path}/send/m.room.message/{segment(text)}"
        content = {"msgtype": "m.text", "body": text}
        answer = await self.ask(actor, "PUT", path, content, repeats=REPEATS)
        if answer is None or answer.status != 200:
            return False
        event_id = answer.json["event_id"]
        room.speakers[text] = actor.server
        if not actor.server.is_gone:
            room.spoken[text] = event_id
        room.sent.append(event_id)
        return True

    async def act(self, kind: str, number: int, rng: random.Random) -> None:
        """One thing that a user does; what is not allowed at the moment is refused, and that is all."""
        actor = rng.choice(self.actors)
        room = rng.choice(self.rooms)
        others = [one for one in self.actors if one is not actor]
        target = {"user_id": rng.choice(others).user_id, "reason": f"{number}"}
        match kind:
            case "message":
                await self.speak(rng.choice((*self.actors, *self.keepers)), room, f"m{number}")
            case "ban" | "unban" | "kick" | "invite":
                await self._note(room, await self.ask(actor, "POST", f"{room.path}/{kind}", target))
            case "leave" | "join" | "knock":
                await self._move(kind, actor, room, rng)
            case "redaction":
                if room.sent:
                    path = f"{room.path}/redact/{segment(rng.choice(room.sent))}/r{number}"
                    await self._note(room, await self.ask(actor, "PUT", path, {}, repeats=REPEATS))
            case "receipt" | "typing" | "read_back":
                await self._look(kind, actor, room, rng)
            case "to_device":
                await self._write(actor, rng.choice(others), f"letter {number}")
            case "alias":
                await self._alias(actor, room, number, rng)
            case "upgrade":
                await self._upgrade(actor, room, rng)
            case _:
                content = self._state_content(kind, room, number, rng)
                path = f"{room.path}/state/m.room.{kind}/"
                await self._note(room, await self.ask(actor, "PUT", path, content))

    async def _move(self, kind: str, actor: Actor, room: Room, rng: random.Random) -> None:
        match kind:
            case "leave":
                await self.ask(actor, "POST", f"{room.path}/leave")
            case "join":
                await self.join(actor, room)
            case _:
                names = f"server_name={rng.choice(self.keepers).server.server_name}"
                await self.ask(actor, "POST", f"{CLIENT}/knock/{segment(room.room_id)}?{names}")

    async def _look(self, kind: str, actor: Actor, room: Room, rng: random.Random) -> None:
        match kind:
            case "receipt":
                if room.sent:
                    path = f"{room.path}/receipt/m.read/{segment(rng.choice(room.sent))}"
                    await self.ask(actor, "POST", path)
            case "typing":
                path = f"{room.path}/typing/{segment(actor.user_id)}"
                await self.ask(actor, "PUT", path, {"typing": rng.random() < 0.7, "timeout": 20_000})
            case _:
                await self.ask(actor, "GET", f"{room.path}/messages?dir=b&limit={rng.randrange(1, 60)}")

    async def _note(self, room: Room, answer: Answer | None) -> None:
        if answer is not None and answer.status == 200 and "event_id" in answer.json:
            room.sent.append(answer.json["event_id"])

    def _state_content(self, kind: str, room: Room, number: int, rng: random.Random) -> dict[str, Any]:
        match kind:
            case "power_levels":
                return self.levels(room.version, room.creator, rng)
            case "join_rules":
                knocks = get_room_version(room.version).auth.knock
                return {
                    "join_rule": rng.choice(("public", "public", "invite", "knock" if knocks else "invite"))
                }
            case "history_visibility":
                return {"history_visibility": rng.choice(("shared", "joined", "invited", "world_readable"))}
            case _:
                return {kind: f"{kind} {number}"}

    async def _write(self, actor: Actor, target: Actor, text: str) -> None:
        """A to-device message: once it is taken it arrives, and arrives once."""
        path = f"{CLIENT}/sendToDevice/org.example.letter/{segment(text)}"
        body = {"messages": {target.user_id: {target.client.device_id: {"text": text}}}}
        answer = await self.ask(actor, "PUT", path, body, repeats=REPEATS)
        if (
            answer is not None
            and answer.status == 200
            and not (actor.server.is_gone or target.server.is_gone)
        ):
            self.letters.append((actor.server.name, target.user_id, text))

    async def _alias(self, actor: Actor, room: Room, number: int, rng: random.Random) -> None:
        if room.alias is not None and rng.random() < 0.6:
            await self.ask(actor, "POST", f"{CLIENT}/join/{segment(room.alias)}")
            return
        alias = f"#a{number}:{actor.server.server_name}"
        path = f"{CLIENT}/directory/room/{segment(alias)}"
        answer = await self.ask(actor, "PUT", path, {"room_id": room.room_id})
        if answer is not None and answer.status == 200:
            room.alias = alias

    async def _upgrade(self, actor: Actor, room: Room, rng: random.Random) -> None:
        version = rng.choice(("11", "12"))
        answer = await self.ask(actor, "POST", f"{room.path}/upgrade", {"new_version": version})
        if answer is not None and answer.status == 200:
            room_id = answer.json["replacement_room"]
            self.rooms.append(Room(room_id, version, actor.user_id, is_founding=False))
