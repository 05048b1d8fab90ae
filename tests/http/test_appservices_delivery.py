"""What application services are told: over real HTTP, while they are slow, away, or talk nonsense."""

import asyncio
import json

import pytest
from aiohttp import web

from ranvier.app.config import DatabaseConfig
from ranvier.services.appservices import delivery, news
from ranvier.store.tables.appservices import find_progress
from ranvier.store.tables.to_device import list_users_with_messages

from ..store.conftest import postgres_database, postgres_server
from .appservice import AS_TOKEN, played_appservice, registered, registration
from .client import Client, segment
from .homeserver import Homeserver, eventually, running_homeserver
from .olm import device_keys, one_time_key
from .test_appservices import CREATE, REGISTER, TYPE, add_ghost

__all__ = ["postgres_database", "postgres_server"]

TRANSACTIONS = "/_matrix/app/v1/transactions/"
CRYPTO = {"org.matrix.msc3202": True, "receive_ephemeral": True}


@pytest.fixture
async def played():
    async with played_appservice() as one:
        yield one


@pytest.fixture
def start(start_homeserver, played, tmp_path):
    """Starts a homeserver with the played service, whose registration the test changes."""

    async def go(**changes) -> Homeserver:
        config = registered(tmp_path, registration(played.url, **changes))
        return await start_homeserver(appservices=config)

    return go


def room_path(room_id: str) -> str:
    return f"/_matrix/client/v3/rooms/{segment(room_id)}"


async def say(client: Client, room_id: str, text: str, **query) -> str:
    say.count += 1
    body = {"msgtype": "m.text", "body": text}
    path = f"{room_path(room_id)}/send/m.room.message/say{say.count}"
    answer = await client.request("PUT", path, json=body, query=query)
    assert answer.status == 200, answer.body
    return answer.json["event_id"]


say.count = 0


async def make_room(client: Client, **body) -> str:
    answer = await client.post(CREATE, body)
    assert answer.status == 200, answer.body
    return answer.json["room_id"]


async def ghost_room(homeserver: Homeserver, alice: Client) -> tuple[Client, str]:
    """The bridge, and a room of alice with its ghost."""
    bridge = homeserver.client.as_user(AS_TOKEN)
    await add_ghost(bridge, "ghost_1", inhibit_login=True)
    room_id = await make_room(alice, invite=["@ghost_1:test"])
    joined = await bridge.post(f"{room_path(room_id)}/join", {}, user_id="@ghost_1:test")
    assert joined.status == 200
    return bridge, room_id


async def test_what_happens_around_its_users_is_told_in_order(start, played):
    homeserver = await start()
    alice = await homeserver.register("alice")
    secret = await make_room(alice)
    bridge, room_id = await ghost_room(homeserver, alice)
    for number in range(250):
        await asyncio.gather(say(alice, room_id, str(number)), say(alice, secret, "secret"))
    await say(bridge, room_id, "own", user_id="@ghost_1:test")
    await played.until(lambda: "own" in played.bodies())
    assert played.bodies() == [*map(str, range(250)), "own"]
    assert all(len(body["events"]) <= news.MAX_EVENTS for _, body in played.transactions)
    ids = [txn_id for txn_id, _ in played.transactions]
    assert len(set(ids)) == len(ids)
    invite, join, *_ = played.events
    assert (invite["content"]["membership"], join["content"]["membership"]) == ("invite", "join")
    assert {"type", "state_key", "sender", "content"} == set(invite["unsigned"]["invite_room_state"][0])
    first = played.events[2]
    assert first["room_id"] == room_id
    assert first["sender"] == "@alice:test"
    assert {"event_id", "origin_server_ts", "type", "content", "unsigned"} <= first.keys()
    assert "ephemeral" not in played.transactions[0][1]


async def test_rooms_and_aliases_that_are_claimed_are_told_whole(start, played):
    homeserver = await start(
        namespaces={
            "users": [],
            "aliases": [{"regex": "#town_.*", "exclusive": False}],
            "rooms": [{"regex": "!", "exclusive": False}],
        }
    )
    alice = await homeserver.register("alice")
    room_id = await make_room(alice)
    await say(alice, room_id, "here")
    await played.until(lambda: played.bodies() == ["here"])
    assert played.events[0]["type"] == "m.room.create"


