"""Single sign-on and the meeting of two devices, through matrix-js-sdk, against a real server process."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from .js_script import run_script
from .process import ServerProcess, free_port


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
    await run_script(node, "sso.mjs", server.url, str(provider_port), log=server.log)
