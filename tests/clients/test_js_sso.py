"""Single sign-on and the meeting of two devices, through matrix-js-sdk, against a real server process."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from .process import ServerProcess, free_port
from .test_js_sdk import FOLDER, node

__all__ = ["node"]


@pytest.fixture
def provider_port() -> int:
    return free_port()


@pytest.fixture
def server(tmp_path: Path, provider_port: int) -> Iterator[ServerProcess]:
    provider = (
        f'[{{id = "idp", name = "IdP", issuer = "http://127.0.0.1:{provider_port}", client_id = "matrix", '
        "allow_private_address = true}]"
    )
    process = ServerProcess(tmp_path, RANVIER__SSO__PROVIDERS=provider)
    process.set(RANVIER__PUBLIC_BASE_URL=process.url)
    process.start()
    try:
        yield process
        process.stop()
        assert "Traceback" not in process.log(), process.log()[-5000:]
    finally:
        process.kill()


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_a_person_signs_in_elsewhere_and_two_devices_meet(
    node: str, server: ServerProcess, provider_port: int
) -> None:
    script = await asyncio.create_subprocess_exec(
        *(node, "sso.mjs", server.url, str(provider_port)),
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