async def test_a_room_is_told_from_the_alias_on(start, played):
    homeserver = await start(namespaces={"aliases": [{"regex": "#town_.*", "exclusive": False}]})
    alice = await homeserver.register("alice")
    room_id = await make_room(alice)
    await say(alice, room_id, "before")
    await make_room(alice, room_alias_name="town_0")
    await played.until(lambda: played.events)
    path = f"/_matrix/client/v3/directory/room/{segment('#town_1:test')}"
    assert (await alice.put(path, {"room_id": room_id})).status == 200
    await say(alice, room_id, "after")
    await played.until(lambda: "after" in played.bodies())
    assert "before" not in played.bodies()


async def test_a_service_that_was_away_gets_what_was_said_while_its_user_was_there(start, played):
    homeserver = await start()
    alice = await homeserver.register("alice")
    bridge, room_id = await ghost_room(homeserver, alice)
    await played.until(lambda: len(played.events) == 2)
    played.refuse("/", 503)
    await say(alice, room_id, "first")
    await played.until(lambda: len(played.attempts) > 1)
    await say(alice, room_id, "second")
    left = await bridge.post(f"{room_path(room_id)}/leave", {}, user_id="@ghost_1:test")
    assert left.status == 200
    await say(alice, room_id, "behind its back")
    invited = await alice.post(f"{room_path(room_id)}/invite", {"user_id": "@ghost_1:test"})
    assert invited.status == 200
    await bridge.post(f"{room_path(room_id)}/join", {}, user_id="@ghost_1:test")
    await say(alice, room_id, "third")
    played.answers.clear()
    await played.until(lambda: "third" in played.bodies(), 60)
    assert played.bodies() == ["first", "second", "third"]


async def test_a_transaction_is_repeated_as_it_is(start, played):
    homeserver = await start()
    alice = await homeserver.register("alice")
    taken: list[str] = []

    async def lose(request: web.Request) -> web.Response:
        # The service takes it, and the acknowledgment is lost.
        taken.append(request.path)
        return web.json_response({}, status=502)

    played.answers["/"] = lose
    _, room_id = await ghost_room(homeserver, alice)
    await played.until(lambda: len([path for path in taken if path.startswith(TRANSACTIONS)]) >= 3, 60)
    await say(alice, room_id, "later")
    assert len(set(played.attempts)) == 1
    played.answers.clear()
    await played.until(lambda: "later" in played.bodies(), 60)
    first = played.transactions[0]
    assert (first[0], first[1]) == (played.attempts[0][0], json.loads(played.attempts[0][1]))
    assert len({event["event_id"] for event in played.events}) == len(played.events)


@pytest.mark.parametrize("nonsense", [b"", b"not json", b"\xff\x00", b'"text"', b"[" * 10_000])
async def test_any_success_is_an_acknowledgment(start, played, nonsense):
    homeserver = await start()

    async def answer(request: web.Request) -> web.Response:
        played.take(request.path, await request.read())
        return web.Response(body=nonsense)

    played.answers[TRANSACTIONS] = answer
    alice = await homeserver.register("alice")
    _, room_id = await ghost_room(homeserver, alice)
    await say(alice, room_id, "on it goes")
    await played.until(lambda: "on it goes" in played.bodies())


async def test_a_service_of_old_is_told_on_old_paths(start, played):
    homeserver = await start()

    async def old(request: web.Request) -> web.Response:
        assert request.query["access_token"] == "hs-secret"
        played.take(request.path, await request.read())
        return web.json_response({})

    played.refuse("/_matrix/app/v1/", 404)
    played.answers["/transactions/"] = old
    alice = await homeserver.register("alice")
    _, room_id = await ghost_room(homeserver, alice)
    await say(alice, room_id, "one")
    await played.until(lambda: "one" in played.bodies())
    current = sum(path.startswith(TRANSACTIONS) for _, path in played.requests)
    await say(alice, room_id, "two")
    await played.until(lambda: "two" in played.bodies())
    assert sum(path.startswith(TRANSACTIONS) for _, path in played.requests) == current == 1


