"""Media between servers: fetched once, kept for a while, and no server can make another one choke on an answer."""

import asyncio
import io
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from PIL import Image

from ranvier.app.config import FederationConfig, MediaConfig
from ranvier.io.ports import HttpRequest, HttpResponse

from ..http.administrators import V1 as ADMIN
from ..http.administrators import promote
from ..http.client import Answer, Client
from ..http.homeserver import Homeserver, User
from ..http.test_media import V1, V3, picture, put
from .network import Network

FEDERATION = "/_matrix/federation/v1/media"


@pytest.fixture
async def one(network: Network) -> Homeserver:
    return await network.server("one")


@pytest.fixture
async def two(network: Network) -> Homeserver:
    return await network.server("two")


@pytest.fixture
async def alice(one: Homeserver) -> User:
    return await one.register("alice")


@pytest.fixture
async def bob(two: Homeserver) -> User:
    return await two.register("bob")


async def share(user: User, content: bytes, content_type: str = "text/plain", name: str | None = None) -> str:
    """Upload; server and media id as they stand in paths."""
    answer = await user.request(
        "POST", f"{V3}/upload", body=content, headers={"content-type": content_type}, query={"filename": name}
    )
    return answer.json["content_uri"].removeprefix("mxc://")


async def get(user: Client, place: str, **query: Any) -> Answer:
    return await user.get(f"{V1}/download/{place}", **query)


def asked(network: Network, path: str) -> list[str]:
    return [request.url for _, request in network.log if path in request.url]


def files(homeserver: Homeserver) -> int:
    root = homeserver.foundation.ports.config.data_dir / "media"
    return sum(1 for path in root.rglob("*") if path.is_file())


async def sweep(homeserver: Homeserver) -> None:
    await next(worker for worker in homeserver.workers if worker.name == "media sweeper").sweep()


async def test_a_file_of_another_server(network: Network, alice: User, bob: User) -> None:
    place = await share(alice, b"tea at four", "Text/Plain; charset=utf-8", "\U0001f414 a.txt")
    for _ in range(2):
        answer = await get(bob, place)
        assert (answer.status, answer.body) == (200, b"tea at four")
        assert answer.headers["content-type"] == "Text/Plain; charset=utf-8"
        assert answer.headers["content-disposition"] == "inline; filename*=utf-8''%F0%9F%90%94%20a.txt"
    assert len(asked(network, FEDERATION)) == 1
    assert asked(network, "/_matrix/media/") == []


async def test_awkward_bytes_pass_unchanged(alice: User, bob: User) -> None:
    for content in (b"", b"\r\n", b"\r\n--", b"--\r\n\r\n" * 100, bytes(range(256)) * 600):
        assert (await get(bob, await share(alice, content))).body == content


async def test_many_who_ask_at_once_cause_one_request(network: Network, alice: User, bob: User) -> None:
    place = await share(alice, b"x")
    answers = await asyncio.gather(*(get(bob, place) for _ in range(10)))
    assert {answer.body for answer in answers} == {b"x"}
    assert len(asked(network, FEDERATION)) == 1


async def test_thumbnails_of_pictures_of_another_server(network: Network, alice: User, bob: User) -> None:
    place = await share(alice, picture(1000, 500), "image/png")
    answer = await bob.get(f"{V1}/thumbnail/{place}", width=320, height=240)
    assert answer.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(answer.body)).size == (320, 160)
    assert (await get(bob, place)).body == picture(1000, 500)
    assert len(asked(network, FEDERATION)) == 1


async def test_what_is_not_there(network: Network, one: Homeserver, alice: User, bob: User) -> None:
    missing = await get(bob, "one.test/nothing")
    assert (missing.status, missing.errcode) == (404, "M_NOT_FOUND")
    nowhere = await get(bob, "nowhere.test/x")
    assert (nowhere.status, nowhere.errcode) == (502, "M_UNKNOWN")
    network.log.clear()
    place = await share(alice, b"x")
    frozen = await bob.get(f"{V3}/download/{place}")
    assert (frozen.status, frozen.errcode) == (404, "M_NOT_FOUND")
    assert asked(network, FEDERATION) == [], "what is never shown is not fetched"


async def test_without_allow_remote_nothing_is_fetched(network: Network, alice: User) -> None:
    open_server = await network.server("three", media=MediaConfig(unauthenticated_downloads=True))
    place = await share(alice, b"x")
    refused = await open_server.client.get(f"{V3}/download/{place}", allow_remote="false")
    assert (refused.status, refused.errcode) == (404, "M_NOT_FOUND")
    assert asked(network, FEDERATION) == []
    assert (await open_server.client.get(f"{V3}/download/{place}")).body == b"x"
    assert (await open_server.client.get(f"{V3}/download/{place}", allow_remote="false")).body == b"x"


