"""One seed's world: it is built, things happen in it, it heals, and is looked at."""

import asyncio
import hashlib
import logging
import random
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ranvier.app.config import FederationConfig

from . import invariants
from .actors import ACTORS, KEEPER, Actor, Cast
from .byzantine import Forger
from .clients import Line, Reader, Slider
from .database import AFTER, BEFORE
from .loop import LoopClock, current_life, run
from .network import SimNetwork, Weather
from .plan import FAULTS, FORGERY, TRAVELS, Action, Plan
from .server import SimServer, make_template, prepare
from .travels import Travels

ROUNDS = 12
ROUND_S = 5.0
LATER_S = 3_700.0
"""Between the rounds in which it heals: longer than any server leaves another one alone that answers again."""

HOME = Path("/dev/shm")  # where there is one: SQLite waits for no disk then


class Result(msgspec.Struct, frozen=True):
    """What became of a plan."""

    plan: Plan
    complaints: Sequence[str]
    steps: int
    trace: str  # a hash of all that happened
    virtual_s: float


class World:
    """See `tests.sim.server.Watcher` for what servers and clients tell it."""

    def __init__(self, plan: Plan, directory: Path, *, is_loud: bool = False) -> None:
        self.plan = plan
        self.complaints: list[str] = []
        self.steps = 0
        self._directory = directory
        self._is_loud = is_loud
        self._trace = hashlib.blake2b(digest_size=16)
        self._clock = LoopClock()
        self.network = SimNetwork(self._rng("network"), self._clock, self.told)
        self.servers: list[SimServer] = []
        self.forger = Forger(self.network, self._rng("forger"), self) if plan.has_forger else None
        self.cast = Cast(self, () if self.forger is None else (self.forger.user_id,))
        self.travels = Travels(self.cast, self.servers)
        self.readers: list[Reader] = []
        self.sliders: list[Slider] = []
        self._lines: list[Line] = []
        self._tasks: list[asyncio.Task[Any]] = []

    def _rng(self, use: str) -> random.Random:
        return random.Random(f"{use} {self.plan.seed}")

    # What it is told.

    def told(self, *what: object) -> None:
        self.steps += 1
        line = repr((self._clock.monotonic(), *what))
        self._trace.update(line.encode())
        if self._is_loud:
            print(line[:400])  # noqa: T201

    def blame(self, complaint: str) -> None:
        self.told("complaint", complaint)
        self.complaints.append(complaint)

    def trace(self) -> str:
        return self._trace.hexdigest()

    # What happens.

    async def run(self) -> None:
        await self._build()
        for action in self.plan.actions:
            await asyncio.sleep(action.wait_ms / 1000)
            self.told("action", action.number, action.kind)
            self._tasks.append(asyncio.create_task(self._act(action)))
            if self.complaints:
                break
        await asyncio.gather(*self._tasks)
        await self._heal()
        if not self.complaints:
            await self.check()
        await self.close()

    def _start_servers(self) -> None:
        template = self._directory / "template.db"
        make_template(template)
        plan = self.plan
        for name in plan.servers:
            directory = prepare(self._directory / name, template)
            rng = self._rng(f"server {name}")
            notaries = ("one.test",) if plan.has_notary and name != "one" else ()
            federation = FederationConfig(
                partial_joins=plan.omits_members, trusted_notaries=notaries, past_notaries=()
            )
            server = SimServer(name, directory, self.network, self, rng, federation=federation)
            self.servers.append(server)
            server.start()

    async def register_people(self) -> None:
        """Start the servers, with users whose devices follow from now on."""
        self._start_servers()
        for server in self.servers:
            for name in (*ACTORS, KEEPER):
                user = await server.register(name)
                line = Line(self._rng(f"line {name} {server.name}"))
                self._lines.append(line)
                actors = self.cast.keepers if name == KEEPER else self.cast.actors
                actors.append(Actor(server, user, line))
        for actor in self.cast.everybody:
            rng = self._rng(f"reader {actor.user_id}")
            reader = Reader(actor.server, actor.client, actor.line, self, rng)
            self.readers.append(reader)
            self._tasks.append(asyncio.create_task(self._read(reader)))
        for actor in self.cast.everybody[::3]:
            slider = Slider(actor.server, actor.client, actor.line)
            self.sliders.append(slider)
            self._tasks.append(asyncio.create_task(self._read(slider)))
        self._readers_tasks, self._tasks = self._tasks, []

    async def _build(self) -> None:
        await self.register_people()
        for version in self.plan.versions:
            room = await self.cast.found_room(version, self.plan.late)
            if self.forger is not None:
                await self.forger.enter(self.servers[0], room)
        # All joins are in one past before anything happens. Up to room version 11 those on branches of their own are
        # undone by new join rules on another one, and nobody would be left to agree.
        for number in range(2):
            await asyncio.sleep(1)
            for one in await self._speak(f"beginning {number}", self.plan.late):
                self.blame(f"{one}")
        if self.forger is not None:
            for room in self.cast.rooms:
                await self.forger.note_founding(self.servers[0], room)
        for line in self._lines:
            line.lost = 0.03

    async def _read(self, reader: Reader | Slider) -> None:
        try:
            await reader.run()
        except Exception as error:
            what = invariants.where(error) if isinstance(error, AssertionError) else repr(error)
            self.blame(f"the {type(reader).__name__} of {reader.user.user_id} failed: {what}")

    async def _act(self, action: Action) -> None:
        rng = self._rng(f"action {action.number}")
        try:
            if action.kind in FORGERY:
                if self.forger is not None:
                    await self.forger.act(action.kind, rng, self._up(), self.cast.rooms)
            elif action.kind in FAULTS:
                await self._break(action.kind, rng)
            elif action.kind in TRAVELS:
                await self.travels.act(action.kind, action.number, rng)
            else:
                await self.cast.act(action.kind, action.number, rng)
        except Exception as error:
            logging.getLogger("tests.sim").exception("action %s", action)
            self.blame(f"action {action.number} ({action.kind}) failed: {error!r}")

    def _up(self) -> list[SimServer]:
        return [server for server in self.servers if server.is_up]

    async def _break(self, kind: str, rng: random.Random) -> None:
        """Something goes wrong, or is mended."""
        names = self.network.names
        server = rng.choice(self.servers)
        match kind:
            case "crash":
                await asyncio.sleep(rng.random() * 0.05)
                server.crash("chance")
                await self._start_again(server, rng)
            case "crash_before_commit" | "crash_after_commit":
                moment = BEFORE if kind == "crash_before_commit" else AFTER
                server.die_at_commit(moment, rng.randrange(1, 12))
                await asyncio.sleep(rng.random() * 5)
                await self._start_again(server, rng)
            case "restart":
                await server.stop()
                await self._start_again(server, rng)
            case "isolate":
                name = rng.choice(names)
                for other in names:
                    self.network.cut(name, other)
            case "cut":
                self.network.cut(*rng.sample(names, 2))
            case "heal":
                self.network.heal()
            case "weather":
                self.network.weather = Weather(
                    rng.choice((0.02, 0.2, 3.0)), rng.choice((0.0, 0.1, 0.3)), rng.choice((0.0, 0.2))
                )
            case "pass_time":
                await asyncio.sleep(rng.choice((60, 600, 4_000, 30_000)))

    async def _start_again(self, server: SimServer, rng: random.Random) -> None:
        await asyncio.sleep(rng.choice((0.001, 0.1, 2.0, 40.0)))
        if not server.is_up and not server.is_stopping and not server.is_gone:
            server.start()

    # How it ends.

    async def _heal(self) -> None:
        """All is well again, and users speak until everybody has heard everything."""
        self.told("healing")
        self.network.heal()
        for line in self._lines:
            line.lost = 0.0
        for server in self.servers:
            server.spare()
            if not server.is_up and not server.is_gone:
                server.start()
        await self.network.wait_quiet()
        if self.forger is not None:
            await self.forger.reveal(self._up())
        differences: list[Any] = []
        for number in range(ROUNDS):
            if self.complaints:
                return
            await self.travels.gather(is_sure=number > 1)
            mute = await self._speak(f"end {number}")
            await asyncio.sleep(ROUND_S)
            differences = mute + await self._differences()
            if not differences and number > 0:
                return
            if number % 2:
                # Two that could not reach each other leave each other alone, for a day at most, unless one speaks.
                await asyncio.sleep(LATER_S if number < ROUNDS / 2 else 86_400.0)
                differences = mute + await self._differences()
                if not differences:
                    return
        for one in differences:
            self.blame(f"they do not agree: {one}")

    async def _speak(self, text: str, absent: Sequence[str] = ()) -> list[Any]:
        """Let every keeper say something in every room, but those of `absent` servers. Returns those who may not."""
        mute: list[Any] = []
        for room in self.cast.rooms:
            if not room.is_founding:
                continue
            for keeper in self.cast.keepers:
                if keeper.server.name in absent:
                    continue
                if not await self.cast.speak(keeper, room, text):
                    mute.append((room.room_id, "may not speak", keeper.user_id))
                await asyncio.sleep(0.1)
        return mute

    async def _differences(self) -> list[Any]:
        found: list[Any] = []
        living = [server for server in self.servers if not server.is_gone]
        for room in self.cast.rooms:
            whole, waiting = await invariants.sort_by_wholeness(living, room.room_id)
            found += [(room.room_id, room.version, "not whole", name) for name in waiting]
            try:
                views = await invariants.views_of(whole, room.room_id)
            except AssertionError as error:
                self.blame(f"{room.room_id} ({room.version}): {invariants.where(error)}")
                continue
            alike = invariants.never_right(views) if views else []
            if room.is_founding:
                alike += invariants.not_yet(room, views)
            else:
                # Servers come and go there. What they saw of it they still see alike.
                alike = [one for one in alike if one[0] != "dangling"]
            found += [(room.room_id, room.version, *one) for one in alike]
        return found

    async def check(self, *, have_spoken: bool = True) -> None:
        """Nothing is left to do on the servers, and clients know what they should."""
        complaints: list[str] = []
        # Two servers that cannot reach each other for long leave each other alone for as long again.
        for pause_s in (60.0, LATER_S, 86_400.0):
            await asyncio.sleep(pause_s)
            complaints = await invariants.check_servers(self.servers, have_spoken=have_spoken)
            if not complaints:
                break
        for complaint in complaints:
            self.blame(complaint)
        for task in self._readers_tasks:
            task.cancel()
        await asyncio.gather(*self._readers_tasks, return_exceptions=True)
        for reader in [one for one in self.readers if not one.server.is_gone]:
            await reader.read()
            for complaint in await invariants.check_reader(reader, self.cast):
                self.blame(complaint)
        for slider in [one for one in self.sliders if not one.server.is_gone]:
            await slider.read()
            for complaint in await invariants.check_slider(slider):
                self.blame(complaint)

    async def close(self) -> None:
        """All that follow stop, then the servers."""
        for task in self._readers_tasks:
            task.cancel()
        await asyncio.gather(*self._readers_tasks, return_exceptions=True)
        for server in self.servers:
            await server.stop()


