"""The content repository as users see it: files go in, come out the same, and do no harm on the way."""

import asyncio
import hashlib
import io
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ranvier.app.config import MediaConfig, UrlPreviewsConfig
from ranvier.io.pictures import PictureProcesses, PictureTooLarge

from .client import Answer, Client
from .homeserver import Homeserver, User

V3 = "/_matrix/media/v3"
V1 = "/_matrix/client/v1/media"
GIB = 2**30


@pytest.fixture
async def open_homeserver(start_homeserver: Callable) -> Homeserver:
    """One whose downloads need no token."""
    return await start_homeserver(media=MediaConfig(unauthenticated_downloads=True))


async def upload(
    user: Client, content: bytes, content_type: str = "image/png", name: str | None = None
) -> str:
    """The media id."""
    answer = await user.request(
        "POST",
        f"{V3}/upload",
        body=content,
        headers={"content-type": content_type},
        query={"filename": name},
    )
    assert answer.status == 200, answer.body
    uri = answer.json["content_uri"]
    assert uri.startswith("mxc://test/")
    return uri.removeprefix("mxc://test/")


async def download(user: Client, media_id: str, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await user.request("GET", f"{V1}/download/test/{media_id}", headers=named)


def picture(
    width: int = 200, height: int = 100, kind: str = "PNG", color: Any = (200, 30, 30), **options: Any
) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), color).save(out, kind, **options)
    return out.getvalue()


def opened(answer: Answer) -> Image.Image:
    assert answer.status == 200, answer.body
    return Image.open(io.BytesIO(answer.body))


async def thumbnail(user: Client, media_id: str, width: Any, height: Any, **query: Any) -> Answer:
    return await user.get(f"{V1}/thumbnail/test/{media_id}", width=width, height=height, **query)


async def test_a_file_comes_out_as_it_went_in(alice: User, bob: User) -> None:
    content = b"\x89PNG and no more \x00"
    media_id = await upload(alice, content, "image/png", "tea.png")
    answer = await download(bob, media_id)
    assert (answer.status, answer.body) == (200, content)
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-disposition"] == "inline; filename=tea.png"
    assert answer.headers["content-length"] == str(len(content))
    assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert answer.headers["access-control-allow-origin"] == "*"


async def test_an_empty_file_is_a_file(alice: User) -> None:
    answer = await download(alice, await upload(alice, b"", "text/plain"))
    assert (answer.status, answer.body) == (200, b"")


DISPOSITIONS = [
    ("text/html", "text/html", "attachment"),
    ("image/svg+xml", "image/svg+xml", "attachment"),
    ("Text/Plain; charset=utf-8", "Text/Plain; charset=utf-8", "inline"),
    ("image/png", "image/png", "inline"),
    ("img/png", "img/png", "attachment"),
    ("", "application/octet-stream", "attachment"),
    ("nonsense", "application/octet-stream", "attachment"),
    ("text/plain\x01; x", "application/octet-stream", "attachment"),
    ("a/" + "b" * 500, "application/octet-stream", "attachment"),
]


async def test_only_what_no_browser_runs_is_shown_in_place(alice: User) -> None:
    for content_type, served, disposition in DISPOSITIONS:
        answer = await download(alice, await upload(alice, b"<script>alert(1)</script>", content_type))
        assert answer.headers["content-type"] == served
        assert answer.headers["content-disposition"] == disposition


FILE_NAMES = [
    ("ascii", "inline; filename=ascii"),
    ("name with spaces", 'inline; filename="name with spaces"'),
    ("name;with;semicolons", 'inline; filename="name;with;semicolons"'),
    ('quo"te\\d', 'inline; filename="quo\\"te\\\\d"'),
    ("\U0001f414", "inline; filename*=utf-8''%F0%9F%90%94"),
    ("line\r\nSet-Cookie: x", 'inline; filename="lineSet-Cookie: x"'),
    ("", "inline"),
]


