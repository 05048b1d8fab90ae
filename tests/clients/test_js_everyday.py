"""What people do all day, through matrix-js-sdk, in Node against a real server process."""

import pytest

from .js_script import run_script
from .process import ServerProcess


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_no_request_of_an_everyday_client_is_answered_unexpectedly(
    node: str, server: ServerProcess
) -> None:
    await run_script(node, "everyday.mjs", server.url, log=server.log)
