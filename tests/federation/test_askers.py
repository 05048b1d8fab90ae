"""Whoever may name any server, without an account even, does not use up what all share for asking servers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from ranvier.app.config import FederationConfig, MediaConfig
from ranvier.http.endpoint import Api
from ranvier.services.accounts import remote_profiles
from ranvier.services.federation import directories
from ranvier.services.media import remote as remote_media
from ranvier.services.remote import keyring

from ..http.client import Answer, Client
from ..http.homeserver import Homeserver, eventually
from .network import Network

CLIENT = "/_matrix/client/v3"


def signed(client: Client, server: str) -> Any:
    """A transaction that says that it is signed by the server."""
    header = f'X-Matrix origin="{server}",destination="one.test",key="ed25519:k",sig="{"A" * 86}"'
    body = f'{{"origin":"{server}","origin_server_ts":1,"pdus":[]}}'.encode()
    return client.request(
        "PUT", "/_matrix/federation/v1/send/1", body=body, headers={"Authorization": header}
    )


WAYS: list[tuple[Callable[[Client, str], Any], int, int]] = [
    (signed, keyring.FETCHES_OF_ONE, 401),
    (lambda client, server: client.get(f"/_matrix/key/v2/query/{server}"), keyring.FETCHES_OF_ONE, 200),
    (
        lambda client, server: client.get(f"{CLIENT}/directory/room/%23a:{server}"),
        directories.ASKED_FOR_ONE,
        404,
    ),
    (
        lambda client, server: client.get(f"{CLIENT}/publicRooms", server=server),
        directories.ASKED_FOR_ONE,
        502,
    ),
    (
        lambda client, server: client.get(f"{CLIENT}/profile/@a:{server}"),
        remote_profiles.ASKED_FOR_ONE,
        404,
    ),
    (
        lambda client, server: client.get(f"/_matrix/media/v3/download/{server}/a"),
        remote_media.FETCHED_FOR_ONE,
        404,
    ),
]


class Slow:
    """Servers that take a request and do not answer it; and one that knows nothing."""

    def __init__(self, network: Network) -> None:
        self.under_way = 0
        self._go_on = asyncio.Event()
        for number in range(60):
            network.add(f"slow{number}.test", self.hang)
        network.add("fast.test", self._answer)

    def end(self) -> None:
        self._go_on.set()

    async def hang(self, scope: Any, receive: Any, send: Any) -> None:
        self.under_way += 1
        await self._go_on.wait()
        await self._answer(scope, receive, send)

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b'{"errcode":"M_NOT_FOUND"}'})


@pytest.fixture
async def server(network: Network) -> Homeserver:
    return await network.server(
        "one",
        media=MediaConfig(unauthenticated_downloads=True),
        federation=FederationConfig(),
    )


@pytest.fixture
async def slow(network: Network) -> AsyncIterator[Slow]:
    slow = Slow(network)
    yield slow
    slow.end()


@pytest.mark.parametrize(("ask", "bound", "status"), WAYS)
async def test_one_client_is_in_nobodys_way(
    network: Network, server: Homeserver, slow: Slow, ask: Callable, bound: int, status: int
) -> None:
    app = server.app(frozenset(Api))
    greedy = [Client(app, ip=f"2001:db8:1:2::{number:x}") for number in range(1, 41)]
    asked = [asyncio.create_task(ask(client, f"slow{n}.test")) for n, client in enumerate(greedy)]

    async def is_at_its_bound() -> bool:
        return slow.under_way >= bound

    await eventually(is_at_its_bound)
    other: Answer = await asyncio.wait_for(ask(Client(app, ip="192.0.2.7"), "fast.test"), 10)
    assert other.status == status
    assert slow.under_way == bound
    slow.end()
    assert {answer.status for answer in await asyncio.gather(*asked)} == {status}


async def test_too_many_at_once_are_refused(network: Network, server: Homeserver, slow: Slow) -> None:
    client = Client(server.app(frozenset(Api)))
    most = keyring.FETCHES_OF_ONE + keyring.WAITING_OF_ONE
    names = [f"slow.test:{10_000 + n}" for n in range(most + 2)]
    for name in names:
        network.add(name, slow.hang)
    asked = [asyncio.create_task(signed(client, name)) for name in names]

    async def are_two_answered() -> bool:
        return sum(task.done() for task in asked) >= 2

    await eventually(are_two_answered)
    assert {task.result().errcode for task in asked if task.done()} == {"M_LIMIT_EXCEEDED"}
    slow.end()
    answers = await asyncio.gather(*asked)
    assert [answer.status for answer in answers].count(429) == 2