async def test_file_names(alice: User) -> None:
    for name, disposition in FILE_NAMES:
        answer = await download(alice, await upload(alice, b"x", "image/png", name))
        assert answer.headers["content-disposition"] == disposition


async def test_a_name_in_the_path_replaces_the_files_own(alice: User) -> None:
    media_id = await upload(alice, b"x", "image/png", "mine.png")
    answer = await alice.get(f"{V1}/download/test/{media_id}/%E2%98%95.png")
    assert answer.headers["content-disposition"] == "inline; filename*=utf-8''%E2%98%95.png"


async def test_a_file_name_has_bounds(alice: User) -> None:
    answer = await alice.request("POST", f"{V3}/upload", body=b"x", query={"filename": "x" * 1001})
    assert (answer.status, answer.errcode) == (400, "M_INVALID_PARAM")


async def test_files_need_a_token(homeserver: Homeserver, alice: User) -> None:
    media_id = await upload(alice, b"x")
    for path in (
        f"{V1}/download/test/{media_id}",
        f"{V1}/download/test/{media_id}/name",
        f"{V1}/thumbnail/test/{media_id}?width=1&height=1",
        f"{V1}/config",
        f"{V3}/config",
        f"{V1}/preview_url?url=https://example.org",
        f"{V3}/preview_url?url=https://example.org",
    ):
        answer = await homeserver.client.get(path)
        assert (answer.status, answer.errcode) == (401, "M_MISSING_TOKEN"), path
    for method, path in (
        ("POST", f"{V3}/upload"),
        ("POST", "/_matrix/media/v1/create"),
        ("PUT", f"{V3}/upload/test/x"),
    ):
        answer = await homeserver.client.request(method, path, body=b"x")
        assert (answer.status, answer.errcode) == (401, "M_MISSING_TOKEN"), path
        answer = await Client(homeserver.client._app, "wrong").request(method, path, body=b"x")
        assert (answer.status, answer.errcode) == (401, "M_UNKNOWN_TOKEN"), path


@pytest.mark.parametrize("media_id", ["nothing", "..%2F..%2Fetc%2Fpasswd", "%00", "a.b", "x" * 300])
@pytest.mark.parametrize("what", ["download", "thumbnail"])
async def test_what_is_not_there(alice: User, media_id: str, what: str) -> None:
    answer = await alice.get(f"{V1}/{what}/test/{media_id}", width=10, height=10)
    assert (answer.status, answer.errcode) in ((404, "M_NOT_FOUND"), (400, "M_INVALID_PARAM"))


BAD_SERVER_NAMES = ["..", "a%2Fb", "", "[::1", "a b"]


async def test_server_names_are_checked(alice: User) -> None:
    for server in BAD_SERVER_NAMES:
        answer = await alice.get(f"{V1}/download/{server}/x")
        assert answer.status in (400, 404, 502)
        assert answer.errcode != "M_UNKNOWN" or answer.status == 502


async def test_the_configuration_tells_the_largest_upload(start_homeserver: Callable) -> None:
    homeserver = await start_homeserver(media=MediaConfig(max_upload_bytes=1234))
    alice = await homeserver.register("alice")
    for path in (f"{V1}/config", f"{V3}/config", "/_matrix/media/r0/config"):
        assert (await alice.get(path)).json == {"m.upload.size": 1234}


# Ranges and caches


RANGES = [
    ("bytes=0-3", 206, b"0123", "bytes 0-3/10"),
    ("bytes=8-", 206, b"89", "bytes 8-9/10"),
    ("bytes=-3", 206, b"789", "bytes 7-9/10"),
    ("bytes=-30", 206, b"0123456789", "bytes 0-9/10"),
    ("bytes=5-999", 206, b"56789", "bytes 5-9/10"),
    ("bytes=10-", 416, None, "bytes */10"),
    ("bytes=-0", 416, None, "bytes */10"),
    ("bytes=3-1", 200, b"0123456789", None),
    ("bytes=0-1,3-4", 200, b"0123456789", None),
    ("bytes=-", 200, b"0123456789", None),
    ("lines=1-2", 200, b"0123456789", None),
    ("bytes=" + "9" * 400 + "-", 200, b"0123456789", None),
]


