"""Servers under test, each a process of its own on one core: Ranvier from this checkout, Synapse from PyPI."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Literal

import msgspec

from bench.wire import Connection

Name = Literal["ranvier", "synapse"]

ROOT: Final = Path(__file__).parent.parent
SYNAPSE_ENVIRONMENT: Final = ROOT / ".venv-synapse"
SHARED_SECRET: Final = "benchmark"
SERVER_CORE: Final = 0
"""Servers run here; whoever loads them runs on the other cores."""

SETTLE_STEP_S: Final = 1.0
SETTLE_STEPS: Final = 30


class Peer(msgspec.Struct, frozen=True):
    """A running server."""

    name: Name
    port: int
    pid: int
    started_s: float  # from the start of the process to its first answer

    def memory_mib(self) -> float:
        """Resident memory now."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024

    async def settle(self) -> None:
        """Wait until the server has done what earlier work left to the background, such as indexing."""
        for _ in range(SETTLE_STEPS):
            before = self._cpu_s()
            await asyncio.sleep(SETTLE_STEP_S)
            if self._cpu_s() - before < SETTLE_STEP_S / 20:
                return

    def _cpu_s(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def connect(self, token: str | None = None) -> Connection:
        return Connection(self.port, token)

    async def register(self, username: str) -> str:
        """An access token of a new user."""
        connection = self.connect()
        answer = await connection.call(
            "POST",
            "/_matrix/client/v3/register",
            {"username": username, "password": "correct horse", "auth": {"type": "m.login.dummy"}},
        )
        connection.close()
        return str(answer["access_token"])


@asynccontextmanager
async def running(name: Name, port: int) -> AsyncIterator[Peer]:
    """Start a server with an empty database and stop it in the end."""
    directory = Path(tempfile.mkdtemp(prefix=f"bench-{name}-"))
    command = await asyncio.to_thread(_ranvier if name == "ranvier" else _synapse, directory, port)
    try:
        async with started(name, port, directory, command) as peer:
            yield peer
    finally:
        shutil.rmtree(directory)


@asynccontextmanager
async def running_ranvier(directory: Path, port: int, database: str) -> AsyncIterator[Peer]:
    """Start Ranvier with its data in a directory that stays, and with the database of an URL; stop it in the end."""
    async with started("ranvier", port, directory, _ranvier(directory, port, database)) as peer:
        yield peer


@asynccontextmanager
async def started(name: Name, port: int, directory: Path, command: Sequence[str]) -> AsyncIterator[Peer]:
    """Run a server's command on its core until it answers, and stop it in the end."""
    with (directory / "log").open("wb") as log:
        begin = time.perf_counter()
        process = subprocess.Popen(  # noqa: ASYNC220 - it does not block: the server starts by itself
            ["taskset", "-c", str(SERVER_CORE), *command],
            stdout=log,
            stderr=log,
            cwd=directory,
            env=_environment(),
        )
    try:
        await _wait_for_answer(process, port, directory / "log")
        yield Peer(name, port, process.pid, time.perf_counter() - begin)
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(process.wait, 20)


def _environment() -> dict[str, str]:
    """This process's, but compiled modules are kept, as they are wherever a server is installed."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def _ranvier(directory: Path, port: int, database: str = "sqlite:ranvier.db") -> list[str]:
    (directory / "ranvier.toml").write_text(
        f"""
        server_name = "bench"
        data_dir = "data"
        [database]
        url = "{database}"
        [[listeners]]
        bind = "127.0.0.1:{port}"
        [registration]
        mode = "open"
        [rate_limits]
        enabled = false
        [log]
        level = "warning"
        """
    )
    return [
        str(Path(sys.executable).parent / "ranvier"),
        "serve",
        "--config",
        str(directory / "ranvier.toml"),
    ]


def _synapse(directory: Path, port: int) -> list[str]:
    python = SYNAPSE_ENVIRONMENT / "bin" / "python"
    if not python.exists():
        raise RuntimeError("Synapse is not installed: `make bench` does that")
    config = directory / "homeserver.yaml"
    subprocess.run(
        [
            *(str(python), "-m", "synapse.app.homeserver", "--generate-config", "--report-stats=no"),
            *("--server-name=bench", f"--config-path={config}", f"--data-directory={directory}"),
        ],
        check=True,
        capture_output=True,
    )
    generous = "{per_second: 100000, burst_count: 100000}"
    (directory / "bench.yaml").write_text(
        f"""
listeners: [{{port: {port}, bind_addresses: ["127.0.0.1"], type: http, resources: [{{names: [client]}}]}}]
enable_registration: true
enable_registration_without_verification: true
registration_shared_secret: {SHARED_SECRET}
rc_message: {generous}
rc_registration: {generous}
rc_joins: {{local: {generous}, remote: {generous}}}
rc_joins_per_room: {generous}
rc_invites: {{per_room: {generous}, per_user: {generous}, per_issuer: {generous}}}
rc_login: {{address: {generous}, account: {generous}, failed_attempts: {generous}}}
rc_room_creation: {generous}
trusted_key_servers: []
bcrypt_rounds: 4
presence: {{enabled: false}}
log_config: {directory}/log.yaml
"""
    )
    (directory / "log.yaml").write_text("version: 1\nroot: {level: ERROR}\ndisable_existing_loggers: true\n")
    return [
        *(str(python), "-m", "synapse.app.homeserver"),
        *(f"--config-path={config}", f"--config-path={directory / 'bench.yaml'}"),
    ]


async def _wait_for_answer(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended at once:\n{_end_of(log)}")
        connection = Connection(port)
        try:
            status, _ = await connection.request("GET", "/_matrix/client/versions")
            connection.close()
            if status == 200:
                return
        except (OSError, asyncio.IncompleteReadError):
            await asyncio.sleep(0.02)
    raise RuntimeError("the server does not answer")


def _end_of(log: Path) -> str:
    return log.read_text()[-3000:]


def use_other_cores() -> None:
    """Keep the load off the server's core, where there is another one."""
    cores = os.sched_getaffinity(0) - {SERVER_CORE}
    if cores:
        os.sched_setaffinity(0, cores)
