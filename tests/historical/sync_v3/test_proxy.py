"""What only the proxy has to do: follow an upstream that fails, restarts, refuses, or says nonsense."""

import asyncio
import hashlib
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest

from ranvier.core.errors import Unavailable
from ranvier.historical.sync_v3.proxy.pollers import Pollers
from ranvier.historical.sync_v3.proxy.storing import Heard, device_key, store
from ranvier.historical.sync_v3.proxy.sweeping import IDLE_MS, DeviceSweeper
from ranvier.historical.sync_v3.proxy.upstream import MAX_SYNC_BYTES, Upstream
from ranvier.http.endpoint import Api
from ranvier.io.clock import SystemClock
from ranvier.io.ports import HttpResponse, Misbehaved, TimedOut, Unreachable
from ranvier.store.tables import sync_v3_proxy as table

from ...http.client import Client
from ...http.homeserver import AheadClock, eventually
from ...http.rooms import create, do
from .client import PATH, V3, AppHttp, names
from .conftest import running_proxy
from .test_scenarios import numbers, send_to

ALICE = "@alice:upstream"
ROOM = "!room:upstream"
TYPES = {"content-type": "application/json"}


def answer(status=200, **body):
    return HttpResponse(status, TYPES, orjson.dumps(body))


def member(name, membership="join", n=0):
    user_id = f"@{name}:upstream"
    return {
        "type": "m.room.member",
        "state_key": user_id,
        "sender": user_id,
        "event_id": f"${name}{n}",
        "origin_server_ts": 1000 + n,
        "content": {"membership": membership},
        "unsigned": {"age": 5 + n},
    }


def room(*state, timeline=(), **more):
    return {"state": {"events": list(state)}, "timeline": {"events": list(timeline)}, **more}


class Scripted:
    """An upstream that says what the test tells it to. When there is nothing left, a sync waits."""

    def __init__(self, *syncs):
        self.syncs = list(syncs)
        self.asked = []
        self.whoami = answer(user_id=ALICE)
        self.more = asyncio.Event()

    def say(self, *syncs):
        self.syncs += syncs
        self.more.set()

    def stream(self, request):
        raise NotImplementedError

    @property
    def sinces(self):
        """The tokens with which the proxy asked."""
        found = [parse_qs(urlsplit(url).query) for url in self.asked if "/sync?" in url]
        return [query.get("since", [None])[0] for query in found]

    async def send(self, request):
        self.asked.append(request.url)
        assert request.headers == {"Authorization": "Bearer secret"}
        said = self.whoami
        if "/sync?" in request.url:
            assert request.max_response_bytes == MAX_SYNC_BYTES
            while not self.syncs:
                self.more.clear()
                await self.more.wait()
            said = self.syncs.pop(0)
        if isinstance(said, Exception):
            raise said
        return said


class QuickClock(AheadClock):
    """Nobody waits long: what lasts longer than a moment is noted, and is over at once."""

    def __init__(self):
        super().__init__()
        self.slept = []

    async def sleep(self, seconds):
        self.slept.append(seconds)
        if seconds >= 3600 or seconds == 60:
            await asyncio.Event().wait()
        await super().sleep(0)


@pytest.fixture
def clock():
    return QuickClock()


@pytest.fixture
async def follow(tmp_path, clock):
    """`follow(http)`: a client of a proxy for this upstream, whose database stays from one to the next."""

    @asynccontextmanager
    async def start(http, token="secret"):
        async with running_proxy(tmp_path, http, clock) as (proxy, db):
            client = V3(Client(proxy.app, token))
            client.proxy, client.db = proxy, db
            yield client

    return start


FIRST = answer(next_batch="s1", rooms={"join": {ROOM: room(member("alice"), member("bob"))}})
BODY = {"room_members": {"room_id": ROOM, "sort": "by_name"}, "to_device": {}}


async def test_the_first_call_waits_for_the_first_answer(follow):
    upstream = Scripted()
    async with follow(upstream) as client:
        asking = asyncio.create_task(client.sync(BODY))
        await asyncio.sleep(0.05)
        assert not asking.done()
        upstream.say(FIRST)
        got = await asyncio.wait_for(asking, 5)
        assert names(got["room_members"]) == ["@alice", "@bob"]
        await client.sync({}, got["next"])
        assert sum("whoami" in url for url in upstream.asked) == 1


