"""A world whose network is perfect, and in which everybody falls silent after every few things that happen.

What a server missed it hears of with the next event, which follows what it missed. So a fault in telling others is
healed before anybody sees it, wherever people go on talking. Here they do not: what was said must arrive by itself.
"""

import asyncio
import random
from typing import Any

from ..http.client import segment
from . import invariants
from .actors import Actor, Room
from .network import Weather
from .plan import SERVERS, VERSIONS, Action, Plan
from .quiet_acts import Devices, People
from .quiet_checks import Copy, copy_of, differences, left_undone, not_whole
from .world import Result, World, simulate

SILENCE = "silence"
"""The kind of action that waits until nothing happens any more, and looks."""

PATIENCE_S = (3.0, 10.0, 60.0, 120.0)
"""How long it may take until everybody knows everything: looked at after each of these."""

ACTS = {
    "message": 16,
    "topic": 4,
    "name": 2,
    "power_levels": 1,
    "join_rules": 1,
    "history_visibility": 2,
    "ban": 2,
    "unban": 2,
    "kick": 3,
    "invite": 6,
    "leave": 6,
    "join": 5,
    "visit": 14,
    "knock": 3,
    "redaction": 3,
    "profile": 4,
    "receipt": 2,
    "typing": 2,
    "to_device": 4,
    "device": 4,
    "query": 3,
    "read_back": 1,
}


def make_quiet_plan(seed: int, *, steps: int = 70) -> Plan:
    rng = random.Random(f"quiet {seed}")
    servers = SERVERS[: rng.choice((2, 3, 3, 4, 4))]
    versions = tuple(rng.choice(VERSIONS) for _ in range(rng.choice((1, 1, 2))))
    actions: list[Action] = []
    while len(actions) < steps:
        # Many at once, or one after the other while the ones before are under way.
        pace_ms = rng.choice((0.5, 5, 50, 300))
        for kind in rng.choices(list(ACTS), list(ACTS.values()), k=rng.choice((2, 3, 5, 8, 13))):
            actions.append(Action(len(actions), round(rng.expovariate(1) * pace_ms), kind))
        actions.append(Action(len(actions), 0, SILENCE))
    return Plan(seed, servers, (), False, versions, False, tuple(actions), rng.random() < 0.5)


def simulate_quiet(plan: Plan, *, is_loud: bool = False) -> Result:
    """Let it happen."""
    return simulate(plan, is_loud=is_loud, course=lambda world: QuietCourse(world).run())


