"""What people do in a quiet world besides what `actors` do: they come through one server alone, change their names, get
and lose devices, and ask for each other's keys.
"""

import random
from typing import Any

import msgspec

from ..http.client import Client, segment
from ..http.homeserver import PASSWORD, User
from ..http.olm import device_keys
from .actors import Actor, Cast, Room
from .clients import CLIENT, Reader

MAX_DEVICES = 3

Devices = dict[str, Any]
"""The keys of a user's devices by their names."""


class Tracker(msgspec.Struct, eq=False):
    """A client that encrypts: it asks for the keys of whom `/sync` says have others now, and knows them from then."""

    actor: Actor
    reader: Reader
    known: dict[str, Devices] = {}

    async def ask(self, cast: Cast) -> None:
        """Ask for all whose keys may be others."""
        wanted, self.reader.outdated = self.reader.outdated, set()
        if wanted:
            body: dict[str, Any] = {"device_keys": {user_id: [] for user_id in sorted(wanted)}}
            answer = await cast.ask(self.actor, "POST", f"{CLIENT}/keys/query", body)
            assert answer is not None, "the network is perfect"
            assert answer.status == 200, answer.body
            assert not answer.json["failures"], answer.body
            for user_id in wanted:
                self.known[user_id] = answer.json["device_keys"].get(user_id, {})


class People:
    """The cast, with more that it can do."""

    def __init__(self, cast: Cast, readers: list[Reader]) -> None:
        self._cast = cast
        self._devices: dict[str, list[User]] = {}
        by_user = {reader.user.user_id: reader for reader in readers}
        # The readers of one user on each server.
        self.trackers = [Tracker(one, by_user[one.user_id]) for one in cast.keepers]

    async def act(self, kind: str, number: int, rng: random.Random) -> None:
        """One thing that somebody does; what is not allowed at the moment is refused, and that is all."""
        actor = rng.choice(self._cast.everybody)
        room = rng.choice(self._cast.rooms)
        match kind:
            case "visit":
                servers = [one.server for one in self._cast.keepers if one.server is not actor.server]
                await self._cast.join(actor, room, via=rng.sample(servers, rng.choice((1, 1, len(servers)))))
            case "profile":
                path = f"{CLIENT}/profile/{segment(actor.user_id)}/displayname"
                await self._cast.ask(actor, "PUT", path, {"displayname": f"{kind} {number}"})
            case "device":
                await self._change_devices(actor, number, rng)
            case "query":
                await rng.choice(self.trackers).ask(self._cast)
            case _:
                await self._cast.act(kind, number, rng)

    async def _change_devices(self, actor: Actor, number: int, rng: random.Random) -> None:
        devices = self._devices.setdefault(actor.user_id, [])
        if devices and rng.random() < 0.3:
            path = f"{CLIENT}/devices/{segment(rng.choice(devices).device_id)}"
            await self._cast.ask(actor, "PUT", path, {"display_name": f"device {number}"})
        elif len(devices) == MAX_DEVICES or (devices and rng.random() < 0.4):
            gone = devices.pop(rng.randrange(len(devices)))
            assert (await gone.post(f"{CLIENT}/logout")).status == 200
        else:
            devices.append(await self._log_in(actor))

    async def _log_in(self, actor: Actor) -> User:
        body = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": actor.user_id},
            "password": PASSWORD,
        }
        app = actor.server.client_app
        answer = await Client(app).post(f"{CLIENT}/login", body)
        assert answer.status == 200, answer.body
        session = answer.json
        user = User(app, session["access_token"], session["user_id"], session["device_id"])
        answer = await user.post(f"{CLIENT}/keys/upload", {"device_keys": device_keys(user)})
        assert answer.status == 200, answer.body
        return user

    async def devices_of(self, actor: Actor) -> Devices:
        """A user's devices as their own server tells them."""
        answer = await actor.client.post(f"{CLIENT}/keys/query", {"device_keys": {actor.user_id: []}})
        assert answer.status == 200, answer.body
        devices: Devices = answer.json["device_keys"].get(actor.user_id, {})
        return devices

    async def found_room(self, version: str, rng: random.Random) -> Room:
        """A room with some of the people in it."""
        creator, *others = rng.sample(self._cast.everybody, len(self._cast.everybody))
        body = {
            "preset": "public_chat",
            "room_version": version,
            "power_level_content_override": self._cast.levels(version, creator.user_id),
        }
        answer = await creator.client.post(f"{CLIENT}/createRoom", body)
        assert answer.status == 200, answer.body
        room = Room(answer.json["room_id"], version, creator.user_id)
        self._cast.rooms.append(room)
        for one in others:
            if rng.random() < 0.4:
                joined = await self._cast.join(one, room, via=[creator.server])
                assert joined is not None, f"{one.user_id} cannot join"
                assert joined.status == 200, joined.body
        return room
