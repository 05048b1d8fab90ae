"""Two homeservers over real sockets with real certificates: what the network in memory leaves out."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from ranvier.app.config import FederationConfig, ListenerConfig
from ranvier.app.listeners import Listener

from ..http.client import segment
from ..http.homeserver import Homeserver, running_homeserver
from ..unit.certificates import Authority
from .network import FEDERATION_APIS

C = "/_matrix/client/v3"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def listening(server: Homeserver, port: int, files: tuple[Path, Path]) -> AsyncIterator[None]:
    """Others reach the server at a port, with a certificate and its key."""
    certificate, key = files
    config = ListenerConfig(bind=f"127.0.0.1:{port}", tls_certificate=certificate, tls_private_key=key)
    listener = Listener(config, server.app(FEDERATION_APIS))
    task = asyncio.create_task(listener.run())
    try:
        yield
    finally:
        listener.stop()
        await task


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Homeserver, Homeserver]]:
    authority = Authority(tmp_path)
    ports = {"one.test": free_port(), "two.test": free_port()}
    federation = FederationConfig(
        ca_file=authority.ca_file,
        allow_private_addresses=("127.0.0.0/8",),
        addresses={name: f"127.0.0.1:{port}" for name, port in ports.items()},
    )
    async with AsyncExitStack() as stack:
        servers = []
        for name, port in ports.items():
            running = running_homeserver(tmp_path / name, server_name=name, federation=federation)
            server = await stack.enter_async_context(running)
            await stack.enter_async_context(listening(server, port, authority.issue(f"DNS:{name}")))
            servers.append(server)
        yield servers[0], servers[1]


async def test_users_of_two_servers_talk(pair: tuple[Homeserver, Homeserver]) -> None:
    one, two = pair
    alice, bob = await one.register("alice"), await two.register("bob")
    created = await alice.post(f"{C}/createRoom", {"preset": "public_chat"})
    room_id = segment(created.json["room_id"])
    joined = await bob.post(f"{C}/join/{room_id}?server_name=one.test", {})
    assert joined.status == 200, joined.body
    since = (await alice.get(f"{C}/sync", timeout=0)).json["next_batch"]
    said = await bob.put(f"{C}/rooms/{room_id}/send/m.room.message/1", {"body": "over the wire"})
    assert said.status == 200, said.body
    heard: list[str] = []
    for _ in range(20):
        sync = (await alice.get(f"{C}/sync", since=since, timeout=2000)).json
        since = sync["next_batch"]
        for room in sync.get("rooms", {}).get("join", {}).values():
            heard += [event["event_id"] for event in room["timeline"]["events"]]
        if said.json["event_id"] in heard:
            return
    raise AssertionError(f"{said.json} was not heard: {heard}")
