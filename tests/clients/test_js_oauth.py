"""Signing in by OAuth 2.0 with matrix-js-sdk, the library of Element Web, against a real server process."""

import pytest

from .js_script import run_script
from .process import ServerProcess


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_a_person_signs_in_by_oauth(node: str, server: ServerProcess) -> None:
    await run_script(node, "oauth.mjs", server.url, log=server.log, meanwhile=server.restart)
