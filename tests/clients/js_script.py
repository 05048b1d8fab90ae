"""Scripts with matrix-js-sdk, the library of Element Web, that run in Node against a server."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent / "js"
SECONDS = 180


def find_node() -> str:
    """The Node program, with the SDK installed beside the scripts."""
    program, npm = shutil.which("node"), shutil.which("npm")
    if program is None or npm is None:
        reason = "Node is not installed: the tests with matrix-js-sdk cannot run"
        assert "CI" not in os.environ, reason
        pytest.skip(reason)
    if not (FOLDER / "node_modules" / ".package-lock.json").exists():
        subprocess.run(
            [npm, "ci", "--no-audit", "--no-fund"], cwd=FOLDER, check=True, capture_output=True, timeout=300
        )
    return program


async def run_script(
    node: str,
    name: str,
    *args: str,
    log: Callable[[], str],
    meanwhile: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Run a script to its end, which must be the line DONE.

    `log`: what the server wrote, shown when the script fails. `meanwhile`: what happens when the script prints PAUSE;
    if it waits for that, it reads a line.
    """
    script = await asyncio.create_subprocess_exec(
        *(node, name, *args),
        cwd=FOLDER,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert script.stdout is not None
    said = b""
    try:
        async with asyncio.timeout(SECONDS):
            if meanwhile is not None:
                said = b"".join([line async for line in _until(script.stdout, b"PAUSE\n")])
                await meanwhile()
            output, errors = await script.communicate(b"go\n")
        # The SDK writes what it does to the standard output, too.
        assert output.endswith(b"DONE\n"), (said + output + errors).decode()[-6000:] + log()[-3000:]
    finally:
        if script.returncode is None:
            script.kill()
            await script.wait()


async def _until(stream: asyncio.StreamReader, last: bytes) -> AsyncIterator[bytes]:
    """The lines of a stream up to one of them, or to its end."""
    async for line in stream:
        yield line
        if line == last:
            return