class QuietCourse:
    """What happens in it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = random.Random(f"quiet course {world.plan.seed}")
        self._under_way: list[asyncio.Task[None]] = []

    async def run(self) -> None:
        world = self._world
        await world.register_people()
        self._people = People(world.cast, world.readers)
        for tracker in self._people.trackers:
            tracker.reader.outdated.update(one.user_id for one in world.cast.everybody)
        for version in world.plan.versions:
            await self._people.found_room(version, self._rng)
        world.network.weather = Weather(self._rng.choice((0.02, 0.2, 2.0)))
        await self._be_silent(0)
        for action in world.plan.actions:
            if world.complaints:
                break
            await asyncio.sleep(action.wait_ms / 1000)
            world.told("action", action.number, action.kind)
            if action.kind == SILENCE:
                await self._be_silent(action.number)
            else:
                self._under_way.append(asyncio.create_task(self._act(action)))
        await self._be_silent(len(world.plan.actions))
        if not world.complaints:
            await world.check(have_spoken=False)
        await world.close()

    async def _act(self, action: Action) -> None:
        rng = random.Random(f"action {action.number} {self._world.plan.seed}")
        try:
            await self._people.act(action.kind, action.number, rng)
        except Exception as error:
            self._world.blame(f"action {action.number} ({action.kind}) failed: {error!r}")

    async def _be_silent(self, number: int) -> None:
        """Wait until nothing happens any more; by then everybody must know everything."""
        under_way, self._under_way = self._under_way, []
        await asyncio.gather(*under_way)
        found: list[Any] = []
        for pause_s in PATIENCE_S:
            if self._world.complaints:
                return
            await asyncio.sleep(pause_s)
            found = await self._differences()
            if not found:
                break
        for one in found:
            self._world.blame(f"by silence {number}, {one}")
        if not found:
            await self._pass_notes(number)

    async def _differences(self) -> list[Any]:
        world = self._world
        found: list[Any] = []
        for room in world.cast.rooms:
            lacking = [one for server in world.servers for one in await not_whole(server, room.room_id)]
            if not lacking:
                try:
                    lacking = differences(await self._copies(room))
                except AssertionError as error:
                    lacking = [("does not hang together", invariants.where(error))]
            found += [(room.room_id, room.version, *one) for one in lacking]
        for server in world.servers:
            found += await left_undone(server)
        found += await invariants.check_servers(world.servers, have_spoken=False)
        return found

    async def _copies(self, room: Room) -> list[Copy]:
        copies = [await copy_of(server, room.room_id) for server in self._world.servers]
        return [copy for copy in copies if copy is not None]

    async def _pass_notes(self, number: int) -> None:
        """What passes without events: everybody has read the newest that all know, and knows all devices."""
        of_rooms: list[list[Copy]] = []
        for room in self._world.cast.rooms:
            copies = [copy for copy in await self._copies(room) if copy.view is not None]
            of_rooms.append(copies)
            if copies and all(one.servers == {copy.server for copy in copies} for one in copies):
                await self._read_newest(room, copies, number)
        devices = {one.user_id: await self._people.devices_of(one) for one in self._world.cast.everybody}
        for tracker in self._people.trackers:
            await tracker.ask(self._world.cast)
            for other in self._world.cast.everybody:
                known, expected = _keys(tracker.known.get(other.user_id, {})), _keys(devices[other.user_id])
                if known != expected and any(_are_in(tracker.actor, other, copies) for copies in of_rooms):
                    self._world.blame(
                        f"by silence {number}, {tracker.actor.user_id} knows devices {known} of"
                        f" {other.user_id}, not {expected}"
                    )

    async def _read_newest(self, room: Room, copies: list[Copy], number: int) -> None:
        """Wherever the room ends for all alike: elsewhere, servers may differ in what comes first, and so in what is
        read."""
        (newest, *others) = {
            event for copy in copies if copy.view is not None for event in copy.view.extremities
        }
        if others:
            return
        members = [one for one in self._world.cast.everybody if _is_in(one, copies)]
        names = {one.user_id for one in members}
        # Who types already is told of no second time, and so not to servers that have come since.
        await self._type(members, room, is_typing=False)
        await asyncio.sleep(PATIENCE_S[1])
        for one in members:
            path = f"{room.path}/receipt/m.read/{segment(newest)}"
            await self._world.cast.ask(one, "POST", path)
        await self._type(members, room, is_typing=True)
        await asyncio.sleep(PATIENCE_S[1])
        for reader in self._world.readers:
            if reader.user.user_id not in names:
                continue
            known = reader.follower.joined.get(room.room_id)
            if known is None:
                self._world.blame(
                    f"by silence {number}, {reader.user.user_id} does not know it is in {room.room_id}"
                )
                continue
            unknown = {one for one in names if known.receipts.get(("m.read", one, None)) != newest}
            if unknown:
                self._world.blame(
                    f"by silence {number}, {reader.user.user_id} does not know that {sorted(unknown)} have read"
                    f" {newest} in {room.room_id}"
                )
            # Who leaves while typing goes on for a moment.
            if not names <= set(known.typing):
                self._world.blame(
                    f"by silence {number}, {reader.user.user_id} does not know that"
                    f" {sorted(names.difference(known.typing))} type in {room.room_id}"
                )
        await self._type(members, room, is_typing=False)

    async def _type(self, members: list[Actor], room: Room, *, is_typing: bool) -> None:
        body = {"typing": True, "timeout": 120_000} if is_typing else {"typing": False}
        for one in members:
            path = f"{room.path}/typing/{segment(one.user_id)}"
            await self._world.cast.ask(one, "PUT", path, body)


def _is_in(actor: Actor, copies: list[Copy]) -> bool:
    return all(copy.membership(actor.user_id) == "join" for copy in copies)


def _are_in(one: Actor, other: Actor, copies: list[Copy]) -> bool:
    """Whether the servers of both take both for joined."""
    names = {one.server.server_name, other.server.server_name}
    own = [copy for copy in copies if copy.server in names]
    return len(own) == len(names) and _is_in(one, own) and _is_in(other, own)


def _keys(devices: Devices) -> dict[str, Any]:
    """What others are told; the names of devices are not."""
    return {name: keys["keys"] for name, keys in devices.items()}
