"""Sliding sync as matrix-js-sdk speaks it, in Node against a real server process."""

import pytest

from .js_script import run_script
from .process import ServerProcess


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_the_js_sdk_looks_through_windows(node: str, server: ServerProcess) -> None:
    await run_script(node, "sliding.mjs", server.url, log=server.log)