async def test_a_file_that_is_still_to_come(alice: User, bob: User) -> None:
    answer = await alice.post("/_matrix/media/v1/create")
    place = answer.json["content_uri"].removeprefix("mxc://")
    early = await get(bob, place, timeout_ms=0)
    assert (early.status, early.errcode) == (504, "M_NOT_YET_UPLOADED")
    waiting = asyncio.create_task(get(bob, place))
    await asyncio.sleep(0.05)
    server, _, media_id = place.partition("/")
    await put(alice, media_id, b"late", server)
    assert (await waiting).body == b"late"


async def test_files_that_are_too_large(network: Network, alice: User) -> None:
    small = await network.server("small", media=MediaConfig(max_remote_bytes=10))
    carol = await small.register("carol")
    assert (await get(carol, await share(alice, b"x" * 10))).status == 200
    for size in (11, 500_000):
        refused = await get(carol, await share(alice, b"x" * size))
        assert (refused.status, refused.errcode) == (502, "M_TOO_LARGE")
    assert files(small) == 1


async def test_only_servers_that_sign(network: Network, one: Homeserver, alice: User) -> None:
    place = (await share(alice, b"x")).partition("/")[2]
    stranger = Client(network.app_of(one))
    for what in (f"download/{place}", f"thumbnail/{place}?width=9&height=9"):
        answer = await stranger.get(f"{FEDERATION}/{what}")
        assert (answer.status, answer.errcode) == (401, "M_UNAUTHORIZED")


# Servers that answer strangely


Respond = Callable[..., None]


@pytest.fixture
def strange(network: Network, one: Homeserver) -> Respond:
    """`strange(response)`: what the server one.test answers when it is asked for a file, and for one the old way."""

    def respond(modern: HttpResponse, legacy: HttpResponse | None = None) -> None:
        def answer(request: HttpRequest) -> HttpResponse | None:
            if FEDERATION in request.url:
                return modern
            return legacy if "/_matrix/media/" in request.url else None

        network.before["one.test"] = answer

    return respond


def parts(second: bytes, boundary: str = "b", content_type: str | None = None) -> HttpResponse:
    """An answer of two parts whose second one, head and all, is given."""
    start = f"--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--{boundary}\r\n".encode()
    return HttpResponse(
        200,
        {"content-type": content_type or f"multipart/mixed; boundary={boundary}"},
        start + second + f"\r\n--{boundary}--".encode(),
    )


def error(status: int, errcode: str | None = None) -> HttpResponse:
    return HttpResponse(status, {}, orjson.dumps({"errcode": errcode}) if errcode else b"<html>no</html>")


@pytest.mark.parametrize(
    ("response", "content_type", "disposition", "body"),
    [
        (parts(b"Content-Type: image/png\r\n\r\nbytes"), "image/png", "inline", b"bytes"),
        (parts(b"\r\nbytes"), "application/octet-stream", "attachment", b"bytes"),
        (
            parts(b"content-TYPE: text/html\r\nContent-Disposition: inline\r\n\r\nb"),
            "text/html",
            "attachment",
            b"b",
        ),
        (parts(b"Content-Type: bad\x01\r\n\r\nb"), "application/octet-stream", "attachment", b"b"),
        (
            parts(
                b'Content-Disposition: attachment; filename="a \\"b\\".txt"\r\nContent-Type: text/plain\r\n\r\nb'
            ),
            "text/plain",
            'inline; filename="a \\"b\\".txt"',
            b"b",
        ),
        (
            parts(b"\r\nb", "x y", 'Multipart/Mixed; charset=x; boundary="x y"'),
            "application/octet-stream",
            "attachment",
            b"b",
        ),
        (parts(b"\r\n"), "application/octet-stream", "attachment", b""),
    ],
)
async def test_answers_as_servers_give_them(
    strange: Respond, bob: User, response: HttpResponse, content_type: str, disposition: str, body: bytes
) -> None:
    strange(response)
    answer = await get(bob, "one.test/x")
    assert (answer.status, answer.body) == (200, body)
    assert answer.headers["content-type"] == content_type
    assert answer.headers["content-disposition"] == disposition