async def test_ranges(alice: User) -> None:
    for wanted, status, body, content_range in RANGES:
        answer = await download(alice, await upload(alice, b"0123456789"), range=wanted)
        assert answer.status == status
        assert answer.headers.get("content-range") == content_range
        if body is not None:
            assert answer.body == body
            assert answer.headers["content-length"] == str(len(body))


async def test_what_a_client_has_is_not_sent_again(alice: User) -> None:
    media_id = await upload(alice, b"0123456789")
    tag = (await download(alice, media_id)).headers["etag"]
    assert (await download(alice, media_id, if_none_match=f'"other", {tag}')).status == 304
    assert (await download(alice, media_id, range="bytes=0-1", if_range=tag)).status == 206
    assert (await download(alice, media_id, range="bytes=0-1", if_range='"other"')).status == 200


# Asynchronous uploads


async def create(user: User) -> str:
    answer = await user.post("/_matrix/media/v1/create")
    assert answer.status == 200
    return answer.json["content_uri"].removeprefix("mxc://test/")


async def put(user: User, media_id: str, content: bytes, server: str = "test") -> Answer:
    return await user.request(
        "PUT", f"{V3}/upload/{server}/{media_id}", body=content, headers={"content-type": "text/plain"}
    )


async def test_a_file_can_come_after_its_uri(homeserver: Homeserver, alice: User) -> None:
    answer = await alice.post("/_matrix/media/v1/create")
    assert answer.json["unused_expires_at"] == pytest.approx(homeserver.clock.now_ms() + 86_400_000, abs=5000)
    media_id = answer.json["content_uri"].removeprefix("mxc://test/")
    early = await alice.get(f"{V1}/download/test/{media_id}", timeout_ms=0)
    assert (early.status, early.errcode) == (504, "M_NOT_YET_UPLOADED")
    early = await alice.get(f"{V1}/thumbnail/test/{media_id}", width=9, height=9, timeout_ms=0)
    assert (early.status, early.errcode) == (504, "M_NOT_YET_UPLOADED")
    assert (await put(alice, media_id, b"late")).json == {}
    assert (await download(alice, media_id)).body == b"late"
    again = await put(alice, media_id, b"other")
    assert (again.status, again.errcode) == (409, "M_CANNOT_OVERWRITE_MEDIA")
    assert (await download(alice, media_id)).body == b"late"


async def test_a_download_waits_for_its_upload(alice: User, bob: User) -> None:
    media_id = await create(alice)
    waiting = asyncio.create_task(download(bob, media_id))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await put(alice, media_id, b"here it is")
    assert (await waiting).body == b"here it is"


async def test_who_may_upload_to_a_uri(homeserver: Homeserver, alice: User, bob: User) -> None:
    media_id = await create(alice)
    assert (await put(bob, media_id, b"x")).errcode == "M_FORBIDDEN"
    assert (await put(bob, media_id, b"x")).status == 403
    for other in (await put(alice, "unknown", b"x"), await put(alice, media_id, b"x", "elsewhere.org")):
        assert (other.status, other.errcode) == (404, "M_NOT_FOUND")
    homeserver.clock.ahead_ms = 86_400_001
    expired = await put(alice, media_id, b"x")
    assert (expired.status, expired.errcode) == (404, "M_NOT_FOUND")
    assert (await download(alice, media_id)).status == 404


async def test_only_so_many_uris_wait(alice: User, bob: User) -> None:
    ids = [await create(alice) for _ in range(20)]
    refused = await alice.post("/_matrix/media/v1/create")
    assert (refused.status, refused.errcode) == (429, "M_LIMIT_EXCEEDED")
    await create(bob)
    await put(alice, ids[0], b"x")
    await create(alice)


