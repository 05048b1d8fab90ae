"""Deleting rooms that other servers are in."""

from ..http.administrators import CLIENT, V1, V2, create_room, register_admin, send
from ..http.client import segment
from ..http.homeserver import User, eventually
from .network import Network


async def join(user: User, room_id: str, server: str) -> None:
    answer = await user.post(f"{CLIENT}/join/{segment(room_id)}?server_name={server}", {})
    assert answer.status == 200, answer.body


async def members(user: User, room_id: str) -> set[str]:
    return set((await user.get(f"{CLIENT}/rooms/{segment(room_id)}/joined_members")).json["joined"])


async def test_others_hear_that_our_users_left_and_the_room_can_be_entered_again(network: Network) -> None:
    one, two = await network.server("one"), await network.server("two")
    admin, alice, bob = await register_admin(one), await one.register("alice"), await two.register("bob")
    room_id = await create_room(bob, preset="public_chat")
    before = await send(bob, room_id, "before")
    await join(alice, room_id, "two.test")
    await send(alice, room_id, "hello")

    async def was_sent() -> bool:
        listed = (await admin.get(f"{V1}/federation/destinations")).json["destinations"]
        return [server["destination"] for server in listed] == ["two.test"]

    await eventually(was_sent)
    shared = (await admin.get(f"{V1}/federation/destinations/two.test/rooms")).json
    assert [room["room_id"] for room in shared["rooms"]] == [room_id]

    started = await admin.delete(f"{V2}/rooms/{segment(room_id)}", {})
    assert started.status == 200, started.body

    async def is_gone() -> bool:
        status = (await admin.get(f"{V2}/rooms/delete_status/{started.json['delete_id']}")).json
        assert status["status"] != "failed", status
        return bool(status["status"] == "complete")

    await eventually(is_gone)

    async def has_heard() -> bool:
        return await members(bob, room_id) == {bob.user_id}

    await eventually(has_heard)
    assert (await admin.get(f"{V1}/rooms/{segment(room_id)}")).status == 404
    assert (await admin.get(f"{V1}/fetch_event/{before}")).status == 404

    await send(bob, room_id, "meanwhile")
    await join(alice, room_id, "two.test")
    await send(alice, room_id, "again")

    async def is_there() -> bool:
        page = (await bob.get(f"{CLIENT}/rooms/{segment(room_id)}/messages", dir="b", limit=5)).json["chunk"]
        return any(event["content"].get("body") == "again" for event in page)

    await eventually(is_there)
    assert await members(alice, room_id) == {alice.user_id, bob.user_id}
    synced = (await alice.get(f"{CLIENT}/sync")).json["rooms"]["join"]
    assert list(synced) == [room_id]


async def test_what_comes_after_a_deletion_is_not_taken(network: Network) -> None:
    one, two = await network.server("one"), await network.server("two")
    admin, alice, bob = await register_admin(one), await one.register("alice"), await two.register("bob")
    room_id = await create_room(alice, preset="public_chat")
    await join(bob, room_id, "one.test")
    answer = await admin.delete(f"{V1}/rooms/{segment(room_id)}", {"block": True})
    assert answer.status == 200, answer.body
    await send(bob, room_id, "is anybody there?")
    assert (
        await bob.post(f"{CLIENT}/rooms/{segment(room_id)}/invite", {"user_id": alice.user_id})
    ).status != 200
    refused = await alice.post(f"{CLIENT}/join/{segment(room_id)}?server_name=two.test", {})
    assert (refused.status, refused.errcode) == (403, "M_FORBIDDEN")
    assert (await admin.get(f"{V1}/rooms/{segment(room_id)}")).status == 404


async def test_a_deletion_goes_on_after_a_restart(network: Network) -> None:
    one = await network.server("one")
    admin, alice = await register_admin(one), await one.register("alice")
    room_id = await create_room(alice)
    for number in range(20):
        await send(alice, room_id, "x", str(number))
    started = await admin.delete(f"{V2}/rooms/{segment(room_id)}", {})
    await network.stop("one")
    one = await network.server("one")
    admin = await one.login("admin")
    # Whoever held the job is gone; its lease ends.
    one.clock.skip(11 * 60)

    async def is_gone() -> bool:
        status = (await admin.get(f"{V2}/rooms/delete_status/{started.json['delete_id']}")).json
        return bool(status["status"] == "complete")

    await eventually(is_gone)
    assert (await admin.get(f"{V1}/rooms/{segment(room_id)}")).status == 404