@pytest.mark.parametrize(
    "response",
    [
        HttpResponse(200, {"content-type": "image/png"}, b"no parts"),
        HttpResponse(200, {}, b""),
        HttpResponse(200, {"content-type": "multipart/mixed"}, b"--b\r\n"),
        HttpResponse(200, {"content-type": "multipart/mixed; boundary=" + "b" * 80}, b""),
        HttpResponse(200, {"content-type": "multipart/mixed; boundary=b"}, b"--b--\r\n"),
        HttpResponse(200, {"content-type": "multipart/mixed; boundary=b"}, b"--b\r\n\r\n{}\r\n--b--\r\n"),
        HttpResponse(
            200, {"content-type": "multipart/mixed; boundary=b"}, b"--b\r\n\r\n{}\r\n--b\r\n\r\ncut o"
        ),
        HttpResponse(200, {"content-type": "multipart/mixed; boundary=b"}, b"x" * 20_000),
        HttpResponse(200, {"content-type": "multipart/mixed; boundary=b"}, b"--b\r\n" + b"A: b\r\n" * 20_000),
        HttpResponse(200, {"content-type": "multipart/mixed; boundary=b"}, b"--b\r\n\r\n" + b"x" * 100_000),
        parts(b"Location: http://plain.test/x\r\n\r\n"),
        parts(b"Location: file:///etc/passwd\r\n\r\n"),
        parts(b"Location: https://cdn.test:9443/missing\r\n\r\n"),
        error(500),
        error(403, "M_FORBIDDEN"),
        HttpResponse(302, {"location": "https://cdn.test:9443/x"}, b""),
    ],
)
async def test_nonsense_is_no_file(
    two: Homeserver, strange: Respond, bob: User, response: HttpResponse
) -> None:
    strange(response, error(404))
    answer = await get(bob, "one.test/x")
    assert (answer.status, answer.errcode) == (502, "M_UNKNOWN")
    assert files(two) == 0


@pytest.mark.parametrize(
    ("response", "status", "errcode"),
    [
        (error(404, "M_NOT_FOUND"), 404, "M_NOT_FOUND"),
        (error(504, "M_NOT_YET_UPLOADED"), 504, "M_NOT_YET_UPLOADED"),
        (error(502, "M_TOO_LARGE"), 502, "M_TOO_LARGE"),
        (error(413, "M_TOO_LARGE"), 502, "M_TOO_LARGE"),
        (error(429, "M_LIMIT_EXCEEDED"), 429, "M_LIMIT_EXCEEDED"),
    ],
)
async def test_refusals(
    strange: Respond, bob: User, response: HttpResponse, status: int, errcode: str
) -> None:
    strange(response)
    answer = await get(bob, "one.test/x")
    assert (answer.status, answer.errcode) == (status, errcode)


@pytest.mark.parametrize("refusal", [error(404, "M_UNRECOGNIZED"), error(404), error(405), error(400)])
async def test_servers_from_before_authenticated_media(
    network: Network, strange: Respond, bob: User, refusal: HttpResponse
) -> None:
    headers = {"content-type": "image/png", "content-disposition": "inline; filename*=utf-8''%E2%98%95"}
    strange(refusal, HttpResponse(200, headers, b"old"))
    answer = await get(bob, "one.test/x", timeout_ms=1234)
    assert (answer.status, answer.body) == (200, b"old")
    assert answer.headers["content-disposition"] == "inline; filename*=utf-8''%E2%98%95"
    [url] = asked(network, "/_matrix/media/v3/download/one.test/x")
    assert "allow_remote=false" in url
    assert "timeout_ms=1234" in url


@pytest.mark.parametrize("is_modern", [True, False])
async def test_redirects(network: Network, strange: Respond, bob: User, is_modern: bool) -> None:
    place = "https://cdn.test:9443/there?signature=1"
    if is_modern:
        strange(parts(f"Location: {place}\r\n\r\n".encode()))
    else:
        strange(error(404), HttpResponse(307, {"location": place}, b""))

    def cdn(request: HttpRequest) -> HttpResponse:
        assert request.url == place
        assert "Authorization" not in request.headers, "our signature is for the server alone"
        return HttpResponse(200, {"content-type": "text/plain"}, b"from the CDN")

    network.add("cdn.test:9443", object())
    network.before["cdn.test:9443"] = cdn
    answer = await get(bob, "one.test/x")
    assert (answer.status, answer.body) == (200, b"from the CDN")
    assert answer.headers["content-disposition"] == "inline"


