"""A server of this checkout as a process of its own, for clients that speak HTTP over sockets."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

RANVIER = Path(sys.executable).parent / "ranvier"
START_SECONDS = 180  # a second, unless all processors are busy with other work


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


class ServerProcess:
    """Starts, stops, kills and restarts one server; its data stays in `directory`."""

    def __init__(self, directory: Path, **environment: str) -> None:
        self.directory = directory
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = {
            **os.environ,
            "RANVIER__REGISTRATION__MODE": "open",
            "RANVIER__RATE_LIMITS__ENABLED": "false",
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "it was started"
        return self._process.pid

    def set(self, **environment: str) -> None:
        """Settings that name the address of this very server. Before it starts."""
        self._environment |= environment

    def start(self) -> None:
        command = [
            *(str(RANVIER), "serve", "--server-name", "localhost"),
            *("--data-dir", str(self.directory / "data"), "--bind", f"127.0.0.1:{self.port}"),
        ]
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self.directory, env=self._environment, stdout=log, stderr=log
            )
        self._wait_for_answer()

    def _wait_for_answer(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=5):
                    return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.02)
        raise AssertionError(f"the server does not answer:\n{self.log()[-3000:]}")

    def stop(self) -> None:
        """Cleanly; fails when that takes longer than promised or does not end well."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            assert self._process.wait(timeout=10) == 0, self.log()[-3000:]
            self._process = None

    def wait(self) -> int:
        """The exit code, when the server has ended by itself."""
        assert self._process is not None, "it was started"
        code = self._process.wait(timeout=START_SECONDS)
        self._process = None
        return code

    async def restart(self) -> None:
        """Cleanly, while a client waits."""
        self.stop()
        self.start()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def log(self) -> str:
        return (self.directory / "log").read_text()
