"""Signing in by OAuth 2.0 with matrix-js-sdk, the library of Element Web, against a real server process."""

import asyncio

import pytest

from .process import ServerProcess
from .test_js_sdk import FOLDER, _until, node

__all__ = ["node"]


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_a_person_signs_in_by_oauth(node: str, server: ServerProcess) -> None:
    script = await asyncio.create_subprocess_exec(
        *(node, "oauth.mjs", server.url),
        cwd=FOLDER,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert script.stdout is not None
    try:
        async with asyncio.timeout(180):
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