async def test_many_that_come_together_ask_once(follow):
    upstream = Scripted(FIRST)
    async with follow(upstream) as client:
        got = await asyncio.gather(*(client.sync(BODY) for _ in range(10)))
        assert len({one["next"].split("_")[1] for one in got}) == 10
        assert sum("whoami" in url for url in upstream.asked) == 1
        assert upstream.sinces == [None, "s1"]


async def test_a_restart_goes_on_where_it_was(follow):
    upstream = Scripted(FIRST)
    async with follow(upstream) as client:
        got = await client.sync(BODY)
    upstream = Scripted(
        answer(next_batch="s2", to_device={"events": [{"type": "m.test", "content": {"n": 1}}]})
    )
    async with follow(upstream) as client:
        after = await client.sync({}, got["next"])
        # Who it is was asked before the restart; what is new since then, only now.
        assert upstream.sinces[0] == "s1"
        assert not any("whoami" in url for url in upstream.asked)
        assert numbers(after) == [1]
        assert after["room_members"]["events"] == []
        again = await client.sync({"room_members": {"p": {"since": "1"}}}, after["next"])
        assert names(again["room_members"]) == ["@alice", "@bob"]


FAILURES = [
    answer(500),
    answer(502),
    answer(429),
    answer(403),
    Unreachable("no"),
    TimedOut("slow"),
    Misbehaved("the body has more bytes than allowed"),
    HttpResponse(200, TYPES, b"<html>"),
    HttpResponse(200, TYPES, b"[]"),
    answer(200),
    answer(200, next_batch=5),
]


async def test_failures_are_survived_with_pauses_that_grow(follow, clock):
    upstream = Scripted(FIRST)
    async with follow(upstream) as client:
        got = await client.sync(BODY)
        upstream.say(*FAILURES, answer(next_batch="s2", rooms={"join": {ROOM: room(member("carol"))}}))
        after = await client.sync({}, got["next"], wait_ms=5000)
        assert names(after["room_members"]) == ["@carol"]
        assert upstream.sinces[: len(FAILURES) + 2] == [None, *["s1"] * (len(FAILURES) + 1)]
        pauses = [pause for pause in clock.slept if pause < 3600 and pause != 60]
        assert pauses == [min(2.0**n, 300) for n in range(1, len(FAILURES) + 1)]


async def test_the_upstream_may_say_how_long_to_wait(follow, clock):
    upstream = Scripted(FIRST, HttpResponse(429, {"retry-after": "77"}, b"{}"))
    async with follow(upstream) as client:
        await client.sync(BODY)

        async def has_waited():
            return 77.0 in clock.slept

        await eventually(has_waited)


@pytest.mark.parametrize("failure", FAILURES[:1] + FAILURES[4:5] + FAILURES[7:8])
async def test_a_device_of_which_nothing_is_known_is_told_so(follow, failure):
    upstream = Scripted(failure)
    async with follow(upstream) as client:
        got = await client.ask(BODY)
        assert (got.status, got.errcode) == (502, "M_UNKNOWN")
        upstream.whoami = failure
        other = V3(client.client)
        upstream.say(FIRST)

        async def has_come():
            return (await other.ask(BODY)).status == 200

        await eventually(has_come)


async def test_whoami_may_fail(follow):
    upstream = Scripted(FIRST)
    async with follow(upstream) as client:
        for failure, status in ((answer(500), 502), (answer(200, user_id=5), 502), (answer(401), 401)):
            upstream.whoami = failure
            got = await client.ask(BODY)
            assert (got.status, got.errcode) == (status, "M_UNKNOWN_TOKEN" if status == 401 else "M_UNKNOWN")
        upstream.whoami = answer(user_id=ALICE)
        await client.sync(BODY)


