"""Pushers, and what push gateways get: in order, again after a failure, never to one that rejected."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import orjson
import pytest

from ranvier.app.compose.foundation import Network
from ranvier.io.dns import open_dns_resolver
from ranvier.io.ports import HttpRequest, HttpResponse, Unreachable
from ranvier.services.push.delivery import DELIVERIES_OF_USER, MAX_DELIVERIES
from ranvier.services.push.notices import Notices, read_notices
from ranvier.services.turns import Turns
from ranvier.store.database import ReadTxn
from ranvier.store.tables.pushers import list_all_pushers

from .client import segment
from .homeserver import Homeserver, User, eventually
from .scripted_room import Room

PUSHERS = "/_matrix/client/v3/pushers"
GATEWAY = "https://push.example/_matrix/push/v1/notify"


def pusher(**fields: Any) -> dict[str, Any]:
    return {
        "kind": "http",
        "app_id": "org.example.app",
        "pushkey": "key",
        "app_display_name": "App",
        "device_display_name": "Phone",
        "profile_tag": "x",
        "lang": "en",
        "data": {"url": GATEWAY, "brand": "y"},
    } | fields


class Gateway:
    """What was sent to it; fails while `is_down`."""

    def __init__(self) -> None:
        self.is_down = False
        self.rejected: list[str] = []
        self.tries = 0
        self.got: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def send(self, request: HttpRequest) -> HttpResponse:
        self.tries += 1
        if self.is_down:
            raise Unreachable("down")
        assert (request.method, request.url) == ("POST", GATEWAY)
        assert request.body is not None
        self.got.put_nowait(orjson.loads(request.body)["notification"])
        return HttpResponse(200, {}, orjson.dumps({"rejected": self.rejected}))

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(60):
            return await self.got.get()


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


@pytest.fixture
async def homeserver(gateway: Gateway, start_homeserver: Callable) -> AsyncIterator[Homeserver]:
    async def close() -> None: ...

    return await start_homeserver(replaced={"network": Network(gateway, open_dns_resolver(), close)})


@pytest.fixture
async def room(homeserver: Homeserver, alice: User, bob: User) -> Room:
    room = await Room.create(homeserver, alice)
    await room.join(bob)
    return room


async def set_pusher(user: User, **fields: Any) -> None:
    answer = await user.post(f"{PUSHERS}/set", pusher(**fields))
    assert (answer.status, answer.json) == (200, {})


async def test_a_notification_in_full(gateway, alice, bob, room):
    await room.set_membership(alice, alice, "join", displayname="Alice")
    await room.set_state(alice, "m.room.name", {"name": "Tea"})
    await set_pusher(bob)
    event_id = await room.say(alice, "hello", **{"m.mentions": {"user_ids": [bob.user_id]}})
    got = await gateway.next()
    (device,) = got.pop("devices")
    assert device.pop("pushkey_ts") > 0
    assert device == {
        "app_id": "org.example.app",
        "pushkey": "key",
        "data": {"brand": "y"},
        "tweaks": {"sound": "default", "highlight": True},
    }
    content = got.pop("content")
    assert content["body"] == "hello"
    assert got == {
        "event_id": event_id,
        "room_id": room.room_id,
        "type": "m.room.message",
        "sender": alice.user_id,
        "sender_display_name": "Alice",
        "room_name": "Tea",
        "prio": "high",
        "counts": {"unread": 1},
    }


async def test_only_the_event_id_where_that_is_asked_for(gateway, alice, bob, room):
    await set_pusher(bob, data={"url": GATEWAY, "format": "event_id_only"})
    event_id = await room.say(alice, "secret")
    got = await gateway.next()
    assert got.keys() == {"event_id", "room_id", "counts", "devices", "prio"}
    assert (got["event_id"], got["devices"][0]["data"]) == (event_id, {"format": "event_id_only"})


async def test_order_own_messages_and_badges(gateway, alice, bob, room):
    await room.say(alice, "before there was a pusher")
    await set_pusher(bob)
    sent = [await room.say(alice, str(number)) for number in range(5)]
    assert [(await gateway.next())["event_id"] for _ in sent] == sent
    # What is read elsewhere takes the badge away, and one's own messages are no news.
    await bob.post(f"{room.path}/receipt/m.read/{segment(sent[-1])}", {})
    badge = await gateway.next()
    assert (badge["counts"], "event_id" in badge) == ({"unread": 0}, False)
    await room.say(bob, "mine")
    last = await room.say(alice, "after")
    assert (await gateway.next())["event_id"] == last


async def test_a_process_that_sees_less_does_not_go_back(gateway, homeserver, alice, bob, room):
    """On PostgreSQL another process may have told more: with a position that lies behind, the claim would stay."""
    await set_pusher(bob)
    await room.say(alice, "hello")
    await gateway.next()
    db, interner = homeserver.foundation.ports.db, homeserver.foundation.interner

    def read(txn: ReadTxn) -> tuple[int, Notices | None]:
        (one,) = list_all_pushers(txn, 0, 10)
        found = read_notices(Late(txn), interner, one.pusher_nid, 0)  # type: ignore[arg-type]
        return one.pushed_nid, found

    async def is_noted() -> bool:
        pushed_nid, _ = await db.read(read)
        return pushed_nid == db.position()

    class Late:
        position = 1

        def __init__(self, txn: ReadTxn) -> None:
            self.first, self.all, self.value = txn.first, txn.all, txn.value

    await eventually(is_noted)
    pushed_nid, found = await db.read(read)
    assert found is not None
    assert (found.up_to, found.position) == (pushed_nid, pushed_nid)


async def test_an_invite_is_told(gateway, homeserver, alice):
    carol = await homeserver.register("carol")
    await set_pusher(carol)
    private = await Room.create(homeserver, alice)
    await private.set_membership(alice, carol, "invite")
    got = await gateway.next()
    assert (got["type"], got["user_is_target"]) == ("m.room.member", True)


async def test_a_gateway_that_fails_is_tried_again(gateway, homeserver, alice, bob, room):
    await set_pusher(bob)
    gateway.is_down = True
    sent = [await room.say(alice, "one"), await room.say(alice, "two")]

    async def was_tried() -> bool:
        return gateway.tries > 0

    await eventually(was_tried)
    gateway.is_down = False
    homeserver.clock.ahead_ms += 3_600_000
    sent.append(await room.say(alice, "three"))
    assert [(await gateway.next())["event_id"] for _ in sent] == sent


class SlowGateways:
    """Answers only at FAST, until told to go on."""

    FAST = "https://fast.example/_matrix/push/v1/notify"

    def __init__(self) -> None:
        self.under_way: dict[str, int] = {}
        self.told: asyncio.Queue[str] = asyncio.Queue()
        self.go_on = asyncio.Event()

    async def send(self, request: HttpRequest) -> HttpResponse:
        if request.url == self.FAST:
            assert request.body is not None
            (device,) = orjson.loads(request.body)["notification"]["devices"]
            self.told.put_nowait(device["pushkey"])
        else:
            self.under_way[request.url] = self.under_way.get(request.url, 0) + 1
            await self.go_on.wait()
        return HttpResponse(200, {}, b"{}")


def slow_url(number: int) -> str:
    return f"https://slow{number}.example/_matrix/push/v1/notify"


@pytest.fixture
def slow() -> SlowGateways:
    return SlowGateways()


@pytest.fixture
async def slowed(slow: SlowGateways, start_homeserver: Callable) -> AsyncIterator[Homeserver]:
    async def close() -> None: ...

    yield await start_homeserver(replaced={"network": Network(slow, open_dns_resolver(), close)})
    slow.go_on.set()


async def test_one_users_slow_pushers_are_in_nobodys_way(slow, slowed):
    """More of them than there are deliveries at a time, each at a host of its own."""
    alice, bob, carol = [await slowed.register(name) for name in ("alice", "bob", "carol")]
    room = await Room.create(slowed, alice)
    for user in (bob, carol):
        await room.join(user)
    for number in range(MAX_DELIVERIES + 5):
        await set_pusher(bob, pushkey=str(number), data={"url": slow_url(number)})
    await room.say(alice, "one")

    async def is_stuck() -> bool:
        return len(slow.under_way) == DELIVERIES_OF_USER

    await eventually(is_stuck)
    await set_pusher(carol, pushkey="carols", data={"url": slow.FAST})
    await room.say(alice, "two")
    async with asyncio.timeout(60):
        assert await slow.told.get() == "carols"
    assert len(slow.under_way) == DELIVERIES_OF_USER


async def test_one_slow_gateway_is_in_nobodys_way_who_uses_another(slow, slowed, monkeypatch):
    alice, *users = [await slowed.register(f"user{number}") for number in range(5)]
    room = await Room.create(slowed, alice)
    for user in users:
        await room.join(user)
    delivery = next(one for one in slowed.workers if one.name == "push-delivery")
    monkeypatch.setattr(delivery, "_slots", asyncio.Semaphore(3))
    monkeypatch.setattr(delivery, "_to_place", Turns(2))
    for user in users[:3]:
        await set_pusher(user, pushkey=user.user_id, data={"url": slow_url(1)})
    await room.say(alice, "one")

    async def is_stuck() -> bool:
        return slow.under_way == {slow_url(1): 2}

    await eventually(is_stuck)
    await set_pusher(users[3], pushkey="fast", data={"url": slow.FAST})
    await room.say(alice, "two")
    async with asyncio.timeout(60):
        assert await slow.told.get() == "fast"
    assert slow.under_way == {slow_url(1): 2}


async def test_a_rejected_pusher_goes(gateway, alice, bob, room):
    await set_pusher(bob)
    await set_pusher(bob, pushkey="other")
    gateway.rejected = ["key"]
    await room.say(alice, "one")
    assert {(await gateway.next())["devices"][0]["pushkey"] for _ in range(2)} == {"key", "other"}

    async def is_gone() -> bool:
        return len((await bob.get(PUSHERS)).json["pushers"]) == 1

    await eventually(is_gone)
    await room.say(alice, "two")
    assert (await gateway.next())["devices"][0]["pushkey"] == "other"


async def test_pushers_are_listed_replaced_and_deleted(alice, bob):
    await set_pusher(alice)
    await set_pusher(alice, lang="fr", profile_tag=None)
    (shown,) = (await alice.get(PUSHERS)).json["pushers"]
    assert shown == pusher(lang="fr", profile_tag="")
    assert (await bob.get(PUSHERS)).json == {"pushers": []}
    # The same app on the same phone, now used by Bob: Alice's goes unless both are wanted.
    await set_pusher(bob, append=True)
    assert len((await alice.get(PUSHERS)).json["pushers"]) == 1
    await set_pusher(bob)
    assert (await alice.get(PUSHERS)).json == {"pushers": []}
    gone = {"kind": None, "app_id": "org.example.app", "pushkey": "key"}
    for _ in range(2):
        assert (await bob.post(f"{PUSHERS}/set", gone)).json == {}
        assert (await bob.get(PUSHERS)).json == {"pushers": []}


@pytest.mark.parametrize(
    ("fields", "errcode"),
    [
        ({"app_id": "x" * 65}, "M_INVALID_PARAM"),
        ({"pushkey": "x" * 513}, "M_INVALID_PARAM"),
        ({"pushkey": ""}, "M_INVALID_PARAM"),
        ({"pushkey": 5}, "M_BAD_JSON"),
        ({"lang": None}, "M_MISSING_PARAM"),
        ({"lang": "\0"}, "M_INVALID_PARAM"),
        ({"kind": "email"}, "M_INVALID_PARAM"),
        ({"kind": 5}, "M_INVALID_PARAM"),
        ({"append": "yes"}, "M_BAD_JSON"),
        ({"data": []}, "M_BAD_JSON"),
        ({"data": {}}, "M_MISSING_PARAM"),
        ({"data": {"url": GATEWAY, "x": "y" * 9000}}, "M_INVALID_PARAM"),
        ({"data": {"url": "http://push.example/_matrix/push/v1/notify"}}, "M_INVALID_PARAM"),
        ({"data": {"url": "https://push.example/"}}, "M_INVALID_PARAM"),
        ({"data": {"url": "https://push.example:x/_matrix/push/v1/notify"}}, "M_INVALID_PARAM"),
        ({"data": {"url": "https://u:p@push.example/_matrix/push/v1/notify"}}, "M_INVALID_PARAM"),
        ({"data": {"url": 7}}, "M_INVALID_PARAM"),
    ],
)
async def test_pushers_that_are_refused(alice, fields, errcode):
    answer = await alice.post(f"{PUSHERS}/set", pusher(**fields))
    assert (answer.status, answer.errcode) == (400, errcode)
    assert (await alice.get(PUSHERS)).json == {"pushers": []}


async def test_who_asks_for_pushers(alice):
    missing = await alice.post(f"{PUSHERS}/set", {"kind": "http"})
    assert missing.json == {"errcode": "M_MISSING_PARAM", "error": "Missing parameters: app_id, pushkey."}
    assert (await alice.as_user(None).get(PUSHERS)).errcode == "M_MISSING_TOKEN"
    assert (await alice.as_user("wrong").post(f"{PUSHERS}/set", pusher())).errcode == "M_UNKNOWN_TOKEN"
