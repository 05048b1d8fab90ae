"""Requests to other servers: where they go, how they are held back, and what comes of an answer."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest

from ranvier.core.federation.discovery import SrvRecord
from ranvier.core.identifiers import ServerName
from ranvier.core.signing import SigningKey
from ranvier.io.ports import (
    Disconnected,
    HttpRequest,
    HttpResponse,
    Misbehaved,
    RemoteFault,
    TimedOut,
    Unreachable,
)
from ranvier.io.randomness import seeded_randomness
from ranvier.services.remote.finder import Finder
from ranvier.services.remote.requests import Ask, Refused, Requests, path_of
from ranvier.services.remote.standing import FIRST_PAUSE_MS, HeldBack, Standings
from ranvier.store.connect import open_database
from ranvier.store.database import Database
from ranvier.store.tables.interned import Interner, intern_servers

from .network import SkippingClock


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    db = await open_database(f"sqlite:{tmp_path / 'requests.db'}")
    yield db
    await db.close()


OWN = ServerName("own.test")
THERE = ServerName("there.test")


class Web:
    """What answers: well-known files and SRV records by name, and one function for all else."""

    def __init__(self) -> None:
        self.files: dict[str, HttpResponse | RemoteFault] = {}
        self.srv: dict[str, list[SrvRecord]] = {}
        self.answers: list[HttpResponse | RemoteFault] = []
        self.requests: list[HttpRequest] = []
        self.is_slow = False
        self.is_asked = asyncio.Event()

    async def send(self, request: HttpRequest) -> HttpResponse:
        self.requests.append(request)
        await asyncio.sleep(0)
        if request.url.endswith("/.well-known/matrix/server"):
            answer = self.files.get(request.url.split("/")[2], HttpResponse(404, {}, b""))
        else:
            if self.is_slow:
                self.is_asked.set()
                await asyncio.Event().wait()
            answer = self.answers.pop(0) if self.answers else HttpResponse(200, {}, b"{}")
        if isinstance(answer, RemoteFault):
            raise answer
        return answer

    def stream(self, request: HttpRequest) -> Any:
        raise NotImplementedError

    async def resolve_host(self, name: str) -> list[str]:
        return []

    async def resolve_srv(self, name: str) -> list[SrvRecord]:
        return self.srv.get(name, [])


class Rig:
    def __init__(self, db: Database, addresses: dict[str, str] | None = None) -> None:
        self.web, self.clock = Web(), SkippingClock()
        random = seeded_randomness(1)
        self.finder = Finder(self.web, self.web, self.clock, random, addresses or {})
        self.standings = Standings(db, Interner(OWN), self.clock, random)
        key = SigningKey(b"k" * 32, "1")
        self.requests = Requests(OWN, key, self.finder, self.standings, self.web, self.clock)


def _file(server: str, **headers: str) -> HttpResponse:
    return HttpResponse(200, headers, orjson.dumps({"m.server": server}))


async def test_where_requests_go(db: Database) -> None:
    rig = Rig(db, {"fixed.test": "127.0.0.1:18448"})
    rig.web.files["there.test"] = _file("elsewhere.test:443")
    rig.web.files["srv.test"] = _file("target.test")
    rig.web.srv["_matrix-fed._tcp.target.test"] = [SrvRecord(1, 1, 7443, "host.test.")]
    expected = {
        "fixed.test": ("https://127.0.0.1:18448/x", "fixed.test", "fixed.test"),
        "there.test": ("https://elsewhere.test:443/x", "elsewhere.test:443", "elsewhere.test"),
        "srv.test": ("https://host.test:7443/x", "target.test", "target.test"),
        "plain.test": ("https://plain.test:8448/x", "plain.test", "plain.test"),
        "[::1]:99": ("https://[::1]:99/x", "[::1]:99", "::1"),
    }
    for server, (url, host, certificate) in expected.items():
        assert await rig.requests.get(ServerName(server), "/x") == {}
        sent = rig.web.requests[-1]
        assert (sent.url, sent.headers["Host"], sent.certificate_name) == (url, host, certificate)
        assert sent.headers["Authorization"].startswith(
            f'X-Matrix origin="own.test",destination="{server}",key="ed25519:1",sig="'
        )


async def test_a_well_known_file_is_fetched_once_for_all_and_kept(db: Database) -> None:
    rig = Rig(db)
    rig.web.files["there.test"] = _file("elsewhere.test:1", **{"cache-control": "max-age=600"})
    await asyncio.gather(*(rig.requests.get(THERE, "/x") for _ in range(5)))

    def fetched() -> int:
        return sum("well-known" in request.url for request in rig.web.requests)

    assert fetched() == 1
    rig.clock.skip(700)
    await rig.requests.get(THERE, "/x")
    assert fetched() == 2
    # The web server goes away: what it said holds on.
    rig.web.files["there.test"] = Unreachable("gone")
    rig.clock.skip(700)
    await rig.requests.get(THERE, "/x")
    assert rig.web.requests[-1].url == "https://elsewhere.test:1/x"


async def test_the_next_place_is_tried_when_one_cannot_be_reached(db: Database) -> None:
    rig = Rig(db)
    rig.web.srv["_matrix-fed._tcp.there.test"] = [
        SrvRecord(1, 1, 1, "first.test."),
        SrvRecord(2, 1, 2, "second.test."),
    ]
    rig.web.answers = [Unreachable("down")]
    assert await rig.requests.get(THERE, "/x") == {}
    assert rig.web.requests[-1].url == "https://second.test:2/x"
    await rig.standings.check(THERE)


async def test_a_connection_that_was_closed_meanwhile_is_tried_again(db: Database) -> None:
    rig = Rig(db)
    rig.web.answers = [Disconnected("closed")]
    assert await rig.requests.post(THERE, "/x", {"a": 1}) == {}
    assert [request.body for request in rig.web.requests if request.method == "POST"] == [b'{"a":1}'] * 2


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (Unreachable("down"), Unreachable),
        (TimedOut("slow"), TimedOut),
        (HttpResponse(502, {}, b"<html>"), Refused),
        (Misbehaved("broken"), Misbehaved),
    ],
)
async def test_a_server_that_fails_is_left_alone_longer_each_time(
    db: Database, answer: Any, fault: type[RemoteFault]
) -> None:
    rig = Rig(db)
    await db.write(intern_servers, Interner(OWN), (THERE,))
    pauses = []
    for _ in range(4):
        rig.web.answers = [answer]
        with pytest.raises(fault):
            await rig.requests.get(THERE, "/x")
        with pytest.raises(HeldBack) as held:
            await rig.requests.get(THERE, "/x")
        pauses.append(held.value.retry_at_ms - rig.clock.now_ms())
        rig.clock.skip(pauses[-1] / 1000 + 1)
    assert 0.7 * FIRST_PAUSE_MS < pauses[0] < 1.3 * FIRST_PAUSE_MS
    assert all(1.2 * before < after < 3.5 * before for before, after in pairwise(pauses))
    # A restart does not forget it, and a success does.
    rig.clock.skip(-pauses[-1] / 1000)
    again = Rig(db)
    again.clock.skip((rig.clock.now_ms() - again.clock.now_ms()) / 1000)
    with pytest.raises(HeldBack):
        await again.requests.get(THERE, "/x")
    assert await again.requests.ask(THERE, Ask(method="GET", path="/x", despite_standing=True)) == {}
    assert await again.requests.get(THERE, "/x") == {}


@pytest.mark.parametrize("jump_s", [-86_400, 86_400])
async def test_a_clock_that_is_set_ends_a_pause_at_most(db: Database, jump_s: int) -> None:
    rig = Rig(db)
    for _ in range(12):
        rig.web.answers = [Unreachable("down")]
        with pytest.raises(Unreachable):
            await rig.requests.get(THERE, "/x")
        rig.clock.skip((await rig.standings.retry_at_ms(THERE) - rig.clock.now_ms()) / 1000)
    rig.web.answers = [Unreachable("down")]
    with pytest.raises(Unreachable):
        await rig.requests.get(THERE, "/x")
    with pytest.raises(HeldBack):
        await rig.requests.get(THERE, "/x")
    rig.clock.jump(jump_s)
    assert await rig.requests.get(THERE, "/x") == {}


async def test_a_name_that_nothing_is_about_leaves_no_trace(db: Database) -> None:
    rig = Rig(db)
    rig.web.answers = [Unreachable("down")]
    with pytest.raises(Unreachable):
        await rig.requests.get(THERE, "/x")
    with pytest.raises(HeldBack):
        await rig.requests.get(THERE, "/x")
    for table in ("servers", "destinations"):
        assert await db.read(lambda txn, sql: txn.value(sql), f"SELECT COUNT(*) FROM {table}") == 0


async def test_failures_of_one_moment_count_once(db: Database) -> None:
    rig = Rig(db)
    rig.web.answers = [Unreachable("down") for _ in range(5)]
    await asyncio.gather(*(rig.requests.get(THERE, "/x") for _ in range(5)), return_exceptions=True)
    assert await rig.standings.retry_at_ms(THERE) - rig.clock.now_ms() < 1.3 * FIRST_PAUSE_MS


async def test_a_server_that_speaks_to_us_is_asked_again(db: Database) -> None:
    rig = Rig(db)
    heard: list[str] = []
    rig.standings.subscribe(heard.append)
    rig.web.answers = [Unreachable("down")]
    with pytest.raises(Unreachable):
        await rig.requests.get(THERE, "/x")
    await rig.standings.heard_from(THERE)
    assert heard == [THERE]
    assert await rig.requests.get(THERE, "/x") == {}


async def test_who_says_too_much_is_left_alone_as_long_as_it_wants(db: Database) -> None:
    rig = Rig(db)
    body = orjson.dumps({"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 5000})
    rig.web.answers = [HttpResponse(429, {}, body)]
    with pytest.raises(Refused) as refused:
        await rig.requests.get(THERE, "/x")
    assert refused.value.errcode == "M_LIMIT_EXCEEDED"
    with pytest.raises(HeldBack):
        await rig.requests.get(THERE, "/x")
    rig.clock.skip(6)
    assert await rig.requests.get(THERE, "/x") == {}


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_a_refusal_is_no_failure(db: Database, status: int) -> None:
    rig = Rig(db)
    rig.web.answers = [HttpResponse(status, {}, b'{"errcode":"M_FORBIDDEN","room_version":"9"}')]
    with pytest.raises(Refused) as refused:
        await rig.requests.get(THERE, "/x")
    assert (refused.value.status, refused.value.body["room_version"]) == (status, "9")
    assert await rig.requests.get(THERE, "/x") == {}


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b'{"a":' * 200])
async def test_an_answer_that_is_no_object(db: Database, body: bytes) -> None:
    rig = Rig(db)
    rig.web.answers = [HttpResponse(200, {}, body)]
    with pytest.raises(Misbehaved):
        await rig.requests.get(THERE, "/x")


async def test_a_deadline_covers_everything(db: Database) -> None:
    rig = Rig(db)
    rig.web.is_slow = True
    asking = asyncio.create_task(rig.requests.ask(THERE, Ask(method="GET", path="/x", timeout_s=30)))
    await rig.web.is_asked.wait()
    rig.clock.skip(31)
    with pytest.raises(TimedOut):
        await asking


def test_paths_are_percent_encoded() -> None:
    assert path_of("/p", "!a:b/c", "$d") == "/p/%21a%3Ab%2Fc/%24d"