async def test_a_token_that_is_revoked_later(follow):
    refused = answer(401, errcode="M_UNKNOWN_TOKEN")
    upstream = Scripted(FIRST)
    async with follow(upstream) as client:
        got = await client.sync(BODY)
        upstream.say(refused, refused)

        async def is_refused():
            found = await client.ask({}, got["next"])
            return (found.status, found.errcode) == (401, "M_UNKNOWN_TOKEN")

        await eventually(is_refused)
        # It came back (an administrator's mistake, say): so does everything.
        upstream.say(answer(next_batch="s2"))

        async def is_back():
            upstream.say(answer(next_batch="s2"))
            return (await client.ask({}, got["next"])).status == 200

        await eventually(is_back)


async def test_an_upstream_that_forgot_its_token_is_heard_anew(follow):
    before = {ROOM: room(member("alice"), member("bob")), "!gone:upstream": room(member("alice"))}
    upstream = Scripted(answer(next_batch="s1", rooms={"join": before}))
    async with follow(upstream) as client:
        token = (await client.sync(BODY | {"rooms": {}}))["next"]
        whole = {ROOM: room(member("alice"), member("dave"))}
        upstream.say(answer(400, errcode="M_UNKNOWN_POS"), answer(next_batch="t1", rooms={"join": whole}))
        after = await client.sync({}, token, wait_ms=5000)
        assert names(after["room_members"]) == ["@dave"]
        assert after["rooms"]["del_rooms"] == ["!gone:upstream"]
        page = await client.sync({"room_members": {"p": {"since": "1"}}}, after["next"])
        assert names(page["room_members"]) == ["@alice", "@dave"]
        assert upstream.sinces[:3] == [None, "s1", None]


GARBAGE = {
    "next_batch": "s2",
    "rooms": {
        "join": {
            ROOM: {
                "state": {
                    "events": [5, {}, {"type": 5}, {"type": "m.room.member", "state_key": 7, "content": {}}]
                },
                "timeline": {"events": [{"type": "a\0b", "state_key": "", "content": {}}, None]},
                "ephemeral": {
                    "events": [{"type": "m.typing", "content": {"user_ids": "x"}}, {"content": []}]
                },
                "account_data": {"events": [{"type": "m.tag", "content": {"tags": 5}}, {"type": None}]},
                "summary": [],
            },
            "!other:upstream": 5,
            "": {},
            "!strange:upstream": {
                "state": {
                    "events": [
                        {"type": "m.room.name", "state_key": "", "content": {"name": 5}},
                        {
                            "type": "m.room.create",
                            "state_key": "",
                            "content": {"room_version": [], "type": {}},
                        },
                        {"type": "m.room.power_levels", "state_key": "", "content": {"users": 5}},
                        {"type": "m.room.member", "state_key": "@x:y", "content": {"displayname": 5}},
                    ]
                },
                "timeline": {"events": [{"type": "m.x", "content": {}, "origin_server_ts": "soon"}]},
            },
        },
        "leave": [],
        "invite": {"!invited:upstream": {}},
    },
    "account_data": {"events": "x"},
    "to_device": {"events": [5, {"type": 5}, {"type": "m.test", "content": {"n": 9}}]},
}


async def test_what_is_malformed_in_an_answer_is_left_out(follow):
    upstream = Scripted(FIRST)
    async with follow(upstream) as client:
        token = (await client.sync(BODY))["next"]
        upstream.say(answer(**GARBAGE))
        after = await client.sync({}, token, wait_ms=5000)
        assert numbers(after) == [9]
        for sort in ("by_name", "by_tag", "by_recency"):
            listed = (await client.sync({"rooms": {"sort": sort}}))["rooms"]["rooms"]
            assert {one["room_id"] for one in listed} == {ROOM, "!strange:upstream"}
        for sort in ("by_pl", "by_name"):
            body = {"room_members": {"room_id": "!strange:upstream", "sort": sort}}
            assert names((await client.sync(body))["room_members"]) == ["@x"]


async def test_equal_state_is_no_news(follow):
    same = member("bob") | {"unsigned": {"age": 99}}
    upstream = Scripted(FIRST)
    async with follow(upstream) as client:
        token = (await client.sync(BODY))["next"]
        upstream.say(answer(next_batch="s2", rooms={"join": {ROOM: room(same)}}))

        async def is_heard():
            return upstream.sinces[-1] == "s2"

        await eventually(is_heard)
        assert (await client.sync({}, token))["room_members"]["events"] == []


