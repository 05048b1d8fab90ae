"""Where two devices meet to sign one of them in by QR code: MSC4108 (of 2024) and MSC4388."""

import asyncio
from email.utils import parsedate_to_datetime

import pytest

from ranvier.app.config import RateLimitsConfig, RendezvousConfig
from ranvier.services.accounts.sweeping import sweep
from ranvier.services.rendezvous import sessions
from ranvier.store.tables.rendezvous import count_rendezvous_sessions

BASE = "https://matrix.test"
TEXT = "/_matrix/client/unstable/org.matrix.msc4108/rendezvous"
JSON = "/_matrix/client/unstable/io.element.msc4388/rendezvous"
PLAIN = {"content-type": "text/plain"}


@pytest.fixture
async def homeserver(start_homeserver):
    return await start_homeserver(public_base_url=BASE)


@pytest.fixture
def client(homeserver):
    return homeserver.client


async def begin(client, text=b"hello"):
    """The path of a new session, and its ETag."""
    answer = await client.request("POST", TEXT, body=text, headers=PLAIN)
    assert answer.status == 201, answer.body
    return answer.json["url"].removeprefix(BASE), answer.headers["etag"]


async def put(client, path, etag, text):
    return await client.request("PUT", path, body=text, headers=PLAIN | {"if-match": etag})


# MSC4108


async def test_two_devices_write_in_turn(client):
    path, etag = await begin(client)
    seen = await client.get(path)
    assert (seen.status, seen.body, seen.headers["etag"]) == (200, b"hello", etag)
    assert seen.headers["content-type"] == "text/plain"  # exactly: matrix-js-sdk compares it
    answered = await put(client, path, etag, b"hello yourself")
    assert answered.status == 202
    assert answered.headers["etag"] != etag
    again = await put(client, path, answered.headers["etag"], b"hello yourself")
    assert again.headers["etag"] not in (etag, answered.headers["etag"])
    assert (await client.get(path)).body == b"hello yourself"


async def test_who_polls_gets_what_is_new(client):
    path, etag = await begin(client)
    poll = {"if-none-match": etag}
    quiet = await client.request("GET", path, headers=poll)
    assert (quiet.status, quiet.body, quiet.headers["etag"]) == (304, b"", etag)
    await put(client, path, etag, b"new")
    assert (await client.request("GET", path, headers=poll)).body == b"new"


async def test_headers_of_each_answer(homeserver, client):
    path, etag = await begin(client)
    begun_s = homeserver.clock.now_ms() / 1000
    for answer in (
        await client.get(path),
        await client.request("GET", path, headers={"if-none-match": etag}),
        await put(client, path, '"other"', b"x"),
        await put(client, path, etag, b"x"),
    ):
        headers = answer.headers
        expires = parsedate_to_datetime(headers["expires"]).timestamp()
        assert 120 < expires - begun_s <= 300
        modified = parsedate_to_datetime(headers["last-modified"]).timestamp()
        assert begun_s - 60 < modified <= homeserver.clock.now_ms() / 1000
        assert "no-store" in headers["cache-control"]
        assert headers["pragma"] == "no-cache"
        assert "ETag" in headers["access-control-expose-headers"]
        assert headers["x-content-type-options"] == "nosniff"


async def test_browsers_may_ask(client):
    path, _ = await begin(client)
    answer = await client.request("OPTIONS", path)
    allowed = answer.headers["access-control-allow-headers"]
    assert "If-Match" in allowed
    assert "If-None-Match" in allowed
    assert "PUT" in answer.headers["access-control-allow-methods"]


async def test_who_writes_blindly_is_told(client):
    path, etag = await begin(client)
    await put(client, path, etag, b"first")
    late = await put(client, path, etag, b"second")
    assert late.status == 412
    assert late.json["errcode"] == "M_UNKNOWN"
    assert late.json["org.matrix.msc4108.errcode"] == "M_CONCURRENT_WRITE"
    assert (await client.get(path)).body == b"first"


