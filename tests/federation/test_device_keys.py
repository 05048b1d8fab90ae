"""Encryption across servers: keys are asked for, claimed, and known to have changed."""

from typing import Any

import pytest

from ranvier.core.signing import SigningKey, sign_json

from ..http.client import segment
from ..http.homeserver import User
from .network import Network
from .peer import Peer
from .test_rooms import create_room, join, until

C = "/_matrix/client/v3"


def signed(user: User, value: dict[str, Any]) -> dict[str, Any]:
    return sign_json(value, user.user_id, SigningKey(b"d" * 32, user.device_id))


def device_keys(user: User) -> dict[str, Any]:
    key = SigningKey(b"d" * 32, user.device_id)
    value = {
        "user_id": user.user_id,
        "device_id": user.device_id,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2"],
        "keys": {key.key_id: key.verify_key.encode()},
    }
    return signed(user, value)


async def upload(user: User, **more: Any) -> None:
    answer = await user.post(f"{C}/keys/upload", {"device_keys": device_keys(user)} | more)
    assert answer.status == 200, answer.body


@pytest.fixture
async def users(network: Network) -> tuple[User, User]:
    one, two = await network.server("one"), await network.server("two")
    return await one.register("alice"), await two.register("bob")


async def test_query_and_claim(users: tuple[User, User]) -> None:
    alice, bob = users
    once = signed(alice, {"key": SigningKey(b"o" * 32, "x").verify_key.encode()})
    await upload(alice, one_time_keys={"signed_curve25519:A": once})
    answer = await bob.post(f"{C}/keys/query", {"device_keys": {alice.user_id: []}})
    found = answer.json["device_keys"][alice.user_id][alice.device_id]
    assert found["keys"] == device_keys(alice)["keys"]
    claim = {"one_time_keys": {alice.user_id: {alice.device_id: "signed_curve25519"}}}
    first = await bob.post(f"{C}/keys/claim", claim)
    assert first.json["one_time_keys"][alice.user_id][alice.device_id] == {"signed_curve25519:A": once}
    assert (await bob.post(f"{C}/keys/claim", claim)).json["one_time_keys"] == {}


async def test_changes_are_told_to_servers_that_share_a_room(users: tuple[User, User]) -> None:
    alice, bob = users
    room_id = await create_room(alice, "12", preset="public_chat")
    await join(bob, room_id)
    since = (await bob.get(f"{C}/sync")).json["next_batch"]
    await upload(alice)

    async def hears() -> bool:
        synced = await bob.get(f"{C}/sync", since=since)
        return alice.user_id in synced.json.get("device_lists", {}).get("changed", [])

    await until(hears, "the change of keys")


async def test_messages_to_devices(users: tuple[User, User]) -> None:
    alice, bob = users
    body = {"messages": {bob.user_id: {bob.device_id: {"hello": "device"}}}}
    assert (await alice.put(f"{C}/sendToDevice/m.test/1", body)).status == 200

    async def arrives() -> Any:
        return (await bob.get(f"{C}/sync")).json.get("to_device", {}).get("events")

    events = await until(arrives, "the message")
    assert events == [{"content": {"hello": "device"}, "sender": alice.user_id, "type": "m.test"}]


async def test_what_other_servers_may_ask(network: Network, users: tuple[User, User]) -> None:
    alice, bob = users
    await upload(alice)
    peer, one = Peer(network), network._servers["one.test"]
    path = "/_matrix/federation/v1/user"
    devices = await peer.request(one, "GET", f"{path}/devices/{segment(alice.user_id)}")
    assert [device["device_id"] for device in devices.json["devices"]] == [alice.device_id]
    assert devices.json["stream_id"] > 0
    assert (await peer.request(one, "GET", f"{path}/devices/{segment(bob.user_id)}")).errcode == "M_NOT_FOUND"
    nobody = await peer.request(one, "GET", f"{path}/devices/%40nobody%3Aone.test")
    assert nobody.errcode == "M_NOT_FOUND"
    body = b'{"device_keys":{"%b":[],"%b":[]}}' % (alice.user_id.encode(), bob.user_id.encode())
    found = await peer.request(one, "POST", f"{path}/keys/query", body)
    assert set(found.json["device_keys"]) == {alice.user_id}
    assert (await peer.request(one, "POST", f"{path}/keys/query", b"{}")).status == 400
