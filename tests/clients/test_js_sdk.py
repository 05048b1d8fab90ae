"""matrix-js-sdk, the library of Element Web, in Node against a real server process."""

import pytest

from .js_script import run_script
from .process import ServerProcess


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_two_people_chat_through_the_js_sdk(node: str, server: ServerProcess) -> None:
    await run_script(node, "chat.mjs", server.url, log=server.log, meanwhile=server.restart)


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_two_people_chat_encrypted_and_a_new_device_restores_the_backup(
    node: str, server: ServerProcess
) -> None:
    await run_script(node, "encrypted.mjs", server.url, log=server.log)
