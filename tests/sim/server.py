"""A homeserver of the simulation: the real build, on SQLite in line, which dies and comes back."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from prometheus_client import CollectorRegistry

from ranvier.app.build import Homeserver, assemble
from ranvier.app.compose.foundation import Foundation, Network, Ports
from ranvier.app.config import Config, FederationConfig, PresenceConfig, RateLimitsConfig, RegistrationConfig
from ranvier.app.lifecycle import Worker
from ranvier.core.signing import SigningKey
from ranvier.http.endpoint import Api
from ranvier.io.randomness import seeded_randomness
from ranvier.store.dialect import Engine
from ranvier.store.migrate import list_migrations, migrate_sqlite
from ranvier.store.sqlite import connect

from ..federation.network import Resolver
from ..http.client import Client
from ..http.homeserver import CHEAP, PASSWORD, User
from .database import InlineDatabase
from .loop import Life, LoopClock
from .network import AppOf, SimNetwork, WireClient

FEDERATION_APIS = frozenset({Api.FEDERATION, Api.MEDIA, Api.ALWAYS})


class Watcher(Protocol):
    """Whom a server tells what happens to it."""

    def told(self, *what: object) -> None:
        """A step of the simulation."""

    def blame(self, complaint: str) -> None:
        """Something that must never happen did."""


class SimServer:
    """The server `{name}.test`."""

    def __init__(
        self,
        name: str,
        directory: Path,
        network: SimNetwork,
        watcher: Watcher,
        rng: random.Random,
        *,
        federation: FederationConfig,
    ) -> None:
        self.name = name
        self.server_name = f"{name}.test"
        self.directory = directory
        self._network = network
        self._watcher = watcher
        self._rng = rng
        self._clock = LoopClock(rng.randrange(-2000, 2000))
        self._life: Life | None = None
        self._built: Homeserver | None = None
        self._db: InlineDatabase | None = None
        self._apps: dict[str, Any] = {}
        self._deaths: dict[str, int] = {}  # at which commit from now on it dies, by moment
        self.lives = 0
        self.is_stopping = False
        self.is_gone = False  # for good
        self._federation = federation
        self.keys = [SigningKey(self.name.encode().ljust(32, b"."), "a_sim")]  # the first one signs
        network.add(self.server_name, AppOf(lambda: self._find_app("federation")))
        self.client_app = AppOf(lambda: self._find_app("client"))

    @property
    def is_up(self) -> bool:
        return self._life is not None

    @property
    def foundation(self) -> Foundation:
        assert self._built is not None
        return self._built.foundation

    @property
    def life(self) -> Life:
        assert self._life is not None
        return self._life

    def _find_app(self, kind: str) -> tuple[Life, Any] | None:
        return None if self._life is None else (self._life, self._apps[kind])

    def start(self) -> None:
        """Begin a life with what is on disk."""
        self.lives += 1
        self._watcher.told("start", self.name, self.lives)
        life = Life()
        self._db = InlineDatabase(self.directory / "ranvier.db", self._rng, self._observe(life))
        ways = Network(WireClient(self._network, self.server_name), Resolver(), _close)
        config = Config(
            server_name=self.server_name,
            data_dir=self.directory,
            registration=RegistrationConfig(mode="open"),
            rate_limits=RateLimitsConfig(enabled=False),
            presence=PresenceConfig(enabled=False),
            federation=self._federation,
        )
        ports = Ports(
            config,
            self._db,
            self._clock,
            seeded_randomness(f"{self.name}/{self.lives}/{self._rng.random()}"),
            tuple(self.keys),
            CollectorRegistry(),
            ways,
            password_cost=CHEAP,
        )
        self._built = assemble(ports)
        self._apps = {
            "federation": self._built.app(FEDERATION_APIS),
            "client": self._built.app(frozenset(Api)),
        }
        self._life = life
        for worker in self._built.workers:
            life.start(self._watch(life, worker), name=f"{self.name} {worker.name}")

    async def _watch(self, life: Life, worker: Worker) -> None:
        try:
            await worker.run()
        except Exception as error:
            if not life.is_over:
                self._watcher.blame(f"worker {worker.name} of {self.name} failed: {error!r}")

    def die_at_commit(self, moment: str, number: int) -> None:
        """Die before or after the `number`th commit from now (1 is the next)."""
        self._deaths[moment] = number

    def spare(self) -> None:
        """Let it live, if it was to die at a commit that has not come yet."""
        self._deaths.clear()

    def _observe(self, life: Life) -> Callable[[str, int, int], bool]:
        def observe(moment: str, count: int, position: int) -> bool:
            self._watcher.told(moment, self.name, count, position)
            left = self._deaths.get(moment, 0)
            if not left or life.is_over:
                return life.is_over
            self._deaths[moment] = left - 1
            if left > 1:
                return False
            self.crash(moment)
            return True

        return observe

    def crash(self, why: str) -> None:
        """Die at once: what runs is cut off, what is not committed is lost."""
        if self._life is None or self._db is None:
            return
        self._watcher.told("crash", self.name, why)
        life, self._life, self._built = self._life, None, None
        self._deaths.clear()
        self._db.kill()
        life.end()
        # Whoever looks after the dead is none of them.
        Life().start(self._bury(life))

    def perish(self) -> None:
        """Die, and never come back."""
        self.is_gone = True
        self.crash("for good")

    async def _bury(self, life: Life) -> None:
        if not await life.wait_over():
            names = [task.get_name() for task in life.tasks]
            self._watcher.blame(f"tasks of {self.name} cannot be cancelled: {names}")

    async def stop(self) -> None:
        """End as it does on SIGTERM: long polls answer, workers stop, what was queued is written."""
        if self._life is None or self._built is None:
            return
        self._watcher.told("stop", self.name)
        life, built = self._life, self._built
        self._life = None
        self.is_stopping = True
        built.foundation.waiters.close()
        for task in list(life.tasks):
            task.cancel()
        await life.wait_over()
        await built.close()
        life.end()
        self._built = None
        self.is_stopping = False

    async def register(self, name: str) -> User:
        body = {"username": name, "password": PASSWORD, "auth": {"type": "m.login.dummy"}}
        answer = await Client(self.client_app).post("/_matrix/client/v3/register", body)
        assert answer.status == 200, answer.body
        session = answer.json
        return User(self.client_app, session["access_token"], session["user_id"], session["device_id"])


def make_template(path: Path) -> None:
    """An empty database, to be copied: the schema takes longer than all else."""
    connection = connect(path, writes=True)
    migrate_sqlite(connection, list_migrations(Engine.SQLITE))
    connection.close()


def prepare(directory: Path, template: Path) -> Path:
    """A server's directory with an empty database."""
    directory.mkdir()
    shutil.copyfile(template, directory / "ranvier.db")
    return directory


async def _close() -> None:
    """There is nothing to close."""