async def test_a_room_is_named_after_its_members(follow):
    first = answer(next_batch="s1", rooms={"join": {ROOM: room(member("alice"), member("bob", "invite"))}})
    more = answer(next_batch="s2", rooms={"join": {ROOM: room(member("carol"), member("bob", "leave", 1))}})
    upstream = Scripted(first)
    async with follow(upstream) as client:
        got = await client.sync({"rooms": {}})
        (entry,) = got["rooms"]["rooms"]
        assert (entry["heroes"], entry["joined_count"], entry["invited_count"]) == (["@bob:upstream"], 1, 1)
        upstream.say(more)
        (entry,) = (await client.sync({}, got["next"], wait_ms=5000))["rooms"]["rooms"]
        assert (entry["heroes"], entry["joined_count"], entry["invited_count"]) == (["@carol:upstream"], 2, 0)


async def test_coming_back_to_a_room_begins_it_anew(follow):
    upstream = Scripted(FIRST)
    async with follow(upstream) as client:
        token = (await client.sync(BODY))["next"]
        upstream.say(answer(next_batch="s2", rooms={"leave": {ROOM: {}}}))

        async def has_left():
            return "room_members" not in await client.sync({}, token)

        await eventually(has_left)
        upstream.say(
            answer(next_batch="s3", rooms={"join": {ROOM: room(member("alice", n=1), member("erin"))}})
        )

        async def is_back():
            found = (await client.sync({}, token)).get("room_members", {"events": []})
            return names(found) == ["@alice", "@erin"]

        await eventually(is_back)


async def test_history_is_kept_for_who_may_page_in_it_and_no_longer(follow):
    upstream = Scripted(FIRST)
    body = {"room_members": {"room_id": ROOM, "sort": "by_name", "limit": 1}}
    async with follow(upstream) as client:
        old = (await client.sync(body))["next"]
        token = old
        for n in range(2, 6):
            upstream.say(answer(next_batch=f"s{n}", rooms={"join": {ROOM: room(member("bob", n=n))}}))
            token = (await client.sync({}, token, wait_ms=5000))["next"]
        page = {"room_members": {"p": {"since": "2"}}}
        await client.sync({}, token)
        upstream.say(answer(next_batch="s9"))

        async def is_forgotten():
            return (await client.ask(page, old)).errcode == "M_UNKNOWN_SYNC_SESSION"

        await eventually(is_forgotten)
        (bob,) = (await client.sync(page, token))["room_members"]["events"]
        assert bob["event_id"] == "$bob5"

        def count(txn):
            return txn.value("SELECT COUNT(*) FROM sync_v3_facts WHERE kind = 'member'")

        assert await client.db.read(count) <= 4


async def test_nobody_types_any_more_after_a_restart(follow):
    typing = {"ephemeral": {"events": [{"type": "m.typing", "content": {"user_ids": ["@bob:upstream"]}}]}}
    upstream = Scripted(FIRST)
    async with follow(upstream) as client:
        token = (await client.sync({"typing": {"room_id": ROOM}}))["next"]
        upstream.say(answer(next_batch="s2", rooms={"join": {ROOM: room(**typing)}}))
        got = await client.sync({}, token, wait_ms=5000)
        assert got["typing"]["user_ids"] == ["@bob:upstream"]
    async with follow(Scripted(answer(next_batch="s3"))) as client:
        assert (await client.sync({}, got["next"]))["typing"]["user_ids"] == []


async def test_pollers_are_few_and_end_when_nobody_asks(follow):
    upstream = Scripted(FIRST)
    async with follow(upstream) as client:
        token = (await client.sync(BODY))["next"]
        pollers = client.proxy.pollers
        assert len(pollers) == 1
        pollers.stop_idle(idle_s=60)
        assert len(pollers) == 1
        pollers.stop_idle(idle_s=-1)
        assert len(pollers) == 0
        upstream.say(answer(next_batch="s2", rooms={"join": {ROOM: room(member("carol"))}}))
        # The next request brings the poller back, and what happened meanwhile with it.
        after = await client.sync({}, token)
        assert names(after["room_members"]) == ["@carol"]
        pollers.stop_idle(idle_s=-1)
        small = Pollers(client.db, Upstream(upstream, ""), SystemClock(), max_pollers=1)
        upstream.say(FIRST)
        await small.follow(1, "secret")
        with pytest.raises(Unavailable):
            await small.follow(2, "secret")
        await small.stop_all()


