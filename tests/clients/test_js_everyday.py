"""What people do all day, through matrix-js-sdk, in Node against a real server process."""

import asyncio

import pytest

from .process import ServerProcess
from .test_js_sdk import FOLDER, node

__all__ = ["node"]


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_no_request_of_an_everyday_client_is_answered_unexpectedly(
    node: str, server: ServerProcess
) -> None:
    script = await asyncio.create_subprocess_exec(
        *(node, "everyday.mjs", server.url),
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
