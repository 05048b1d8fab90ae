"""Servers publish their keys, vouch for those of others, and know who asks them."""

from typing import Any

import pytest

from ranvier.app.config import FederationConfig
from ranvier.core.federation.xmatrix import bytes_to_sign, sign_request
from ranvier.core.identifiers import ServerName
from ranvier.core.signing import SigningKey, verify_json
from ranvier.io.ports import HttpResponse

from ..http.client import Client
from .network import FEDERATION_APIS, Network
from .peer import Peer

SEND = "/_matrix/federation/v1/send/1"
EMPTY = b'{"origin":"peer.test","origin_server_ts":1,"pdus":[]}'


async def test_own_keys_are_published_signed_and_for_long_enough(network: Network) -> None:
    server = await network.server("one")
    document = (await server.client.get("/_matrix/key/v2/server")).json
    assert document["server_name"] == "one.test"
    key = server.foundation.ports.signing_keys[0]
    assert document["verify_keys"] == {key.key_id: {"key": key.verify_key.encode()}}
    verify_json(document, "one.test", key.key_id, key.verify_key)
    assert document["valid_until_ts"] - network.clock.now_ms() > 3_600_000
    network.clock.skip(30 * 3600)
    later = (await server.client.get("/_matrix/key/v2/server/ed25519:old")).json
    assert later["valid_until_ts"] > document["valid_until_ts"] + 24 * 3_600_000


async def test_a_notary_vouches_for_what_it_fetched(network: Network) -> None:
    server, peer = await network.server("one"), Peer(network)
    key = server.foundation.ports.signing_keys[0]
    for answer in (
        await server.client.get("/_matrix/key/v2/query/peer.test"),
        await server.client.post(
            "/_matrix/key/v2/query", {"server_keys": {"peer.test": {"ed25519:k1": {}}, "gone.test": {}}}
        ),
    ):
        (document,) = answer.json["server_keys"]
        verify_json(document, "one.test", key.key_id, key.verify_key)
        verify_json(document, "peer.test", peer.key.key_id, peer.key.verify_key)
    assert len(peer.asked) == 1
    # What is too old for the question is fetched anew; where that fails, the last known keys are told.
    network.clock.skip(3600)
    await server.client.get("/_matrix/key/v2/query/peer.test")
    assert len(peer.asked) == 2
    network.cut("one", "peer")
    network.clock.skip(7200)
    (document,) = (await server.client.get("/_matrix/key/v2/query/peer.test")).json["server_keys"]
    assert document["server_name"] == "peer.test"
    own = await server.client.get("/_matrix/key/v2/query/one.test")
    assert own.json["server_keys"][0]["server_name"] == "one.test"


@pytest.mark.parametrize(
    "body", [{}, {"server_keys": []}, {"server_keys": {"peer.test": 7}}, {"server_keys": {"no name": {}}}]
)
async def test_a_malformed_key_query_is_refused(network: Network, body: Any) -> None:
    server = await network.server("one")
    assert (await server.client.post("/_matrix/key/v2/query", body)).status == 400


async def test_version(network: Network) -> None:
    server = await network.server("one")
    answer = await server.client.get("/_matrix/federation/v1/version")
    assert answer.json["server"]["name"] == "Ranvier"
    assert answer.json["server"]["version"]


class Asker:
    """Sends one and the same request, signed in some way."""

    def __init__(self, server: Any, peer: Peer) -> None:
        self.server, self.peer = server, peer

    async def ask(
        self,
        *,
        body: bytes = EMPTY,
        signed: bytes | None = None,
        origin: str = "peer.test",
        destination: str = "one.test",
        uri: str = SEND,
        key: SigningKey | None = None,
        header: str | None = None,
    ) -> Any:
        message = bytes_to_sign(
            method="PUT",
            uri=uri,
            origin=ServerName(origin),
            destination=ServerName(destination),
            content=body if signed is None else signed,
        )
        value = sign_request(key or self.peer.key, message, ServerName(origin), ServerName(destination))
        return await Client(self.server.app(FEDERATION_APIS)).request(
            "PUT", SEND, body=body, headers={"Authorization": header or value}
        )


async def test_who_asks_is_known_by_signature(network: Network) -> None:
    peer = Peer(network)
    asker = Asker(await network.server("one"), peer)
    assert (await asker.ask()).status == 200
    # What is signed is the canonical form, however the body is written.
    spaced = EMPTY.replace(b":", b" : ")
    assert (await asker.ask(body=spaced, signed=EMPTY)).status == 200
    refused = [
        await asker.ask(body=EMPTY.replace(b"1", b"2"), signed=EMPTY),
        await asker.ask(uri=SEND + "?a=b"),
        await asker.ask(destination="two.test"),
        await asker.ask(origin="gone.test"),
        await asker.ask(key=SigningKey(b"x" * 32, "k1")),
        await asker.ask(key=SigningKey(b"x" * 32, "k2")),
        await asker.ask(header="Bearer token"),
        await asker.ask(header="X-Matrix origin=peer.test"),
        await asker.server.client.put(SEND, {}),
    ]
    assert [(answer.status, answer.errcode) for answer in refused] == [(401, "M_UNAUTHORIZED")] * len(refused)
    assert len([path for _, path in peer.asked if path == "/_matrix/key/v2/server"]) <= 2


async def test_a_key_that_ran_out_is_asked_for_again(network: Network) -> None:
    peer = Peer(network)
    asker = Asker(await network.server("one"), peer)
    assert (await asker.ask()).status == 200
    network.clock.skip(7200)
    assert (await asker.ask()).status == 200
    assert len(peer.asked) == 2
    # A key that the server does not publish any more is no key of it.
    network.clock.skip(7200)
    old, peer.key = peer.key, SigningKey(b"n" * 32, "new")
    assert (await asker.ask(key=old)).status == 401
    network.clock.skip(60)
    assert (await asker.ask()).status == 200


async def test_a_server_without_keys_is_not_asked_for_them_all_the_time(network: Network) -> None:
    peer = Peer(network)
    asker = Asker(await network.server("one"), peer)
    asked = []
    network.before["peer.test"] = lambda request: asked.append(request) or HttpResponse(500, {}, b"{}")
    for _ in range(5):
        assert (await asker.ask()).status == 401
    assert len(asked) == 1
    del network.before["peer.test"]
    network.clock.skip(3600)
    assert (await asker.ask()).status == 200


async def test_keys_come_from_a_notary_where_one_is_configured(network: Network) -> None:
    peer = Peer(network)
    await network.server("two")
    server = await network.server("one", federation=FederationConfig(trusted_notaries=("two.test",)))
    network.cut("one", "peer")
    assert (await Asker(server, peer).ask()).status == 200
