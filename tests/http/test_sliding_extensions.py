"""The extensions of sliding sync, in both forms. Spec: MSC4508, MSC3884, MSC3885, MSC3959, MSC3960."""

import asyncio

import pytest

from ..sliding_client import FORMS, Form, SlidingClient
from .client import segment
from .homeserver import Homeserver, User
from .rooms import C, create, do, say


def connect(user: User, form: Form, *names: str) -> SlidingClient:
    client = SlidingClient(user, form, user_id=user.user_id)
    client.lists = {"all": client.config(5, (), (0, 19))}
    client.extensions = {name: {"enabled": True} for name in names}
    return client


async def send_to_device(sender: User, to: User, number: int) -> None:
    path = f"{C}/sendToDevice/test/{number}"
    body = {"messages": {to.user_id: {to.device_id: {"n": number}}}}
    assert (await sender.put(path, body)).status == 200


async def room_of(owner: User, *others: User) -> str:
    room_id = await create(owner, preset="public_chat")
    for other in others:
        await do(other, room_id, "join")
    return room_id


@pytest.mark.parametrize("form", FORMS)
async def test_messages_to_the_device_come_until_they_are_acknowledged(
    homeserver: Homeserver, form: Form
) -> None:
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    client = connect(alice, form, "to_device")
    empty = (await client.sync())["extensions"]["to_device"]
    assert empty["events"] == []
    waiting = asyncio.create_task(client.sync(timeout_ms=60_000))
    await asyncio.sleep(0)
    await send_to_device(bob, alice, 1)
    async with asyncio.timeout(40):
        first = (await waiting)["extensions"]["to_device"]
    assert first["events"] == [{"type": "test", "sender": bob.user_id, "content": {"n": 1}}]
    assert (await client.sync())["extensions"]["to_device"] == first, "it was not acknowledged"
    client.extensions["to_device"] = {"enabled": True, "since": first["next_batch"]}
    assert (await client.sync())["extensions"]["to_device"] == {**first, "events": []}
    for number in range(2, 5):
        await send_to_device(bob, alice, number)
    client.extensions["to_device"]["limit"] = 2
    seen = []
    for _ in range(2):
        told = (await client.sync(timeout_ms=60_000))["extensions"]["to_device"]
        seen += [event["content"]["n"] for event in told["events"]]
        client.extensions["to_device"]["since"] = told["next_batch"]
    assert seen == [2, 3, 4]
    client.extensions["to_device"]["since"] = str(2**50)
    assert (await client.sync())["extensions"]["to_device"] == {"next_batch": str(2**50), "events": []}
    client.extensions["to_device"] = {"enabled": False}
    assert "to_device" not in (await client.sync())["extensions"]


@pytest.mark.parametrize("form", FORMS)
async def test_device_lists_of_those_who_come_change_and_go(homeserver: Homeserver, form: Form) -> None:
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    carol = await homeserver.register("carol")
    room_id = await room_of(alice)
    client = connect(alice, form, "e2ee")
    client.lists = {}  # whoever shares a room counts, whether the client looks at it or not
    first = (await client.sync())["extensions"]["e2ee"]
    assert first == {
        "device_one_time_keys_count": {"signed_curve25519": 0},
        "device_unused_fallback_key_types": [],
    }
    waiting = asyncio.create_task(client.sync(timeout_ms=60_000))
    await asyncio.sleep(0)
    await do(bob, room_id, "join")
    async with asyncio.timeout(40):
        told = (await waiting)["extensions"]["e2ee"]
    assert told["device_lists"] == {"changed": [bob.user_id], "left": []}
    await say(bob, room_id, "no reason to look at devices")
    assert "device_lists" not in (await client.sync())["extensions"]["e2ee"]
    await homeserver.login("bob")
    keys = {
        "algorithms": [],
        "device_id": bob.device_id,
        "user_id": bob.user_id,
        "keys": {},
        "signatures": {},
    }
    await bob.post(f"{C}/keys/upload", {"device_keys": keys})
    await do(bob, room_id, "leave")
    assert (await client.sync())["extensions"]["e2ee"]["device_lists"]["left"] == [bob.user_id]
    assert carol.user_id


@pytest.mark.parametrize("form", FORMS)
async def test_account_data(homeserver: Homeserver, form: Form) -> None:
    alice = await homeserver.register("alice")
    old, new = await room_of(alice), await room_of(alice)
    own = f"{C}/user/{segment(alice.user_id)}"
    await alice.put(f"{own}/account_data/test.a", {"n": 1})
    for room_id in (old, new):
        await alice.put(f"{own}/rooms/{segment(room_id)}/account_data/test.b", {"n": 2})
    client = connect(alice, form, "account_data")
    client.lists = {"all": client.config(1, (), (0, 0))}
    told = (await client.sync())["extensions"]["account_data"]
    assert {event["type"] for event in told["global"]} == {"m.push_rules", "test.a"}
    assert told["rooms"] == {new: [{"type": "test.b", "content": {"n": 2}}]}
    await alice.put(f"{own}/rooms/{segment(new)}/tags/m.favourite", {"order": 0.5})
    await alice.put(f"{own}/rooms/{segment(old)}/account_data/test.b", {"n": 3})
    told = (await client.sync(timeout_ms=60_000))["extensions"]["account_data"]
    assert told["global"] == []
    assert list(told["rooms"]) == [new]
    client.lists = {"all": client.config(1, (), (0, 5))}
    told = (await client.sync())["extensions"]["account_data"]
    assert told["rooms"] == {old: [{"type": "test.b", "content": {"n": 3}}]}
    await client.sync()
    # What changes while the room is out of sight is told when it is back.
    client.lists = {"all": client.config(1, (), (0, 0))}
    await client.sync()
    await alice.put(f"{own}/rooms/{segment(old)}/account_data/test.b", {"n": 4})
    assert (await client.sync())["extensions"]["account_data"]["rooms"] == {}
    client.lists = {"all": client.config(1, (), (0, 5))}
    assert client.room_account_data[old] == {"test.b": {"n": 3}}
    await client.sync()
    assert client.room_account_data[old] == {"test.b": {"n": 4}}