# Bounds


async def test_large_files_are_refused(start_homeserver: Callable, tmp_path: Path) -> None:
    homeserver = await start_homeserver(media=MediaConfig(max_upload_bytes=10))
    alice = await homeserver.register("alice")
    await upload(alice, b"x" * 10)
    refused = await alice.request("POST", f"{V3}/upload", body=b"x" * 11)
    assert (refused.status, refused.errcode) == (413, "M_TOO_LARGE")
    # One that does not say how long it is.
    refused = await alice.request("POST", f"{V3}/upload", body=b"x" * 11, headers={"content-length": ""})
    assert (refused.status, refused.errcode) == (413, "M_TOO_LARGE")
    assert files(homeserver) == 1


async def test_quotas(start_homeserver: Callable) -> None:
    homeserver = await start_homeserver(media=MediaConfig(user_quota_bytes=10, user_quota_count=3))
    alice, bob = await homeserver.register("alice"), await homeserver.register("bob")
    await upload(alice, b"12345678")
    refused = await alice.request("POST", f"{V3}/upload", body=b"123")
    assert (refused.status, refused.errcode) == (403, "M_FORBIDDEN")
    await upload(bob, b"123")
    await upload(alice, b"1")
    await upload(alice, b"2")
    refused = await alice.request("POST", f"{V3}/upload", body=b"")
    assert (refused.status, refused.errcode) == (403, "M_FORBIDDEN")
    assert (await alice.post("/_matrix/media/v1/create")).errcode == "M_FORBIDDEN"


def files(homeserver: Homeserver) -> int:
    root = homeserver.foundation.ports.config.data_dir / "media"
    return sum(1 for path in root.rglob("*") if path.is_file())


async def test_equal_files_are_kept_once(homeserver: Homeserver, alice: User, bob: User) -> None:
    assert await upload(alice, b"same") != await upload(bob, b"same")
    assert files(homeserver) == 1


class Body:
    """A request whose body comes in pieces and may break off; the answer is measured, not kept."""

    def __init__(
        self, user: User, method: str, path: str, pieces: AsyncIterator[bytes], length: int | None
    ) -> None:
        self.user, self.pieces = user, pieces
        headers = {"authorization": f"Bearer {user.token}", "content-type": "image/png"}
        if length is not None:
            headers["content-length"] = str(length)
        self.scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
            "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
        }  # fmt: skip
        self.status = 0
        self.received = 0
        self.body = b""
        self.digest = hashlib.sha256()

    async def run(self) -> "Body":
        await self.user._app(self.scope, self._receive, self._send)
        return self

    async def _receive(self) -> dict[str, Any]:
        async for piece in self.pieces:
            return {"type": "http.request", "body": piece, "more_body": True}
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            return
        piece = message.get("body", b"")
        self.received += len(piece)
        self.digest.update(piece)
        self.body = (self.body + piece)[:1000]


async def pieces(count: int, size: int = 65_536) -> AsyncIterator[bytes]:
    for number in range(count):
        yield bytes([number % 256]) * size


@pytest.mark.parametrize("length", [1_000_000, None], ids=["announced", "chunked"])
async def test_an_upload_that_breaks_off_is_no_file(
    homeserver: Homeserver, alice: User, length: int | None
) -> None:
    broken = await Body(alice, "POST", f"{V3}/upload", pieces(2), length).run()
    assert broken.status >= 400
    assert files(homeserver) == 0


