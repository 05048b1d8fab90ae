"""Somebody verifies a user of another server: the signature is theirs alone to see, on all their devices."""

from ..http.olm import Key, cross_signing_key
from .network import Network
from .test_rooms import create_room, join

C = "/_matrix/client/v3"
SIGN = f"{C}/keys/signatures/upload"


async def publish(user, first):
    """A master and a user-signing key."""
    master, other = Key(first), Key(first + 1)
    body = {
        "master_key": cross_signing_key(user, "master", master),
        "user_signing_key": master.sign(cross_signing_key(user, "user_signing", other), user.user_id),
    }
    assert (await user.post(f"{C}/keys/device_signing/upload", body)).status == 200
    return master, other, body["master_key"]


async def master_of(reader, user):
    answer = await reader.post(f"{C}/keys/query", {"device_keys": {user.user_id: []}})
    return answer.json["master_keys"].get(user.user_id)


async def test_a_user_of_another_server_can_be_verified(network: Network) -> None:
    one, two = await network.server("one"), await network.server("two")
    alice, bob = await one.register("alice"), await two.register("bob")
    eve = await one.register("eve")
    room_id = await create_room(alice, "12", preset="public_chat")
    await join(bob, room_id)
    _, user_signing, _ = await publish(alice, 10)
    bobs, _, document = await publish(bob, 20)
    assert await master_of(alice, bob) == document
    signed = user_signing.sign(document, alice.user_id)
    since = (await alice.get(f"{C}/sync")).json["next_batch"]
    wrong = Key(99).sign(document, alice.user_id)
    for key_id, key, errcode in (
        (bobs.public, wrong, "M_INVALID_SIGNATURE"),
        (bobs.public, signed | {"usage": ["other"]}, "M_INVALID_SIGNATURE"),
        ("another", signed, "M_NOT_FOUND"),
    ):
        answer = await alice.post(SIGN, {bob.user_id: {key_id: key}})
        assert answer.json["failures"][bob.user_id][key_id]["errcode"] == errcode
    assert (await alice.post(SIGN, {bob.user_id: {bobs.public: signed}})).json == {"failures": {}}
    assert await master_of(alice, bob) == signed
    assert await master_of(eve, bob) == document
    assert await master_of(bob, bob) == document
    changed = (await alice.get(f"{C}/sync", since=since)).json["device_lists"]["changed"]
    assert changed == [bob.user_id]


async def test_who_cannot_be_asked_cannot_be_verified(network: Network) -> None:
    one, two = await network.server("one"), await network.server("two")
    alice, bob = await one.register("alice"), await two.register("bob")
    await join(bob, await create_room(alice, "12", preset="public_chat"))
    _, user_signing, _ = await publish(alice, 10)
    bobs, _, document = await publish(bob, 20)
    network.cut("one", "two")
    signed = user_signing.sign(document, alice.user_id)
    answer = await alice.post(SIGN, {bob.user_id: {bobs.public: signed}})
    assert answer.json["failures"][bob.user_id][bobs.public]["errcode"] == "M_NOT_FOUND"