async def test_the_token_itself_is_nowhere_in_the_database(follow, tmp_path):
    async with follow(Scripted(FIRST)) as client:
        await client.sync(BODY)
    stored = b"".join(path.read_bytes() for path in tmp_path.glob("proxy.db*"))
    assert b"secret" not in stored
    assert hashlib.sha256(b"secret").hexdigest().encode() in stored


async def test_a_device_that_nobody_uses_is_forgotten(follow, clock):
    async with follow(Scripted(FIRST)) as client:
        token = (await client.sync(BODY))["next"]
        sweeper = next(one for one in client.proxy.workers if isinstance(one, DeviceSweeper))
        await sweeper.sweep()
        assert (await client.ask({}, token)).status == 200
        clock.ahead_ms += IDLE_MS + 1
        await sweeper.sweep()

        def count(txn):
            tables = ("devices", "facts", "messages", "sessions")
            return [txn.value(f"SELECT COUNT(*) FROM sync_v3_{name}") for name in tables]

        assert await client.db.read(count) == [0, 0, 0, 0]


async def test_tokens_that_could_not_be_sent_on(follow):
    upstream = Scripted()
    for token in ("a b", "é", "x" * 5000, ""):
        async with follow(upstream, token) as client:
            assert (await client.ask({})).status == 401
    assert upstream.asked == []


async def test_other_methods_and_health(follow):
    async with follow(Scripted(FIRST)) as client:
        for method in ("GET", "PUT", "DELETE"):
            got = await client.client.request(method, PATH)
            assert (got.status, got.errcode) == (405, "M_UNRECOGNIZED")
        assert (await client.client.get("/health")).json == {"status": "ok"}
        got = await client.client.post("/_matrix/client/v3/createRoom", {})
        assert (got.status, got.errcode) == (404, "M_UNRECOGNIZED")
        got = await client.client.post(PATH, {}, user_id="@other:upstream")
        assert (got.status, got.errcode) == (403, "M_FORBIDDEN")


async def test_an_answer_is_stored_whole_or_not_at_all(follow):
    async with follow(Scripted(FIRST)) as client:
        await client.sync(BODY)
        device = await client.db.read(table.find_device, hashlib.sha256(b"secret").hexdigest())

        def fail(txn):
            store(txn, Heard(device.device_nid, orjson.loads(answer(**GARBAGE).body), False))
            raise RuntimeError("killed")

        with pytest.raises(RuntimeError):
            await client.db.write(fail)
        assert await client.db.read(table.find_since, device.device_nid) == "s1"
        assert numbers(await client.sync(BODY)) == []
        assert device_key(device.device_nid)


async def test_several_users_of_one_upstream(start_homeserver, tmp_path):
    homeserver = await start_homeserver()
    alice, bob, eve = [await homeserver.register(name) for name in ("alice", "bob", "eve")]
    room_id = await create(alice, preset="public_chat")
    await do(bob, room_id, "join")
    body = {"room_members": {"room_id": room_id}, "to_device": {}}
    async with running_proxy(tmp_path, AppHttp(homeserver.app(frozenset((Api.CLIENT,))))) as (proxy, _):
        clients = [V3(Client(proxy.app, user.token)) for user in (alice, bob, eve)]
        got = [await client.sync(body) for client in clients]
        assert ["room_members" in one for one in got] == [True, True, False]
        await send_to(alice, bob, 1)
        await do(bob, room_id, "leave")

        async def has_come():
            found = await clients[1].sync({}, got[1]["next"])
            return numbers(found) == [1] and "room_members" not in found

        await eventually(has_come)
        assert numbers(await clients[0].sync({}, got[0]["next"])) == []
        foreign = await clients[2].ask({}, got[0]["next"])
        assert foreign.errcode == "M_UNKNOWN_SYNC_SESSION"