@pytest.mark.slow
async def test_a_large_file_passes_through_little_memory(start_homeserver: Callable) -> None:
    homeserver = await start_homeserver(media=MediaConfig(max_upload_bytes=GIB))
    alice = await homeserver.register("alice")
    before = peak_kib()
    count = 3200  # 200 MiB
    sent = await Body(alice, "POST", f"{V3}/upload", pieces(count), count * 65_536).run()
    assert sent.status == 200, sent.body
    media_id = sent.body.decode().rpartition("/")[2].removesuffix('"}')
    got = await Body(alice, "GET", f"{V1}/download/test/{media_id}", pieces(1, 0), None).run()
    assert (got.status, got.received) == (200, count * 65_536)
    wanted = hashlib.sha256()
    async for piece in pieces(count):
        wanted.update(piece)
    assert got.digest.digest() == wanted.digest()
    assert peak_kib() - before < 30 * 1024


def peak_kib() -> int:
    """The most that this process ever had resident."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


# Downloads without a token


async def test_new_files_are_not_shown_without_a_token(homeserver: Homeserver, alice: User) -> None:
    media_id = await upload(alice, picture())
    for path in (f"{V3}/download/test/{media_id}", f"{V3}/download/test/{media_id}/name"):
        answer = await homeserver.client.get(path)
        assert (answer.status, answer.errcode) == (404, "M_NOT_FOUND")
    answer = await homeserver.client.get(f"{V3}/thumbnail/test/{media_id}", width=9, height=9)
    assert (answer.status, answer.errcode) == (404, "M_NOT_FOUND")
    answer = await alice.get(f"{V3}/download/test/{await create(alice)}")
    assert (answer.status, answer.errcode) == (404, "M_NOT_FOUND")


async def test_where_it_is_allowed_files_need_no_token(open_homeserver: Homeserver) -> None:
    alice = await open_homeserver.register("alice")
    media_id = await upload(alice, picture(), name="a.png")
    for version in ("v3", "r0", "v1"):
        path = f"/_matrix/media/{version}/download/test/{media_id}"
        answer = await open_homeserver.client.get(path, allow_remote="false", allow_redirect="true")
        assert (answer.status, answer.body) == (200, picture())
        assert answer.headers["content-disposition"] == "inline; filename=a.png"
    thumb = await open_homeserver.client.get(f"{V3}/thumbnail/test/{media_id}", width=90, height=90)
    assert opened(thumb).size == (96, 48)
    waiting = await open_homeserver.client.get(f"{V3}/download/test/{await create(alice)}", timeout_ms=0)
    assert (waiting.status, waiting.errcode) == (504, "M_NOT_YET_UPLOADED")
    assert (
        await open_homeserver.client.get(f"{V3}/download/test/{media_id}", allow_remote="x")
    ).status == 400


async def test_what_came_before_the_freeze_stays_open(tmp_path: Path) -> None:
    from .homeserver import running_homeserver

    async with running_homeserver(
        tmp_path / "d", media=MediaConfig(unauthenticated_downloads=True)
    ) as before:
        alice = await before.register("alice")
        old = await upload(alice, b"old")
    async with running_homeserver(tmp_path / "d") as after:
        alice = await after.login("alice")
        new = await upload(alice, b"new")
        assert (await after.client.get(f"{V3}/download/test/{old}")).body == b"old"
        assert (await after.client.get(f"{V3}/download/test/{new}")).status == 404
        assert (await download(alice, new)).body == b"new"


# Thumbnails


SIZES = [
    ((32, 32), "scale", (96, 48)),
    ((320, 240), "scale", (320, 160)),
    ((100, 300), "scale", (640, 320)),
    ((32, 32), "crop", (32, 32)),
    ((33, 33), "crop", (96, 96)),
    ((64, 48), "crop", (96, 72)),
    ((100000, 100000), "scale", (1000, 500)),
    ((1, 60000), "crop", (256, 500)),
]


async def test_thumbnails_are_as_large_as_asked_and_never_larger_than_the_picture(alice: User) -> None:
    for wanted, method, size in SIZES:
        media_id = await upload(alice, picture(1000, 500))
        answer = await thumbnail(alice, media_id, *wanted, method=method)
        assert opened(answer).size == size
        assert answer.headers["content-type"] == "image/png"
        assert answer.headers["content-disposition"] == "inline; filename=thumbnail.png"
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_small_picture_is_its_own_thumbnail(homeserver: Homeserver, alice: User) -> None:
    original = picture(50, 20, "JPEG")
    media_id = await upload(alice, original, "image/png")  # it lies about its kind
    for _ in range(2):
        answer = await thumbnail(alice, media_id, 96, 96)
        assert answer.body == original
        assert answer.headers["content-type"] == "image/jpeg"
    assert files(homeserver) == 1


async def test_photos_are_turned_upright(alice: User) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: what is left in the file is on top
    photo = Image.new("RGB", (800, 400), "white")
    photo.paste("black", (0, 0, 100, 400))
    out = io.BytesIO()
    photo.save(out, "JPEG", exif=exif)
    shown = opened(await thumbnail(alice, await upload(alice, out.getvalue(), "image/jpeg"), 320, 240))
    assert shown.size == (120, 240)
    assert shown.convert("L").getpixel((60, 5)) < 50
    assert shown.convert("L").getpixel((60, 200)) > 200


def moving(kind: str) -> bytes:
    frames = [Image.new("RGB", (400, 300), (shade, 0, 0)) for shade in (0, 80, 160, 240)]
    out = io.BytesIO()
    frames[0].save(out, kind, save_all=True, append_images=frames[1:], duration=50, loop=0)
    return out.getvalue()


MOVING_KINDS = [("GIF", "image/gif"), ("WEBP", "image/webp"), ("PNG", "image/png")]


async def test_a_thumbnail_moves_only_when_asked(alice: User) -> None:
    for kind, content_type in MOVING_KINDS:
        media_id = await upload(alice, moving(kind), content_type)
        for wanted in ({}, {"animated": "false"}):
            assert not getattr(
                opened(await thumbnail(alice, media_id, 96, 96, **wanted)), "is_animated", False
            )
            # Even where the original is small enough.
            assert not getattr(
                opened(await thumbnail(alice, media_id, 640, 480, **wanted)), "is_animated", False
            )
        animated = await thumbnail(alice, media_id, 96, 96, animated="true")
        assert animated.headers["content-type"] == "image/webp"
        shown = opened(animated)
        assert shown.is_animated
        assert shown.size == (96, 72)
        assert (await thumbnail(alice, media_id, 640, 480, animated="true")).body == moving(kind)


async def test_transparency_survives(alice: User) -> None:
    out = io.BytesIO()
    Image.new("RGBA", (300, 300), (0, 0, 0, 0)).save(out, "WEBP")
    answer = await thumbnail(alice, await upload(alice, out.getvalue(), "image/webp"), 32, 32)
    assert opened(answer).convert("RGBA").getpixel((5, 5))[3] == 0


MODES = ["1", "L", "P", "CMYK", "I;16", "LA", "F"]


async def test_every_kind_of_picture(alice: User) -> None:
    for mode in MODES:
        kind = {"CMYK": "JPEG", "F": "TIFF"}.get(mode, "PNG")
        out = io.BytesIO()
        Image.new(mode, (300, 200)).save(out, kind)
        answer = await thumbnail(alice, await upload(alice, out.getvalue(), f"image/{kind.lower()}"), 32, 32)
        if kind == "TIFF":  # not among the formats that are decoded
            assert (answer.status, answer.errcode) == (400, "M_UNKNOWN")
        else:
            assert opened(answer).size == (96, 64)


def bomb() -> bytes:
    """A few kilobytes that say they are a picture of 144 million pixels."""
    out = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(out, "PNG")
    return out.getvalue()


HOSTILE_PICTURES = [
    (b"", "image/png", 400),
    (b"not a picture", "image/png", 400),
    (picture(), "application/octet-stream", 400),
    (picture(), "video/mp4", 400),
    (picture(300, 300, "PNG", quality=1)[:60], "image/png", 400),
    (b"GIF89a" + b"\xff" * 500, "image/gif", 400),
    (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml", 400),
    (b"%!PS-Adobe-3.0 EPSF\n%%BoundingBox: 0 0 9 9\n", "image/png", 400),
    (bomb(), "image/png", 413),
]


async def test_hostile_pictures_are_refused_and_harm_nobody(alice: User) -> None:
    for content, content_type, status in HOSTILE_PICTURES:
        bad = await upload(alice, content, content_type)
        answer = await thumbnail(alice, bad, 32, 32)
        assert (answer.status, answer.errcode) == (status, "M_UNKNOWN" if status == 400 else "M_TOO_LARGE")
        assert (await download(alice, bad)).body == content
        good = await upload(alice, picture())
        assert (await thumbnail(alice, good, 32, 32)).status == 200


async def test_a_picture_that_fails_is_not_decoded_again_and_again(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One may take half a minute to fail: asked for in a loop it would leave nobody else any thumbnails."""
    tries = 0

    async def fail(*_args: Any, **_more: Any) -> Any:
        nonlocal tries
        tries += 1
        raise PictureTooLarge("it takes too long")

    monkeypatch.setattr(PictureProcesses, "make_thumbnail", fail)
    bad = await upload(alice, picture())
    for side in (96, 320, 90, 640):
        assert (await thumbnail(alice, bad, side, side)).errcode == "M_TOO_LARGE"
    assert tries == 1
    monkeypatch.undo()
    assert (await thumbnail(alice, bad, 96, 96)).errcode == "M_TOO_LARGE"
    assert (await thumbnail(alice, bad, 16, 16, method="crop")).status == 200, "a smaller one may be made"
    assert (await thumbnail(alice, await upload(alice, picture(301, 300)), 96, 96)).status == 200


