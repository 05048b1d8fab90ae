"""Invites to an email address whose owner turns out to be a user of some server."""

from typing import Any

import pytest

from ranvier.core.canonical_json import encode
from ranvier.core.signing import SigningKey, sign_json

from ..http.client import Answer, Client, segment
from ..http.homeserver import Homeserver, User
from .network import Network
from .peer import Peer
from .test_rooms import create_room, join, membership, until

IDENTITY = SigningKey(b"identity".ljust(32, b"."), "0")
ONBIND = "/_matrix/federation/v1/3pid/onbind"


def signed(mxid: str, token: str = "tok", key: SigningKey = IDENTITY) -> Any:
    return sign_json({"mxid": mxid, "token": token}, "id.test", key)


async def offer(user: User, room_id: str, token: str = "tok") -> None:
    """Invite somebody of whom only an address is known."""
    key = IDENTITY.verify_key.encode()
    path = f"/_matrix/client/v3/rooms/{segment(room_id)}/state/m.room.third_party_invite/{token}"
    content = {"display_name": "b...@x", "key_validity_url": "https://id.test", "public_key": key}
    answer = await user.put(path, content | {"public_keys": [{"public_key": key}]})
    assert answer.status == 200, answer.body


async def bind(network: Network, server: Homeserver, user_id: str, in_room: str, **more: Any) -> Answer:
    """What the identity server tells the server of whoever has the address."""
    invite = {"medium": "email", "address": "b@x", "mxid": user_id, "room_id": in_room}
    invite |= {"sender": "@alice:one.test", "signed": signed(user_id)} | more
    body = {"medium": "email", "address": "b@x", "mxid": user_id, "invites": [invite]}
    return await Client(network.app_of(server)).put(ONBIND, body)


@pytest.mark.parametrize("version", ["1", "10", "12"])
@pytest.mark.parametrize("is_there", [False, True], ids=["outside", "inside"])
async def test_owner_of_the_address_is_invited(network: Network, version: str, is_there: bool) -> None:
    """Whether or not the owner's server is in the room; and all servers of the room know of the invite."""
    one, two = await network.server("one"), await network.server("two")
    alice, bob, carol = await one.register("alice"), await two.register("bob"), await two.register("carol")
    room_id = await create_room(alice, version, preset="private_chat", invite=[carol.user_id])
    if is_there:
        assert (await join(carol, room_id)).status == 200
    await offer(alice, room_id)
    if is_there:

        async def knows() -> bool:
            path = f"/_matrix/client/v3/rooms/{segment(room_id)}/state/m.room.third_party_invite/tok"
            return (await carol.get(path)).status == 200

        await until(knows)
    answer = await bind(network, two, bob.user_id, room_id)
    assert (answer.status, answer.json) == (200, {})

    async def is_invited() -> bool:
        return await membership(alice, room_id, bob.user_id) == "invite"

    await until(is_invited, "the invite on the inviter's server")
    synced = (await bob.get("/_matrix/client/v3/sync")).json
    assert room_id in synced["rooms"]["invite"]
    assert (await join(bob, room_id)).status == 200
    again = await bind(network, two, bob.user_id, room_id)
    assert again.status == 200
    assert await membership(bob, room_id, bob.user_id) == "join", "an old signature does not undo the join"


async def test_wrong_signatures_invite_nobody(network: Network) -> None:
    one, two = await network.server("one"), await network.server("two")
    alice, bob = await one.register("alice"), await two.register("bob")
    room_id = await create_room(alice, "12", preset="private_chat")
    await offer(alice, room_id)
    other = SigningKey(b"other".ljust(32, b"."), "0")
    for more in (
        {"signed": signed(bob.user_id, key=other)},
        {"signed": signed(bob.user_id, "other")},
        {"signed": signed("@eve:two.test")},
        {"signed": {"mxid": bob.user_id, "token": "tok", "signatures": {"id.test": 7}}},
        {"signed": {"mxid": bob.user_id}},
        {"sender": "@nobody:one.test"},
        {"sender": "nobody"},
        {"room_id": "!elsewhere:one.test"},
    ):
        assert (await bind(network, two, bob.user_id, room_id, **more)).status == 200
        assert await membership(alice, room_id, bob.user_id) is None, more
    assert (await bind(network, two, "@nobody:two.test", room_id)).status == 200
    assert await membership(alice, room_id, "@nobody:two.test") is None


async def test_unreached_server_is_told_of(network: Network) -> None:
    """The identity server is to come again."""
    one, two = await network.server("one"), await network.server("two")
    alice, bob = await one.register("alice"), await two.register("bob")
    room_id = await create_room(alice, "12", preset="private_chat")
    await offer(alice, room_id)
    network.cut("one", "two")
    assert (await bind(network, two, bob.user_id, room_id)).status == 502
    network.heal()
    network.clock.skip(3600)
    assert (await bind(network, two, bob.user_id, room_id)).status == 200
    assert await membership(alice, room_id, bob.user_id) == "invite"


async def test_exchange_refusals(network: Network) -> None:
    one = await network.server("one")
    alice, peer = await one.register("alice"), Peer(network)
    room_id = await create_room(alice, "12", preset="private_chat")
    await offer(alice, room_id)
    bob = peer.user("bob")

    async def exchange(**more: Any) -> Answer:
        body = {"type": "m.room.member", "room_id": room_id, "sender": alice.user_id, "state_key": bob}
        invite = {"display_name": "b", "signed": signed(bob)}
        body |= {"content": {"membership": "invite", "third_party_invite": invite}} | more
        path = f"/_matrix/federation/v1/exchange_third_party_invite/{segment(room_id)}"
        return await peer.request(one, "PUT", path, encode(body))

    assert (await exchange(type="m.room.message")).errcode == "M_INVALID_PARAM"
    assert (await exchange(room_id="!other:one.test")).errcode == "M_INVALID_PARAM"
    assert (await exchange(state_key="@bob:elsewhere.test")).errcode == "M_FORBIDDEN"
    assert (await exchange(sender=peer.user("eve"))).errcode == "M_FORBIDDEN"
    assert (await exchange(sender="@mallory:one.test")).errcode == "M_FORBIDDEN"
    bad = {"membership": "invite", "third_party_invite": {"display_name": "b", "signed": signed(bob, "x")}}
    assert (await exchange(content=bad)).errcode == "M_FORBIDDEN"
    assert (await exchange(content={"membership": "invite"})).errcode == "M_MISSING_PARAM"
    refused = await exchange()
    assert refused.status == 502, "the peer does not answer to the invite that this brings about"