async def test_of_two_writes_at_once_one_wins(client):
    path, etag = await begin(client)
    answers = await asyncio.gather(*(put(client, path, etag, b"%d" % number) for number in range(5)))
    assert sorted(answer.status for answer in answers) == [202, 412, 412, 412, 412]


async def test_a_session_ends(homeserver, client):
    path, etag = await begin(client)
    assert (await client.delete(path)).status == 204
    assert (await client.delete(path)).errcode == "M_NOT_FOUND"
    assert (await client.get(path)).errcode == "M_NOT_FOUND"
    assert (await put(client, path, etag, b"x")).errcode == "M_NOT_FOUND"
    path, etag = await begin(client)
    homeserver.clock.ahead_ms += sessions.LIFETIME_MS
    assert (await client.get(path)).errcode == "M_NOT_FOUND"
    assert (await put(client, path, etag, b"x")).errcode == "M_NOT_FOUND"
    assert (await client.delete(path)).errcode == "M_NOT_FOUND"


@pytest.mark.parametrize(
    ("body", "headers", "status", "errcode"),
    [
        (b"x" * 4096, PLAIN, 201, None),
        (b"x" * 4097, PLAIN, 413, "M_TOO_LARGE"),
        (b"x" * 9000, PLAIN, 413, "M_TOO_LARGE"),
        (b"", PLAIN, 201, None),
        (b"x", {"content-type": "text/plain; charset=utf-8"}, 201, None),
        (b"x", {"content-type": "application/json"}, 400, "M_INVALID_PARAM"),
        (b"\xff", PLAIN, 400, "M_INVALID_PARAM"),
    ],
)
async def test_what_may_be_written(client, body, headers, status, errcode):
    answer = await client.request("POST", TEXT, body=body, headers=headers)
    assert (answer.status, answer.errcode) == (status, errcode)


@pytest.mark.parametrize(
    ("headers", "errcode"),
    [
        ({}, "M_MISSING_PARAM"),
        ({"if-match": "*"}, "M_INVALID_PARAM"),
        ({"if-match": 'W/"x"'}, "M_INVALID_PARAM"),
        ({"if-match": "x"}, "M_INVALID_PARAM"),
        ({"if-match": '""'}, "M_INVALID_PARAM"),
    ],
)
async def test_what_is_no_etag(client, headers, errcode):
    path, _ = await begin(client)
    answer = await client.request("PUT", path, body=b"x", headers=PLAIN | headers)
    assert (answer.status, answer.errcode) == (400, errcode)


@pytest.mark.parametrize(
    "header",
    [
        {"sec-fetch-dest": "document"},
        {"sec-fetch-mode": "navigate"},
        {"sec-fetch-user": "?1"},
        {"sec-fetch-site": "none"},
    ],
)
async def test_nobodys_text_becomes_a_page_of_this_server(client, alice, header):
    path, _ = await begin(client, b"<script>alert(1)</script>")
    assert (await client.request("GET", path, headers=header)).errcode == "M_FORBIDDEN"
    fetched = {"sec-fetch-dest": "empty", "sec-fetch-mode": "cors", "sec-fetch-site": "cross-site"}
    assert (await client.request("GET", path, headers=fetched)).status == 200
    session = (await alice.post(JSON, {"data": "<b>"})).json["id"]
    assert (await client.request("GET", f"{JSON}/{session}", headers=header)).errcode == "M_FORBIDDEN"


# MSC4388


async def test_users_of_this_server_may_begin(client, alice):
    assert (await client.get(JSON)).json == {"create_available": False}
    assert (await alice.get(JSON)).json == {"create_available": True}
    assert (await client.post(JSON, {"data": "x"})).errcode == "M_FORBIDDEN"
    begun = (await alice.post(JSON, {"data": "from A"})).json
    assert 120_000 < begun["expires_in_ms"] <= 300_000
    seen = (await client.get(f"{JSON}/{begun['id']}")).json
    assert seen.pop("expires_in_ms") <= begun["expires_in_ms"]
    assert seen == {"data": "from A", "sequence_token": begun["sequence_token"]}