@pytest.mark.parametrize("form", FORMS)
async def test_receipts(homeserver: Homeserver, form: Form) -> None:
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    carol = await homeserver.register("carol")
    room_id = await room_of(alice, bob, carol)
    old = await say(alice, room_id, "old")
    await do(carol, room_id, f"receipt/m.read/{segment(old)}")
    events = [await say(alice, room_id, str(number)) for number in range(6)]
    await do(bob, room_id, f"receipt/m.read/{segment(events[-1])}")
    await do(alice, room_id, f"receipt/m.read.private/{segment(events[0])}")
    client = connect(alice, form, "receipts")
    await client.sync()
    receipts = client.receipts[room_id]
    assert receipts["m.read", bob.user_id, None] == events[-1]
    assert receipts["m.read.private", alice.user_id, None] == events[0]
    assert ("m.read", carol.user_id, None) not in receipts, "nothing that is shown was read last by her"
    await do(carol, room_id, f"receipt/m.read/{segment(events[2])}")
    await do(bob, room_id, f"receipt/m.read.private/{segment(events[-1])}")
    waiting = await client.sync(timeout_ms=60_000)
    assert waiting["rooms"] == {}
    assert receipts["m.read", carol.user_id, None] == events[2]
    assert ("m.read.private", bob.user_id, None) not in receipts


@pytest.mark.parametrize("form", FORMS)
async def test_typing_in_the_rooms_that_it_is_for(homeserver: Homeserver, form: Form) -> None:
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    looked_at, other = await room_of(alice, bob), await room_of(alice, bob)

    async def types(room_id: str, is_typing: bool) -> None:
        path = f"{C}/rooms/{segment(room_id)}/typing/{segment(bob.user_id)}"
        assert (await bob.put(path, {"typing": is_typing, "timeout": 60_000})).status == 200

    client = connect(alice, form)
    client.subscriptions = {looked_at: client.config(1)}
    client.extensions = {"typing": {"enabled": True, "lists": [], "rooms": [looked_at]}}
    await types(other, True)
    await client.sync()
    assert client.typing == {}
    waiting = asyncio.create_task(client.sync(timeout_ms=60_000))
    await asyncio.sleep(0)
    await types(looked_at, True)
    async with asyncio.timeout(40):
        assert (await waiting)["rooms"] == {}
    assert client.typing == {looked_at: [bob.user_id]}
    client.extensions = {"typing": {"enabled": True}}
    await client.sync()
    assert client.typing[other] == [bob.user_id]
    await types(other, False)
    await client.sync()
    assert client.typing[other] == []
    # Who left hears of it no more.
    await do(alice, looked_at, "leave")
    await types(looked_at, False)
    told = await client.sync()
    assert looked_at not in str(told["extensions"])


@pytest.mark.parametrize("form", FORMS)
async def test_a_star_is_a_name_in_the_final_form_only(homeserver: Homeserver, form: Form) -> None:
    alice = await homeserver.register("alice")
    room_id = await room_of(alice)
    path = f"{C}/rooms/{segment(room_id)}/typing/{segment(alice.user_id)}"
    await alice.put(path, {"typing": True, "timeout": 60_000})
    client = connect(alice, form)
    client.extensions = {"typing": {"enabled": True, "lists": ["*"], "rooms": []}}
    await client.sync()
    assert (room_id in client.typing) == (form == "simplified")


@pytest.mark.parametrize("form", FORMS)
async def test_an_extension_that_is_enabled_late_tells_what_there_is(
    homeserver: Homeserver, form: Form
) -> None:
    alice = await homeserver.register("alice")
    room_id = await room_of(alice)
    await alice.put(
        f"{C}/user/{segment(alice.user_id)}/rooms/{segment(room_id)}/account_data/test.b", {"n": 2}
    )
    event_id = await say(alice, room_id, "hello")
    await do(alice, room_id, f"receipt/m.read/{segment(event_id)}")
    client = connect(alice, form)
    await client.sync()
    client.extensions = {
        name: {"enabled": True} for name in ("account_data", "receipts", "e2ee", "to_device")
    }
    await client.sync()
    assert client.room_account_data == {room_id: {"test.b": {"n": 2}}}
    assert client.receipts[room_id] == {("m.read", alice.user_id, None): event_id}
    assert "m.push_rules" in client.account_data


@pytest.mark.parametrize("form", FORMS)
async def test_what_happened_while_an_extension_was_off_is_told_when_it_is_on_again(
    homeserver: Homeserver, form: Form
) -> None:
    alice = await homeserver.register("alice")
    sliding = SlidingClient(alice, form, user_id=alice.user_id)
    sliding.extensions = {"account_data": {"enabled": True}}
    await sliding.sync()
    sliding.extensions = {}
    await alice.put(f"{C}/user/{segment(alice.user_id)}/account_data/test.a", {"n": 1})
    await sliding.sync()
    sliding.extensions = {"account_data": {"enabled": True}}
    await sliding.sync()
    assert sliding.account_data["test.a"] == {"n": 1}
