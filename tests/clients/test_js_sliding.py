"""Sliding sync as matrix-js-sdk speaks it, in Node against a real server process."""

import asyncio

import pytest

from .process import ServerProcess
from .test_js_sdk import FOLDER, node

__all__ = ["node"]


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_the_js_sdk_looks_through_windows(node: str, server: ServerProcess) -> None:
    script = await asyncio.create_subprocess_exec(
        *(node, "sliding.mjs", server.url),
        cwd=FOLDER,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(180):
            output, errors = await script.communicate()
        assert output.endswith(b"DONE\n"), errors.decode()[-4000:] + server.log()[-2000:]
    finally:
        if script.returncode is None:
            script.kill()
            await script.wait()