class _LogWatch(logging.Handler):
    """An error that a living server logs is a bug, whatever else comes of it."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.ERROR)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        life = current_life()
        if life is None or not life.is_over:
            text = record.getMessage()
            if record.exc_info and record.exc_info[1] is not None:
                text += f": {record.exc_info[1]!r}"
            self._world.blame(f"an error was logged: {text[:600]}")


Course = Callable[[World], Awaitable[None]]
"""What happens in a world."""


def simulate(plan: Plan, *, is_loud: bool = False, course: Course = World.run) -> Result:
    """Let it happen."""
    with tempfile.TemporaryDirectory(prefix="sim", dir=HOME if HOME.is_dir() else None) as directory:
        return run(lambda: _simulate(plan, Path(directory), is_loud, course))


async def _simulate(plan: Plan, directory: Path, is_loud: bool, course: Course) -> Result:
    world = World(plan, directory, is_loud=is_loud)
    watch = _LogWatch(world)
    log = logging.getLogger("ranvier")
    log.addHandler(watch)
    try:
        await course(world)
    except Exception as error:
        logging.getLogger("tests.sim").exception("seed %d", plan.seed)
        world.complaints.append(f"the simulation failed: {error!r}")
    finally:
        log.removeHandler(watch)
    elapsed_s = asyncio.get_running_loop().time()
    return Result(plan, world.complaints, world.steps, world.trace(), elapsed_s)
