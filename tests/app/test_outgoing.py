"""What speaks to other machines is loaded when it is needed, once, and not before."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp import web

from ranvier.app.outgoing import Outgoing
from ranvier.io.address_guard import AddressGuard
from ranvier.io.ports import AddressRefused, HttpRequest

HEAVY = {"aiohttp", "dns", "psycopg", "PIL", "lxml"}
"""A third of the time to start, and of the memory after it."""


def test_a_server_starts_without_what_it_does_not_need_yet(tmp_path: Path) -> None:
    program = f"""
import asyncio, sys
from pathlib import Path
import ranvier.app.cli
from ranvier.app.build import assemble, open_ports
from ranvier.app.config import Config
from ranvier.http.endpoint import Api

async def start():
    homeserver = assemble(await open_ports(Config(server_name="a.test", data_dir=Path({str(tmp_path)!r}))))
    homeserver.app(frozenset(Api))
    await homeserver.close()

asyncio.run(start())
print(*sorted({HEAVY!r} & sys.modules.keys()))
"""
    out = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert out.stdout.strip() == ""


@pytest.fixture
async def url() -> object:
    async def hello(_request: web.Request) -> web.Response:
        return web.Response(text="hello")

    app = web.Application()
    app.router.add_get("/", hello)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/"
    await runner.cleanup()


async def test_each_client_has_its_guard_and_all_are_opened_once(url: str) -> None:
    outgoing = Outgoing((AddressGuard(), AddressGuard(denied=())), "Test/1")
    guarded, unguarded = outgoing.client(), outgoing.client(1)
    request = HttpRequest(method="GET", url=url)
    answers = await asyncio.gather(*(unguarded.send(request) for _ in range(5)))
    assert [answer.body for answer in answers] == [b"hello"] * 5
    with pytest.raises(AddressRefused):
        await guarded.send(request)
    async with unguarded.stream(request) as response:
        assert b"".join([chunk async for chunk in response.chunks()]) == b"hello"
    assert await outgoing.ways() is await outgoing.ways()
    assert "127.0.0.1" in await outgoing.resolver().resolve_host("localhost")
    await outgoing.close()


async def test_who_gives_up_leaves_it_to_the_others(url: str) -> None:
    outgoing = Outgoing((AddressGuard(denied=()),), "Test/1")
    impatient = asyncio.create_task(outgoing.ways())
    patient = asyncio.create_task(outgoing.client().send(HttpRequest(method="GET", url=url)))
    await asyncio.sleep(0)
    impatient.cancel()
    assert (await patient).body == b"hello"
    await outgoing.close()


async def test_what_was_never_opened_is_closed_at_once() -> None:
    await Outgoing((AddressGuard(),), "Test/1").close()