async def test_nothing_is_lost_or_doubled_by_restarts(tmp_path, played):
    """The homeserver goes away at any point of a delivery, again and again."""
    config = registered(tmp_path, registration(played.url))
    slow = asyncio.Event()
    rounds = 0

    async def hang(request: web.Request) -> web.Response:
        nonlocal rounds
        rounds += 1
        if rounds % 3:
            slow.set()
            await asyncio.sleep(30)
        played.take(request.path.rpartition("/")[2], await request.read())
        return web.json_response({})

    played.answers[TRANSACTIONS] = hang
    sent: list[str] = []
    token = room_id = ""
    for number in range(6):
        async with running_homeserver(tmp_path / "data", appservices=config) as homeserver:
            if not token:
                alice = await homeserver.register("alice")
                token = alice.token
                _, room_id = await ghost_room(homeserver, alice)
            alice = homeserver.client.as_user(token)
            for part in range(3):
                sent.append(f"{number}.{part}")
                await say(alice, room_id, sent[-1], ts=None)
            async with asyncio.timeout(60):
                await slow.wait()
            slow.clear()
    played.answers.clear()
    async with running_homeserver(tmp_path / "data", appservices=config):
        await played.until(lambda: sent[-1] in played.bodies(), 60)
    by_id = dict(played.transactions)
    events = [
        event["event_id"] for _, body in sorted(by_id.items(), key=number_of) for event in body["events"]
    ]
    assert len(events) == len(set(events))
    bodies = [
        event["content"]["body"]
        for _, body in sorted(by_id.items(), key=number_of)
        for event in body["events"]
        if event["type"] == "m.room.message"
    ]
    assert bodies == sent
    # What went out under an id is always the same.
    assert len({txn_id for txn_id, _ in played.attempts}) == len(set(played.attempts))


def number_of(item: tuple[str, object]) -> int:
    return int(item[0].partition("-")[0])


async def test_a_service_that_is_back_says_so_with_a_ping(start, played, monkeypatch):
    monkeypatch.setattr(delivery, "MIN_RETRY_MS", 3_600_000)
    monkeypatch.setattr(delivery, "MAX_RETRY_MS", 3_600_000)
    homeserver = await start()
    alice = await homeserver.register("alice")
    played.refuse("/", 500)
    bridge, room_id = await ghost_room(homeserver, alice)
    await say(alice, room_id, "waiting")
    await played.until(lambda: len(played.attempts) >= 2)
    played.answers.clear()
    played.say("/_matrix/app/v1/ping", {})
    assert (await bridge.post("/_matrix/client/v1/appservice/bridge/ping", {})).status == 200
    await played.until(lambda: "waiting" in played.bodies())


async def test_large_events_are_spread_over_transactions(start, played):
    homeserver = await start()
    alice = await homeserver.register("alice")
    _, room_id = await ghost_room(homeserver, alice)
    await played.until(lambda: len(played.events) == 2)
    played.refuse("/", 500)
    await say(alice, room_id, "first")
    await played.until(lambda: len(played.attempts) >= 2)
    for _ in range(30):
        await say(alice, room_id, "x" * 60_000)
    played.answers.clear()
    await played.until(lambda: len(played.bodies()) == 31, 60)
    assert max(len(body) for _, body in played.attempts) < 1_048_576


async def test_a_private_receipt_of_its_own_user_and_nothing_else(start, played):
    homeserver = await start(receive_ephemeral=True)
    alice = await homeserver.register("alice")
    bridge, room_id = await ghost_room(homeserver, alice)
    event_id = await say(alice, room_id, "read me")
    await played.until(lambda: "read me" in played.bodies())
    private = f"{room_path(room_id)}/receipt/m.read.private/{segment(event_id)}"
    assert (await bridge.post(private, {}, user_id="@ghost_1:test")).status == 200
    await played.until(lambda: "m.read.private" in str(played.ephemeral))


