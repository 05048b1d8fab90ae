"""matrix-js-sdk, the library of Element Web, in Node against a real server process."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from .process import ServerProcess

FOLDER = Path(__file__).parent / "js"


@pytest.fixture(scope="module")
def node() -> str:
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


async def _until(stream: asyncio.StreamReader, last: bytes) -> AsyncIterator[bytes]:
    """The lines of a stream up to one of them, or to its end."""
    async for line in stream:
        yield line
        if line == last:
            return


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_two_people_chat_through_the_js_sdk(node: str, server: ServerProcess) -> None:
    script = await asyncio.create_subprocess_exec(
        *(node, "chat.mjs", server.url),
        cwd=FOLDER,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert script.stdin is not None
    assert script.stdout is not None
    try:
        async with asyncio.timeout(120):
            # The SDK logs to standard output, too.
            said = [line async for line in _until(script.stdout, b"RESTART\n")]
            server.stop()
            server.start()
            output, errors = await script.communicate(b"go\n")
        assert output.endswith(b"DONE\n"), (
            b"".join([*said, output, errors]).decode()[-6000:] + server.log()[-2000:]
        )
    finally:
        if script.returncode is None:
            script.kill()
            await script.wait()


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_two_people_chat_encrypted_and_a_new_device_restores_the_backup(
    node: str, server: ServerProcess
) -> None:
    script = await asyncio.create_subprocess_exec(
        *(node, "encrypted.mjs", server.url),
        cwd=FOLDER,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(180):
            output, errors = await script.communicate()
        # The SDK writes what it does to the standard output, too.
        assert output.endswith(b"DONE\n"), errors.decode()[-4000:] + server.log()[-2000:]
    finally:
        if script.returncode is None:
            script.kill()
            await script.wait()