async def test_anybody_may_where_the_administrator_says_so(start_homeserver):
    homeserver = await start_homeserver(rendezvous=RendezvousConfig(public=True))
    assert (await homeserver.client.get(JSON)).json == {"create_available": True}
    assert (await homeserver.client.post(JSON, {"data": "x"})).status == 200


async def test_writing_and_writing_again(client, alice):
    begun = (await alice.post(JSON, {"data": "one"})).json
    path, first = f"{JSON}/{begun['id']}", begun["sequence_token"]
    two = {"data": "two", "sequence_token": first}
    second = (await client.put(path, two)).json["sequence_token"]
    assert second != first
    # Whoever did not hear the answer asks again.
    assert (await client.put(path, two)).json == {"sequence_token": second}
    late = await client.put(path, {"data": "three", "sequence_token": first})
    assert (late.status, late.errcode) == (409, "IO_ELEMENT_MSC4388_CONCURRENT_WRITE")
    same = (await client.put(path, {"data": "two", "sequence_token": second})).json["sequence_token"]
    assert same not in (first, second)
    assert (await client.delete(path)).json == {}
    assert (await client.delete(path)).errcode == "M_NOT_FOUND"
    assert (await client.put(path, two)).errcode == "M_NOT_FOUND"
    assert (await client.get(path)).errcode == "M_NOT_FOUND"


@pytest.mark.parametrize(
    ("body", "status", "errcode"),
    [
        ({"data": "x" * 4096}, 200, None),
        ({"data": "x" * 4097}, 413, "M_TOO_LARGE"),
        ({"data": "é" * 2049}, 413, "M_TOO_LARGE"),
        ({"data": "\0" * 4096}, 200, None),
        ({"data": 1}, 400, "M_BAD_JSON"),
        ({"data": None}, 400, "M_BAD_JSON"),
        ({}, 400, "M_MISSING_PARAM"),
    ],
)
async def test_what_may_be_written_as_json(alice, body, status, errcode):
    answer = await alice.post(JSON, body)
    assert (answer.status, answer.errcode) == (status, errcode)


# Both


async def test_what_this_server_says_that_it_can(homeserver, start_homeserver):
    async def flags(of):
        return (await of.client.get("/_matrix/client/versions")).json["unstable_features"]

    assert (await flags(homeserver))["org.matrix.msc4108"] is True
    nameless = await start_homeserver()
    assert (await flags(nameless))["org.matrix.msc4108"] is False
    assert (await nameless.client.post(TEXT)).errcode == "M_UNRECOGNIZED"
    off = await start_homeserver(public_base_url=BASE, rendezvous=RendezvousConfig(enabled=False))
    assert (await flags(off))["org.matrix.msc4108"] is False
    for path in (TEXT, JSON):
        assert (await off.client.post(path)).errcode == "M_UNRECOGNIZED"


async def test_there_is_room_for_so_many_and_no_more(homeserver, client, monkeypatch):
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 2)
    first, etag = await begin(client)
    await begin(client)
    full = await client.request("POST", TEXT, body=b"x", headers=PLAIN)
    assert (full.status, full.errcode) == (429, "M_LIMIT_EXCEEDED")
    assert (await put(client, first, etag, b"goes on")).status == 202
    homeserver.clock.ahead_ms += sessions.LIFETIME_MS
    await begin(client)


async def test_what_has_expired_is_swept(homeserver, client):
    db, clock = homeserver.foundation.ports.db, homeserver.clock
    await begin(client)
    await db.write(sweep, clock.now_ms())
    assert await db.read(count_rendezvous_sessions) == 1
    await db.write(sweep, clock.now_ms() + sessions.LIFETIME_MS)
    assert await db.read(count_rendezvous_sessions) == 0


async def test_beginning_is_slow(start_homeserver):
    homeserver = await start_homeserver(public_base_url=BASE, rate_limits=RateLimitsConfig(enabled=True))
    statuses = [
        (await homeserver.client.request("POST", TEXT, body=b"x", headers=PLAIN)).status for _ in range(20)
    ]
    assert statuses[0] == 201
    assert statuses[-1] == 429