async def test_typing_receipts_and_presence(start, played):
    homeserver = await start(receive_ephemeral=True)
    alice = await homeserver.register("alice")
    bob = await homeserver.register("bob")
    bridge, room_id = await ghost_room(homeserver, alice)
    await alice.post(f"{room_path(room_id)}/invite", {"user_id": "@bob:test"})
    await bob.post(f"{room_path(room_id)}/join", {})
    other = await make_room(bob)
    for room in (room_id, other):
        typing = f"{room_path(room)}/typing/{segment('@bob:test')}"
        assert (await bob.put(typing, {"typing": True, "timeout": 30_000})).status == 200
    event_id = await say(alice, room_id, "read me")
    read = f"{room_path(room_id)}/receipt/m.read/{segment(event_id)}"
    private = f"{room_path(room_id)}/receipt/m.read.private/{segment(event_id)}"
    assert (await bob.post(read, {})).status == 200
    assert (await bob.post(private, {})).status == 200
    assert (await bridge.post(private, {}, user_id="@ghost_1:test")).status == 200
    status = f"/_matrix/client/v3/presence/{segment('@bob:test')}/status"
    assert (await bob.put(status, {"presence": "online", "status_msg": "hi"})).status == 200

    def of(kind: str) -> list[dict]:
        return [one for one in played.ephemeral if one["type"] == kind]

    await played.until(
        lambda: (
            of("m.typing")
            and "m.read.private" in str(of("m.receipt"))
            and any(one["sender"] == "@bob:test" for one in of("m.presence"))
        )
    )
    assert {one["room_id"] for one in of("m.typing") + of("m.receipt")} == {room_id}
    assert {"user_ids": ["@bob:test"]} in [one["content"] for one in of("m.typing")]
    told = [
        (kind, user)
        for one in of("m.receipt")
        for by_type in one["content"].values()
        for kind, users in by_type.items()
        for user in users
    ]
    assert ("m.read", "@bob:test") in told
    assert ("m.read.private", "@ghost_1:test") in told
    assert ("m.read.private", "@bob:test") not in told
    presence = next(one for one in of("m.presence") if one["sender"] == "@bob:test")
    assert presence["content"]["status_msg"] == "hi"
    assert all(body["events"] or body["ephemeral"] for _, body in played.transactions)


async def test_messages_to_devices_are_told_once_and_then_deleted(start, played):
    homeserver = await start(**CRYPTO)
    alice = await homeserver.register("alice")
    bridge = homeserver.client.as_user(AS_TOKEN)
    await add_ghost(bridge, "ghost_1", device_id="G")
    played.refuse("/", 500)
    to = "/_matrix/client/v3/sendToDevice/m.test"
    for number in range(3):
        body = {"messages": {"@ghost_1:test": {"*": {"number": number}}}}
        assert (await alice.put(f"{to}/{number}", body)).status == 200
    await played.until(lambda: len(played.attempts) >= 2)
    played.answers.clear()
    await played.until(lambda: len(played.messages) == 3, 60)
    assert played.messages[0] == {
        "content": {"number": 0},
        "sender": "@alice:test",
        "type": "m.test",
        "to_user_id": "@ghost_1:test",
        "to_device_id": "G",
    }
    assert [one["content"]["number"] for one in played.messages] == [0, 1, 2]

    async def are_gone() -> bool:
        db = homeserver.foundation.ports.db
        return not await db.read(list_users_with_messages, 0, db.position())

    await eventually(are_gone)


async def test_device_lists_and_key_counts(start, played):
    homeserver = await start(**CRYPTO)
    alice = await homeserver.register("alice")
    bridge = homeserver.client.as_user(AS_TOKEN)
    ghost = homeserver.user(await add_ghost(bridge, "ghost_1", device_id="G"))
    room_id = await make_room(alice, invite=["@ghost_1:test"])
    assert (await bridge.post(f"{room_path(room_id)}/join", {}, user_id="@ghost_1:test")).status == 200
    as_device = {"user_id": "@ghost_1:test", "device_id": "G"}
    one_time_keys = {f"signed_curve25519:{n}": one_time_key(ghost, n) for n in (1, 2)}
    keys = {"device_keys": device_keys(ghost), "one_time_keys": one_time_keys}
    uploaded = await bridge.post("/_matrix/client/v3/keys/upload", keys, **as_device)
    assert uploaded.status == 200, uploaded.body

    def changed() -> set[str]:
        return {
            user
            for _, body in played.transactions
            for user in body["org.matrix.msc3202.device_lists"]["changed"]
        }

    def counts() -> list[int]:
        return [
            body["org.matrix.msc3202.device_one_time_keys_count"]["@ghost_1:test"]["G"].get(
                "signed_curve25519", 0
            )
            for _, body in played.transactions
            if "@ghost_1:test" in body["org.matrix.msc3202.device_one_time_keys_count"]
        ]

    await played.until(lambda: {"@ghost_1:test", "@alice:test"} <= changed() and 2 in counts())
    claim = {"one_time_keys": {"@ghost_1:test": {"G": "signed_curve25519"}}}
    assert (await alice.post("/_matrix/client/v3/keys/claim", claim)).status == 200
    await played.until(lambda: counts()[-1] == 1)
    assert (await alice.post(f"{room_path(room_id)}/leave", {})).status == 200
    await played.until(
        lambda: any(
            "@alice:test" in body["org.matrix.msc3202.device_lists"]["left"]
            for _, body in played.transactions
        )
    )


