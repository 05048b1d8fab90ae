"""Encrypted chat across servers through matrix-js-sdk: two real processes that federate over TLS on loopback."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from ..federation.test_synapse import RANVIER, SYNAPSE, Server, start_ranvier, start_synapse
from ..unit.certificates import Authority
from .js_script import run_script

Start = Callable[[Path, Authority], Server]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "start_other",
    [
        pytest.param(start_ranvier, id="ranvier"),
        pytest.param(
            start_synapse,
            id="synapse",
            marks=pytest.mark.skipif(not SYNAPSE.exists(), reason="Synapse is not installed"),
        ),
    ],
)
async def test_two_people_of_two_servers_chat_encrypted(
    node: str, tmp_path: Path, start_other: Start
) -> None:
    authority = Authority(tmp_path)
    one = start_ranvier(tmp_path / "one", authority)
    other = start_other(tmp_path / "other", authority)

    def log() -> str:
        return (one.directory / "log").read_text()

    async def restart() -> None:
        await asyncio.sleep(0.5)
        assert one.process is not None
        one.process.kill()
        one.process.wait()
        one.start(str(RANVIER), "serve", "--config", str(one.directory / "ranvier.toml"))

    try:
        async with aiohttp.ClientSession() as session:
            await asyncio.gather(one.wait(session), other.wait(session))
        urls = [f"http://127.0.0.1:{server.client_port}" for server in (one, other)]
        await run_script(node, "federated.mjs", *urls, log=log, meanwhile=restart)
        assert "Traceback" not in log(), log()[-5000:]
    finally:
        for server in (one, other):
            server.stop()
