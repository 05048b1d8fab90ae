"""matrix-nio, a real client library, against a real server process."""

import asyncio

import nio
import pytest

from .process import ServerProcess

MESSAGES = 500


async def sign_up(server: ServerProcess, name: str) -> nio.AsyncClient:
    client = nio.AsyncClient(server.url, f"@{name}:localhost")
    answer = await client.register(name, "correct horse battery")
    assert isinstance(answer, nio.RegisterResponse), answer
    return client


async def sync_until(client, condition, filter_id=None):
    """Sync on from where the client is until a response fulfils the condition."""
    async with asyncio.timeout(20):
        while True:
            response = await client.sync(timeout=3000, sync_filter=filter_id)
            assert isinstance(response, nio.SyncResponse), response
            if condition(response):
                return response


def bodies(response, room_id):
    joined = response.rooms.join.get(room_id)
    return (
        [event.body for event in joined.timeline.events if isinstance(event, nio.RoomMessageText)]
        if joined
        else []
    )


async def say(client, room_id, text, txn_id=None):
    answer = await client.room_send(
        room_id, "m.room.message", {"msgtype": "m.text", "body": text}, tx_id=txn_id
    )
    assert isinstance(answer, nio.RoomSendResponse), answer
    return answer.event_id


@pytest.fixture
async def alice_and_bob(server):
    clients = [await sign_up(server, "alice"), await sign_up(server, "bob")]
    yield clients
    for client in clients:
        await client.close()


@pytest.mark.slow
async def test_two_people_chat_and_read_back_across_a_restart(server, alice_and_bob):
    alice, bob = alice_and_bob
    created = await alice.room_create(name="Tea", invite=["@bob:localhost"])
    assert isinstance(created, nio.RoomCreateResponse), created
    room_id = created.room_id
    await sync_until(bob, lambda response: room_id in response.rooms.invite)
    assert isinstance(await bob.join(room_id), nio.JoinResponse)
    await sync_until(bob, lambda response: room_id in response.rooms.join)
    await sync_until(alice, lambda response: bob.user_id in alice.rooms[room_id].users)
    assert alice.rooms[room_id].display_name == "Tea"

    # They see each other type and read.
    await bob.room_typing(room_id, typing_state=True)
    await sync_until(alice, lambda _: bob.user_id in alice.rooms[room_id].typing_users)
    event_id = await say(alice, room_id, "hello")
    await sync_until(bob, lambda response: "hello" in bodies(response, room_id))
    await bob.room_read_markers(room_id, event_id, event_id)
    await sync_until(
        alice,
        lambda _: (
            alice.rooms[room_id].read_receipts.get(bob.user_id, None) is not None
            and alice.rooms[room_id].read_receipts[bob.user_id].event_id == event_id
        ),
    )

    # A repeated transaction is one message.
    for start in range(0, MESSAGES, 50):
        await asyncio.gather(
            *[say(alice, room_id, f"message {n}", f"t{n}") for n in range(start, start + 50)]
        )
    assert await say(alice, room_id, "message 7", "t7") == await say(alice, room_id, "again", "t7")

    server.stop()
    server.start()

    await say(bob, room_id, "after the restart")
    await sync_until(alice, lambda response: "after the restart" in bodies(response, room_id))
    found = await read_back(alice, room_id)
    assert sorted(found) == sorted([f"message {n}" for n in range(MESSAGES)] + ["hello", "after the restart"])


async def read_back(client, room_id):
    """Every text of the room, newest first, in pages that do not divide it evenly."""
    found = []
    start = client.next_batch
    while start:
        page = await client.room_messages(room_id, start=start, limit=37)
        assert isinstance(page, nio.RoomMessagesResponse), page
        found += [event.body for event in page.chunk if isinstance(event, nio.RoomMessageText)]
        start = page.end if page.chunk else None
    return found


@pytest.mark.slow
async def test_an_uploaded_filter_cuts_what_sync_returns(server, alice_and_bob):
    alice, _ = alice_and_bob
    uploaded = await alice.upload_filter(room={"timeline": {"limit": 2, "types": ["m.room.message"]}})
    assert isinstance(uploaded, nio.UploadFilterResponse), uploaded
    created = await alice.room_create(name="Quiet")
    for number in range(5):
        await say(alice, created.room_id, f"message {number}")
    response = await sync_until(alice, lambda found: created.room_id in found.rooms.join, uploaded.filter_id)
    assert bodies(response, created.room_id) == ["message 3", "message 4"]
    assert response.rooms.join[created.room_id].timeline.limited


@pytest.mark.slow
async def test_profiles_devices_and_leaving(server, alice_and_bob):
    alice, bob = alice_and_bob
    assert isinstance(await alice.set_displayname("Alice"), nio.ProfileSetDisplayNameResponse)
    profile = await bob.get_profile(alice.user_id)
    assert isinstance(profile, nio.ProfileGetResponse), profile
    assert profile.displayname == "Alice"
    devices = await alice.devices()
    assert [device.id for device in devices.devices] == [alice.device_id]
    created = await alice.room_create(invite=[bob.user_id])
    await bob.join(created.room_id)
    await sync_until(bob, lambda response: created.room_id in response.rooms.join)
    await bob.room_leave(created.room_id)
    await sync_until(bob, lambda response: created.room_id in response.rooms.leave)
    refused = await bob.room_send(created.room_id, "m.room.message", {"msgtype": "m.text", "body": "x"})
    assert isinstance(refused, nio.RoomSendError)
    assert refused.status_code == "M_FORBIDDEN"
    assert isinstance(await bob.room_forget(created.room_id), nio.RoomForgetResponse)