async def test_one_process_delivers_at_a_time(start, played, monkeypatch):
    """Two workers on one database: what both could send goes out once."""
    homeserver = await start()
    alice = await homeserver.register("alice")
    _, room_id = await ghost_room(homeserver, alice)
    await played.until(lambda: len(played.events) == 2)
    monkeypatch.setattr(delivery, "STAND_BY_S", 0.05)
    (worker,) = [one for one in homeserver.workers if one.name == delivery.Deliveries.name]
    (first,) = worker._all.values()
    wires = delivery.Wires(
        first._wires.db, first._wires.clock, first._wires.requests, holder="second", is_shared=True
    )
    second = delivery.Delivery(wires, first.service, first._reader)
    wires.db.subscribe(second.hear)
    task = asyncio.create_task(second.run())
    try:
        for number in range(100):
            await say(alice, room_id, str(number))
        await played.until(lambda: "99" in played.bodies(), 60)
    finally:
        task.cancel()
    assert played.bodies() == [str(number) for number in range(100)]
    assert len({txn_id for txn_id, _ in played.attempts}) == len(played.attempts)
    progress = await wires.db.read(find_progress, "bridge")
    assert progress is not None


async def test_without_a_url_nothing_is_kept(start_homeserver, tmp_path):
    homeserver = await start_homeserver(appservices=registered(tmp_path, registration(None)))
    assert await homeserver.foundation.ports.db.read(find_progress, "bridge") is None


async def test_one_bad_service_does_not_hold_up_another(start_homeserver, played, tmp_path):
    bad = registration(
        "http://127.0.0.1:9",
        id="bad",
        as_token="bad",
        sender_localpart="badbot",
        namespaces={"users": [{"regex": "@ghost_.*", "exclusive": False}]},
    )
    homeserver = await start_homeserver(appservices=registered(tmp_path, bad, registration(played.url)))
    alice = await homeserver.register("alice")
    bridge = homeserver.client.as_user(AS_TOKEN)
    assert (await bridge.post(REGISTER, TYPE | {"username": "ghost_x"})).status == 200
    _, room_id = await ghost_room(homeserver, alice)
    await say(alice, room_id, "through")
    await played.until(lambda: "through" in played.bodies())


async def test_two_processes_on_one_database_deliver_once(postgres_database, played, tmp_path, monkeypatch):
    postgres_database.reset()
    monkeypatch.setattr(delivery, "STAND_BY_S", 0.05)
    shared = {
        "appservices": registered(tmp_path, registration(played.url)),
        "database": DatabaseConfig(url=postgres_database.url),
    }
    async with running_homeserver(tmp_path / "one", **shared) as one:
        async with running_homeserver(tmp_path / "two", **shared) as two:
            alice = await one.register("alice")
            _, room_id = await ghost_room(one, alice)
            also_alice = two.client.as_user(alice.token)
            for number in range(40):
                await say(also_alice if number % 2 else alice, room_id, str(number))
            await played.until(lambda: "39" in played.bodies(), 60)
        for number in range(40, 50):
            await say(alice, room_id, str(number))
        await played.until(lambda: "49" in played.bodies(), 60)
    assert played.bodies() == [str(number) for number in range(50)]
    assert len({txn_id for txn_id, _ in played.attempts}) == len(played.attempts)
