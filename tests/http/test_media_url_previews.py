"""Previews of pages: what they tell, and that no page, however hostile, gets more out of this server than a request.

The pages come from a web server on loopback that misbehaves as it is told, through the real HTTP client.
"""

import asyncio
import gzip
import io
from collections.abc import AsyncIterator, Callable

import pytest
from PIL import Image

from ranvier.app.config import FederationConfig, MediaConfig, RateLimitsConfig, UrlPreviewsConfig

from .client import Answer
from .homeserver import Homeserver, User

V1 = "/_matrix/client/v1/media"


class Website:
    """Answers each path with bytes as they stand on the wire, and counts how often it was asked."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes | Callable] = {}
        self.asked: list[str] = []
        self.port = 0
        self._server: asyncio.Server | None = None

    async def start(self, host: str = "127.0.0.1") -> None:
        self._server = await asyncio.start_server(self._answer, host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server
        self._server.close()
        await self._server.wait_closed()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def page(self, path: str, body: str | bytes, content_type: str = "text/html", *headers: str) -> str:
        """Serve `body` there; its URL."""
        content = body if isinstance(body, bytes) else body.encode()
        head = "".join(f"{line}\r\n" for line in (f"Content-Type: {content_type}", *headers) if line)
        self.pages[path] = (
            f"HTTP/1.1 200 OK\r\n{head}Content-Length: {len(content)}\r\nConnection: close\r\n\r\n".encode()
            + content
        )
        return self.url(path)

    def redirect(self, path: str, location: str, status: int = 302) -> str:
        self.pages[path] = (
            f"HTTP/1.1 {status} Over there\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
        )
        return self.url(path)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ")[1].decode()
            self.asked.append(path)
            found = self.pages.get(path, b"HTTP/1.1 404 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            if callable(found):
                await found(writer)
            else:
                writer.write(found)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def website() -> AsyncIterator[Website]:
    website = Website()
    await website.start()
    yield website
    await website.stop()


ON_LOOPBACK = FederationConfig(allow_private_addresses=("127.0.0.1/32",))


@pytest.fixture
async def alice(start_homeserver: Callable) -> User:
    return await (await start_homeserver(federation=ON_LOOPBACK)).register("alice")


async def preview(user: User, url: str) -> Answer:
    return await user.get(f"{V1}/preview_url", url=url)


def png(width: int = 30, height: int = 20) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height)).save(out, "PNG")
    return out.getvalue()


async def test_a_page_with_everything(website: Website, alice: User) -> None:
    picture = png()
    website.page("/pictures/tea.png", picture, "image/png")
    url = website.page(
        "/deep/page.html",
        """<!doctype html><html><head><title>Other</title>
        <meta property="og:title" content="Tea &amp; cake"><meta property="og:title" content="second">
        <meta property="og:description" content="  At
          four  "><meta property="og:type" content="article"><meta property="og:image:width" content="9999">
        <meta property="og:image" content="../pictures/tea.png"></head></html>""",
    )
    answer = (await preview(alice, url)).json
    uri = answer.pop("og:image")
    assert answer == {
        "og:title": "Tea & cake",
        "og:description": "At four",
        "og:type": "article",
        "og:image:type": "image/png",
        "og:image:width": 30,
        "og:image:height": 20,
        "matrix:image:size": len(picture),
    }
    assert (await alice.get(f"{V1}/download/{uri.removeprefix('mxc://')}")).body == picture
    old = await alice.get("/_matrix/media/v3/preview_url", url=url, ts=123)
    assert old.json["og:image"] == uri


PAGES = [
    ("<title>Only a title</title>", {"og:title": "Only a title"}),
    ("<h2>A heading</h2><p>Prose.</p>", {"og:title": "A heading", "og:description": "Prose."}),
    (
        "<meta name=description content=Described><title>T</title>",
        {"og:title": "T", "og:description": "Described"},
    ),
    ('<meta name="twitter:title" content="Bird"><title>T</title>', {"og:title": "Bird"}),
    ("<nav><p>Menu</p></nav><p>Real</p><script>x</script>", {"og:description": "Real"}),
    ("<p>" + "word " * 200, {"og:description": ("word " * 100).strip() + "…"}),
    ('<meta property="og:image" content="javascript:alert(1)">', {}),
    ('<meta property="og:image" content="/missing.png"><title>T</title>', {"og:title": "T"}),
    ("", {}),
    ("\0\0\0", {}),
    ("<" * 10_000, {}),
    ("<div>" * 50_000 + "<title>deep</title>", None),
    ('<meta property="og:title">', {}),
    ("<title>" + "x" * 5000 + "</title>", {"og:title": "x" * 2000}),
    ('<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><title>&a;</title>', None),
]


async def test_what_pages_tell(website: Website, alice: User) -> None:
    for number, (page, told) in enumerate(PAGES):
        answer = await preview(alice, website.page(f"/{number}", page))
        assert answer.status == 200, answer.body
        assert b"root:" not in answer.body
        if told is not None:
            assert answer.json == told, page


ENCODINGS = [
    ("<title>Tee für zwei</title>".encode(), "text/html"),
    ("<title>Tee für zwei</title>".encode("latin-1"), "text/html; charset=iso-8859-1"),
    ("<meta charset=latin-1><title>Tee für zwei</title>".encode("latin-1"), "text/html"),
    ("<title>Tee für zwei</title>".encode("latin-1"), "text/html; charset=nonsense"),
    (b"\xff\xfe" + "<title>Tee für zwei</title>".encode("utf-16-le"), "text/html"),
    ("<title>Tee für zwei</title>".encode("latin-1"), "text/html; charset=utf-8"),
    ("<title>Tee für zwei</title>".encode(), "text/html; charset=base64"),
]


async def test_encodings(website: Website, alice: User) -> None:
    for number, (body, content_type) in enumerate(ENCODINGS):
        answer = await preview(alice, website.page(f"/{number}", body, content_type))
        assert answer.json == {"og:title": "Tee für zwei"}, content_type


async def test_a_link_to_a_picture(website: Website, alice: User) -> None:
    answer = (await preview(alice, website.page("/a.png", png(), "image/png"))).json
    assert answer["og:image"].startswith("mxc://test/")
    assert answer["og:image:width"] == 30


EMBED = (
    '<link rel="alternate" type="application/json+oembed" href="/embed?a=1&amp;b"><p>You need JavaScript</p>'
)

EMBEDS = [
    (
        b"""{"type": "rich", "title": " Tea\\nat four", "provider_name": "Teahouse", "author_name": "Alice",
        "html": "<blockquote><p>Bring <b>cake</b>.</p></blockquote><script>p()</script>", "width": null}""",
        {
            "og:title": "Tea at four",
            "og:site_name": "Teahouse",
            "og:type": "article",
            "og:description": "Bring cake.",
        },
    ),
    (b'{"type": "link", "author_name": "Alice"}', {"og:title": "Alice", "og:type": "website"}),
    (b'{"type": ["link"], "title": {"a": 1}, "html": 5, "thumbnail_url": []}', {}),
    (b'{"title": "\\ud800"}', {}),
    (b'{"title": "T", "thumbnail_url": "http://10.0.0.1/a.png"}', {"og:title": "T"}),
    (b'{"title": "T", "thumbnail_url": "file:///etc/passwd"}', {"og:title": "T"}),
    (b'{"title": "' + b"x" * 300_000 + b'"}', {}),
    (b"[" * 100_000, {}),
    (b"<html>", {}),
    (b"", {}),
    (b"\xff", {}),
]


async def test_what_the_service_of_a_page_says_of_it(website: Website, alice: User) -> None:
    for number, (embed, told) in enumerate(EMBEDS):
        website.page("/embed?a=1&b", embed, "application/json")
        answer = await preview(alice, website.page(f"/{number}", EMBED))
        assert answer.json == {"og:description": "You need JavaScript"} | told, embed[:99]


async def test_pictures_of_a_service(website: Website, alice: User) -> None:
    website.page("/a.png", png(), "image/png")
    for number, said in enumerate(('"thumbnail_url": "{}"', '"type": "photo", "url": "{}"')):
        embed = '{"title": "T", ' + said.format(website.url("/a.png")) + "}"
        website.page("/embed?a=1&b", embed, "application/json")
        answer = (await preview(alice, website.page(f"/{number}", EMBED))).json
        assert answer["og:image"].startswith("mxc://test/")
        assert answer["og:image:width"] == 30


async def test_a_service_is_not_asked_where_the_page_says_enough_nor_beyond_what_may_be_asked(
    website: Website, alice: User
) -> None:
    titled = website.page("/titled", EMBED + '<meta property="og:title" content="T">')
    assert (await preview(alice, titled)).json["og:title"] == "T"
    assert website.asked == ["/titled"]
    inside = Website()
    inside.port = website.port
    await inside.start("127.0.0.2")
    inside.page("/secret", '{"title": "secret"}', "application/json")
    for number, pattern in enumerate(PRIVATE):
        target = pattern.format(port=website.port)
        website.redirect("/away", target)
        for place, href in (("direct", target), ("redirect", "/away")):
            page = f'<title>T</title><link rel=alternate type="application/json+oembed" href="{href}">'
            answer = await preview(alice, website.page(f"/{place}{number}", page))
            assert answer.json == {"og:title": "T"}, target
    assert inside.asked == []
    await inside.stop()


OTHER_TYPES = ["application/pdf", "application/octet-stream", "video/mp4", "", "x"]


async def test_other_files_have_no_preview(website: Website, alice: User) -> None:
    for number, content_type in enumerate(OTHER_TYPES):
        url = website.page(f"/{number}", b"<title>x</title>", content_type)
        assert (await preview(alice, url)).json == {}, content_type


NO_PICTURES = [b"", b"<html>", b"<svg xmlns='http://www.w3.org/2000/svg'/>"]


async def test_what_is_no_picture_is_not_kept(website: Website, alice: User) -> None:
    for number, picture in enumerate(NO_PICTURES):
        website.page("/a.png", picture, "image/png")
        url = website.page(f"/{number}", '<meta property="og:image" content="/a.png"><title>T</title>')
        assert (await preview(alice, url)).json == {"og:title": "T"}


async def test_redirects_are_followed_so_far(website: Website, alice: User) -> None:
    page = website.page("/end", "<title>End</title>")
    website.redirect("/3", "/end")
    website.redirect("/2", "3", 308)
    start = website.redirect("/1", website.url("/2"), 301)
    assert (await preview(alice, start)).json == {"og:title": "End"}
    circle = website.redirect("/circle", "/circle")
    answer = await preview(alice, circle)
    assert (answer.status, answer.errcode) == (502, "M_UNKNOWN")
    assert website.asked.count("/circle") == 6
    assert page


PRIVATE = [
    "http://127.0.0.2:{port}/secret",
    "http://[::1]:{port}/secret",
    "http://[::ffff:127.0.0.2]:{port}/secret",
    "http://0.0.0.0:{port}/secret",
    "http://10.0.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://2130706434:{port}/secret",
    "http://0x7f000002:{port}/secret",
    "http://127.2:{port}/secret",
    "file:///etc/passwd",
    "ftp://127.0.0.1/x",
    "gopher://127.0.0.1/x",
    "http://",
    "http://[",
    "//127.0.0.2:{port}/secret",
]


async def test_nothing_private_is_reached_neither_at_once_nor_by_redirect(
    website: Website, alice: User
) -> None:
    inside = Website()
    inside.port = website.port
    await inside.start("127.0.0.2")
    inside.page("/secret", "<title>secret</title>")
    for number, pattern in enumerate(PRIVATE):
        target = pattern.format(port=website.port)
        for url in (target, website.redirect("/away", target)):
            answer = await preview(alice, url)
            assert answer.status in (400, 502), answer.body
            assert b"secret" not in answer.body
        url = website.page(f"/{number}", f'<title>T</title><meta property="og:image" content="{target}">')
        assert (await preview(alice, url)).json == {"og:title": "T"}
    assert inside.asked == []
    await inside.stop()


async def test_all_failures_look_alike(website: Website, alice: User) -> None:
    website.pages["/broken"] = b"nonsense\r\n\r\n"
    website.pages["/short"] = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 9\r\n\r\n<"
    website.pages["/500"] = b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    urls = [website.url(path) for path in ("/missing", "/broken", "/short", "/500")]
    urls += ["http://127.0.0.1:1/", "http://10.0.0.1/", "http://no-such-host.invalid/"]
    bodies = {(await preview(alice, url)).body for url in urls}
    assert len(bodies) == 1


NO_URLS = ["", "nonsense", "http://", "http://a b/", "mailto:x", "http://x:99999/", "http://" + "a" * 5000]


async def test_what_is_no_url(alice: User) -> None:
    for url in NO_URLS:
        answer = await preview(alice, url)
        assert (answer.status, answer.errcode) == (400, "M_INVALID_PARAM")


async def test_a_url_is_needed(alice: User) -> None:
    answer = await alice.get(f"{V1}/preview_url")
    assert (answer.status, answer.errcode) == (400, "M_MISSING_PARAM")


async def test_private_addresses_are_refused_by_default(website: Website, start_homeserver: Callable) -> None:
    alice = await (await start_homeserver()).register("alice")
    website.page("/", "<title>T</title>")
    assert (await preview(alice, website.url("/"))).status == 502
    assert website.asked == []


async def test_denied_hosts(website: Website, start_homeserver: Callable) -> None:
    previews = UrlPreviewsConfig(denied_hosts=("127.*", "*.Example.org"))
    homeserver = await start_homeserver(federation=ON_LOOPBACK, media=MediaConfig(url_previews=previews))
    alice = await homeserver.register("alice")
    website.page("/", "<title>T</title>")
    for url in (website.url("/"), "http://WWW.example.ORG/", "http://user:pw@www.example.org./"):
        answer = await preview(alice, url)
        assert (answer.status, answer.errcode) == (400, "M_INVALID_PARAM")
    assert website.asked == []


async def test_a_page_without_end_is_read_so_far(website: Website, alice: User) -> None:
    sent = 0

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<title>T</title>")
        while True:
            writer.write(b"<p>x" * 16_384)
            await writer.drain()
            sent += 65_536

    website.pages["/"] = endless
    answer = await preview(alice, website.url("/"))
    assert answer.json["og:title"] == "T"
    assert sent < 20_000_000


async def test_a_picture_without_end_is_given_up(website: Website, alice: User) -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n")
        while True:
            writer.write(b"\0" * 65_536)
            await writer.drain()

    website.pages["/a.png"] = endless
    url = website.page("/", '<meta property="og:image" content="/a.png"><title>T</title>')
    assert (await preview(alice, url)).json == {"og:title": "T"}


async def test_a_compressed_page_that_grows_is_read_so_far(website: Website, alice: User) -> None:
    body = gzip.compress(b"<title>T</title>" + b" " * 200_000_000, 1)
    url = website.page("/", body, "text/html", "Content-Encoding: gzip")
    assert (await preview(alice, url)).status in (200, 502)


async def test_a_page_that_says_nothing_does_not_hold_on_forever(
    website: Website, start_homeserver: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ranvier.services.media.web.TIMEOUT_S", 0.2)
    alice = await (await start_homeserver(federation=ON_LOOPBACK)).register("alice")

    async def silent(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<title>")
        await asyncio.sleep(5)

    website.pages["/"] = silent
    assert (await preview(alice, website.url("/"))).status == 502


async def test_one_fetch_serves_all_for_an_hour(website: Website, start_homeserver: Callable) -> None:
    homeserver: Homeserver = await start_homeserver(federation=ON_LOOPBACK)
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    url = website.page("/", "<title>One</title>")
    answers = await asyncio.gather(*(preview(user, url) for user in (alice, bob) for _ in range(5)))
    assert {answer.body for answer in answers} == {b'{"og:title":"One"}'}
    assert website.asked == ["/"]
    website.page("/", "<title>Two</title>")
    assert (await preview(bob, f"{url}#part")).json == {"og:title": "One"}
    homeserver.clock.ahead_ms = 3_600_001
    assert (await preview(bob, url)).json == {"og:title": "Two"}


async def test_a_user_asks_only_so_often(website: Website, start_homeserver: Callable) -> None:
    homeserver = await start_homeserver(federation=ON_LOOPBACK, rate_limits=RateLimitsConfig(enabled=True))
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    url = website.page("/", "<title>T</title>")
    answers = [await preview(alice, url) for _ in range(31)]
    assert [answer.status for answer in answers] == [200] * 30 + [429]
    assert answers[-1].errcode == "M_LIMIT_EXCEEDED"
    assert (await preview(bob, url)).status == 200