async def test_a_truncated_photo_is_refused(alice: User) -> None:
    noise = io.BytesIO()
    Image.effect_noise((500, 500), 90).save(noise, "JPEG")
    bad = await upload(alice, noise.getvalue()[:5000], "image/jpeg")
    assert (await thumbnail(alice, bad, 32, 32)).errcode == "M_UNKNOWN"


SENSELESS_THUMBNAILS = [
    ({"width": 10}, "M_MISSING_PARAM"),
    ({"height": 10}, "M_MISSING_PARAM"),
    ({"width": -1, "height": 10}, "M_INVALID_PARAM"),
    ({"width": 0, "height": 10}, "M_INVALID_PARAM"),
    ({"width": "wide", "height": 10}, "M_INVALID_PARAM"),
    ({"width": 10, "height": 10, "method": "squeeze"}, "M_INVALID_PARAM"),
    ({"width": 10, "height": 10, "animated": "maybe"}, "M_INVALID_PARAM"),
]


async def test_senseless_thumbnails(alice: User) -> None:
    for query, errcode in SENSELESS_THUMBNAILS:
        answer = await alice.get(f"{V1}/thumbnail/test/{await upload(alice, picture())}", **query)
        assert (answer.status, answer.errcode) == (400, errcode)


async def test_many_who_ask_at_once_get_one_thumbnail(homeserver: Homeserver, alice: User) -> None:
    media_id = await upload(alice, picture(1000, 1000))
    answers = await asyncio.gather(*(thumbnail(alice, media_id, 90, 90, method="crop") for _ in range(10)))
    assert {answer.body for answer in answers} == {answers[0].body}
    assert files(homeserver) == 2


async def test_previews_can_be_turned_off(start_homeserver: Callable) -> None:
    off = MediaConfig(url_previews=UrlPreviewsConfig(enabled=False))
    alice = await (await start_homeserver(media=off)).register("alice")
    answer = await alice.get(f"{V1}/preview_url", url="https://example.org")
    assert (answer.status, answer.errcode) == (404, "M_UNRECOGNIZED")