async def test_a_thumbnail_that_only_the_other_server_can_make(
    network: Network, one: Homeserver, bob: User
) -> None:
    small = picture(32, 32, "JPEG")

    def answer(request: HttpRequest) -> HttpResponse | None:
        if f"{FEDERATION}/download" in request.url:
            return parts(b"Content-Type: video/mp4\r\n\r\nmoving")
        if f"{FEDERATION}/thumbnail" in request.url:
            assert "width=32&height=32&method=crop&animated=false" in request.url
            return parts(b"Content-Type: image/jpeg\r\n\r\n" + small)
        return None

    network.before["one.test"] = answer
    for _ in range(2):
        got = await bob.get(f"{V1}/thumbnail/one.test/x", width=32, height=32, method="crop")
        assert (got.status, got.body) == (200, small)
        assert got.headers["content-type"] == "image/jpeg"
    assert len(asked(network, f"{FEDERATION}/thumbnail")) == 1


async def test_a_thumbnail_that_is_no_picture_is_refused(
    network: Network, one: Homeserver, bob: User
) -> None:
    network.before["one.test"] = lambda request: (
        parts(b"Content-Type: text/html\r\n\r\n<script>") if FEDERATION in request.url else None
    )
    got = await bob.get(f"{V1}/thumbnail/one.test/x", width=32, height=32)
    assert (got.status, got.errcode) == (400, "M_UNKNOWN")


# The cache


async def test_copies_go_when_nobody_looks(network: Network, two: Homeserver, alice: User, bob: User) -> None:
    looked_at, forgotten = await share(alice, b"looked at"), await share(alice, b"forgotten")
    mine = await share(bob, b"mine")
    for place in (looked_at, forgotten):
        await get(bob, place)
    network.clock.skip(20 * 86_400)
    await get(bob, looked_at)
    network.clock.skip(20 * 86_400)
    await settle(network, two)
    assert files(two) == 2
    await get(bob, looked_at)
    assert len(asked(network, FEDERATION)) == 2
    assert (await get(bob, forgotten)).body == b"forgotten"
    assert len(asked(network, FEDERATION)) == 3
    assert (await get(bob, mine)).status == 200


async def settle(network: Network, homeserver: Homeserver) -> None:
    """Rows go first, and an hour later their contents; the server's own sweeper may be at it, too."""
    await sweep(homeserver)
    network.clock.skip(2 * 3600)
    await sweep(homeserver)
    network.clock.skip(2 * 3600)
    await sweep(homeserver)


async def test_the_cache_has_a_size(network: Network, alice: User) -> None:
    small = await network.server("small", media=MediaConfig(remote_cache_bytes=250))
    carol = await small.register("carol")
    mine = await share(carol, b"x" * 1000)
    places = [await share(alice, bytes([number]) * 100) for number in range(4)]
    for place in (*places, places[0]):
        await get(carol, place)
        network.clock.skip(2 * 3600)
    await settle(network, small)
    assert files(small) == 3
    network.log.clear()
    for place in (places[0], places[3]):
        assert (await get(carol, place)).status == 200
    assert asked(network, FEDERATION) == []
    assert (await get(carol, places[1])).status == 200
    assert len(asked(network, FEDERATION)) == 1
    assert (await get(carol, mine)).status == 200


async def test_an_administrator_purges_and_quarantines_copies(
    network: Network, two: Homeserver, alice: User, bob: User
) -> None:
    place = await share(alice, b"bad")
    await get(bob, place)
    await two.foundation.ports.db.write(promote, bob.user_id)
    bob = await two.login("bob")
    assert (await bob.post(f"{ADMIN}/media/quarantine/{place}")).status == 200
    assert (await get(bob, place)).status == 404
    # The same content under another name is known.
    assert (await get(bob, await share(alice, b"bad"))).status == 404
    good = await share(alice, b"good")
    await get(bob, good)
    info = (await bob.get(f"{ADMIN}/media/{good}")).json["media_info"]
    assert (info["media_origin"], info["user_id"], info["media_length"]) == ("one.test", None, 4)
    network.clock.skip(60)
    purged = await bob.request(
        "POST", f"{ADMIN}/purge_media_cache", query={"before_ts": network.clock.now_ms()}
    )
    assert purged.json == {"deleted": 3}
    assert (await get(bob, good)).body == b"good"
    assert len(asked(network, FEDERATION)) == 4


async def test_without_federation_there_are_only_own_media(network: Network, alice: User) -> None:
    alone = await network.server("alone", federation=FederationConfig(enabled=False))
    carol = await alone.register("carol")
    answer = await get(carol, await share(alice, b"x"))
    assert (answer.status, answer.errcode) == (404, "M_NOT_FOUND")
    assert (await get(carol, await share(carol, b"x"))).body == b"x"
