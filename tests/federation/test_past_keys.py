"""Servers that are gone: who is believed about what they signed, and that nobody speaks for one that is there."""

from typing import Any

import pytest

from ranvier.app.compose.federation import lay_remote
from ranvier.app.config import FederationConfig
from ranvier.core.federation.notary import build_response
from ranvier.core.federation.server_keys import build_key_document, check_key_document
from ranvier.core.identifiers import KeyID, ServerName
from ranvier.core.signing import SigningKey
from ranvier.io.ports import HttpResponse
from ranvier.services.remote.keyring import Keyring, KeyWanted

from ..http.client import Answer, segment
from ..http.homeserver import User
from .agreement import differences, view_of
from .network import Network
from .peer import Peer

C = "/_matrix/client/v3"
DAY_S = 24 * 3600
FAKE = SigningKey(b"f" * 32, "fake")


async def _join(user: User, room_id: str, via: str) -> Answer:
    return await user.post(f"{C}/join/{segment(room_id)}?server_name={via}", {})


@pytest.mark.parametrize("version", ["12", "10", "4"])
async def test_a_room_of_a_server_that_is_gone_can_be_entered(network: Network, version: str) -> None:
    """`gone` made the room and set its power levels; `host` is still there."""
    gone, host = await network.server("gone"), await network.server("host")
    bob, ann = await gone.register("bob"), await host.register("ann")
    body = {"preset": "public_chat", "room_version": version, "name": "Old"}
    room_id = str((await bob.post(f"{C}/createRoom", body)).json["room_id"])
    assert (await _join(ann, room_id, "gone.test")).status == 200
    await network.stop("gone")
    network.clock.skip(30 * DAY_S)

    strict = await network.server("strict", federation=FederationConfig(past_notaries=()))
    assert (await _join(await strict.register("eve"), room_id, "host.test")).status == 502
    three = await network.server("three", federation=FederationConfig(past_notaries=("host.test",)))
    cid = await three.register("cid")
    entered = await _join(cid, room_id, "host.test")
    assert entered.status == 200, entered.body
    name = await cid.get(f"{C}/rooms/{segment(room_id)}/state/m.room.name/")
    assert name.json == {"name": "Old"}
    sent = await cid.put(
        f"{C}/rooms/{segment(room_id)}/send/m.room.message/1", {"body": "hi", "msgtype": "m.text"}
    )
    assert sent.status == 200
    assert not differences({server.server_name: await view_of(server, room_id) for server in (three,)})


class Liar:
    """A notary that makes up what it likes, beside a server `two` that it lies about."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.peer = Peer(network, "liar")
        self.asked = 0
        self.ended_days_ago = 30

    def document(self) -> bytes:
        until = self.network.clock.now_ms() - self.ended_days_ago * DAY_S * 1000
        document = build_key_document(ServerName("two.test"), [FAKE], {}, until)
        keys = check_key_document(document, ServerName("two.test"), self.network.clock.now_ms())
        return build_response([keys], self.peer.name, self.peer.key)

    def answer(self, request: Any) -> HttpResponse | None:
        if not request.url.endswith("/_matrix/key/v2/query"):
            return None
        self.asked += 1
        return HttpResponse(200, {}, self.document())


@pytest.fixture
async def liar(network: Network) -> Liar:
    liar = Liar(network)
    network.before["liar.test"] = liar.answer
    await network.server("two")
    return liar


async def _keyring(network: Network) -> Keyring:
    one = await network.server("one", federation=FederationConfig(past_notaries=("liar.test",)))
    return lay_remote(one.foundation).keyring


def _wanted(network: Network, days_ago: float) -> KeyWanted:
    signed_ms = network.clock.now_ms() - int(days_ago * DAY_S * 1000)
    return KeyWanted(ServerName("two.test"), FAKE.key_id, signed_ms)


async def test_nobody_is_believed_about_a_server_that_answers(network: Network, liar: Liar) -> None:
    keyring = await _keyring(network)
    assert await keyring.find_keys([_wanted(network, 40)]) == {}
    assert not liar.asked


async def test_nor_about_one_that_was_there_a_while_ago(network: Network, liar: Liar) -> None:
    keyring = await _keyring(network)
    await keyring.find_keys([_wanted(network, 40)])
    network.cut("one", "two")
    network.clock.skip(6 * DAY_S)
    assert await keyring.find_keys([_wanted(network, 40)]) == {}
    assert not liar.asked


@pytest.mark.parametrize(("signed_days_ago", "ended_days_ago", "is_believed"), [
    (40, 30, True),
    (40, 6, False),  # the server was there lately, says the notary itself
    (20, 30, False),  # signed after the end
    (6, 30, False),
    (0, -1, False),
])  # fmt: skip
async def test_only_what_is_long_past_counts(
    network: Network, liar: Liar, signed_days_ago: int, ended_days_ago: int, is_believed: bool
) -> None:
    keyring = await _keyring(network)
    network.cut("one", "two")
    liar.ended_days_ago = ended_days_ago
    wanted = _wanted(network, signed_days_ago)
    assert (wanted in await keyring.find_keys([wanted])) is is_believed
    # It is no key for anything else, and nothing of it is kept.
    assert await keyring.find_request_key(wanted.server, wanted.key_id) is None
    assert await keyring.find_documents([]) == []
    again = await _keyring_without(network)
    assert await again.find_keys([wanted]) == {}


async def _keyring_without(network: Network) -> Keyring:
    await network.stop("one")
    one = await network.server("one", federation=FederationConfig(past_notaries=()))
    return lay_remote(one.foundation).keyring


async def test_a_server_that_is_back_has_the_last_word(network: Network, liar: Liar) -> None:
    keyring = await _keyring(network)
    network.cut("one", "two")
    wanted = _wanted(network, 40)
    assert wanted in await keyring.find_keys([wanted])
    network.heal()
    network.clock.skip(3600)
    # Any look for one of its keys brings the truth.
    await keyring.find_keys([KeyWanted(wanted.server, KeyID("ed25519:other"), wanted.valid_at_ms)])
    assert await keyring.find_keys([wanted]) == {}


async def test_who_remembers_is_not_asked_all_the_time(network: Network, liar: Liar) -> None:
    keyring = await _keyring(network)
    network.cut("one", "two")
    liar.ended_days_ago = 0
    for _ in range(3):
        assert await keyring.find_keys([_wanted(network, 40)]) == {}
    assert liar.asked == 1
