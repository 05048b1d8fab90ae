"""What administrators do with media, through the API that tools for Synapse speak."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from ranvier.app.config import MediaConfig
from ranvier.io.blobs import _Staged
from ranvier.store.tables.media_blobs import doom_unreferenced

from .administrators import register_admin
from .client import Answer
from .homeserver import Homeserver, User
from .test_media import V1, create, download, files, picture, thumbnail, upload

ADMIN = "/_synapse/admin/v1"
HOUR_MS = 3_600_000


async def sweep(homeserver: Homeserver) -> None:
    await next(worker for worker in homeserver.workers if worker.name == "media sweeper").sweep()


async def test_quarantine_is_of_content(homeserver: Homeserver, admin: User, alice: User, bob: User) -> None:
    one, copy = await upload(alice, picture()), await upload(bob, picture())
    assert (await thumbnail(alice, one, 32, 32)).status == 200
    assert (await admin.post(f"{ADMIN}/media/quarantine/test/{one}", {})).json == {}
    later = await upload(bob, picture())
    for media_id in (one, copy, later):
        for answer in (await download(alice, media_id), await thumbnail(alice, media_id, 32, 32)):
            assert (answer.status, answer.errcode) == (404, "M_NOT_FOUND")
        seen = await admin.get(f"{V1}/download/test/{media_id}", admin_unsafely_bypass_quarantine="true")
        assert seen.body == picture()
    forbidden = await alice.get(f"{V1}/download/test/{one}", admin_unsafely_bypass_quarantine="true")
    assert forbidden.status == 404
    info = (await admin.get(f"{ADMIN}/media/test/{one}")).json["media_info"]
    assert (info["quarantined_by"], info["user_id"]) == (admin.user_id, alice.user_id)
    # It is known again even when nobody has it any more.
    for media_id in (one, copy, later):
        assert (await admin.delete(f"{ADMIN}/media/test/{media_id}")).status == 200
    homeserver.clock.ahead_ms = 2 * HOUR_MS
    await sweep(homeserver)
    again = await upload(alice, picture())
    assert (await download(alice, again)).status == 404
    assert (await admin.post(f"{ADMIN}/media/unquarantine/test/{again}", {})).json == {}
    assert (await download(alice, again)).body == picture()
    assert (await download(alice, await upload(alice, picture()))).status == 200


async def test_what_is_protected_is_not_quarantined(admin: User, alice: User) -> None:
    sticker, copy = await upload(alice, picture()), await upload(alice, picture())
    assert (await admin.post(f"{ADMIN}/media/protect/{sticker}")).json == {}
    answer = await admin.post(f"{ADMIN}/user/{alice.user_id}/media/quarantine")
    assert answer.json == {"num_quarantined": 1}
    assert (await download(alice, sticker)).status == 200
    assert (await download(alice, copy)).status == 404
    assert (await download(alice, await upload(alice, picture()))).status == 200
    await admin.post(f"{ADMIN}/media/unprotect/{sticker}")
    assert (await admin.post(f"{ADMIN}/user/{alice.user_id}/media/quarantine")).json == {"num_quarantined": 2}
    assert (await download(alice, sticker)).status == 404


async def test_the_media_of_a_room(homeserver: Homeserver, admin: User, alice: User) -> None:
    room_id = (await alice.post("/_matrix/client/v3/createRoom", {})).json["room_id"]
    ids = [await upload(alice, bytes([number]) * 9) for number in range(4)]
    own = [f"mxc://test/{media_id}" for media_id in ids]
    contents: list[dict[str, Any]] = [
        {"msgtype": "m.image", "body": "x", "url": own[0], "info": {"thumbnail_url": own[1]}},
        {"msgtype": "m.image", "body": "x", "url": "mxc://else.org/there"},
        {"msgtype": "m.image", "body": "x", "url": "mxc://else.org/../x"},
        {"msgtype": "m.image", "body": "x", "url": "https://example.org/x", "info": [own[3]]},
        {"msgtype": "m.text", "body": own[3]},
    ]
    for number, content in enumerate(contents):
        path = f"/_matrix/client/v3/rooms/{room_id}/send/m.room.message/{number}"
        assert (await alice.put(path, content)).status == 200
    listed = await admin.get(f"{ADMIN}/room/{room_id}/media")
    assert listed.json == {"local": sorted(own[:2]), "remote": ["mxc://else.org/there"]}
    assert (await admin.post(f"{ADMIN}/room/{room_id}/media/quarantine")).json == {"num_quarantined": 2}
    assert [(await download(alice, media_id)).status for media_id in ids] == [404, 404, 200, 200]
    assert (await admin.post(f"{ADMIN}/quarantine_media/{room_id}")).json == {"num_quarantined": 0}
    for answer in (
        await admin.get(f"{ADMIN}/room/!unknown:test/media"),
        await admin.post(f"{ADMIN}/room/!unknown:test/media/quarantine"),
    ):
        assert (answer.status, answer.errcode) == (404, "M_NOT_FOUND")


UNKNOWN_MEDIA = [
    ("POST", "/media/quarantine/test/nothing"),
    ("POST", "/media/quarantine/else.org/nothing"),
    ("POST", "/media/unquarantine/test/nothing"),
    ("POST", "/media/protect/nothing"),
    ("DELETE", "/media/test/nothing"),
    ("GET", "/media/test/nothing"),
]


async def test_unknown_media(admin: User) -> None:
    for method, path in UNKNOWN_MEDIA:
        answer = await admin.request(method, ADMIN + path)
        assert (answer.status, answer.errcode) == (404, "M_NOT_FOUND")


async def test_users_media_are_listed_and_deleted(homeserver: Homeserver, admin: User, alice: User) -> None:
    ids = []
    for number, size in enumerate((5, 30, 10)):
        homeserver.clock.ahead_ms = number * 1000
        ids.append(await upload(alice, b"x" * size, "text/plain", f"{'cab'[number]}.txt"))
    await create(alice)  # a reservation is no file yet
    path = f"{ADMIN}/users/{alice.user_id}/media"
    newest = (await admin.get(path)).json
    assert [one["media_id"] for one in newest["media"]] == ids[::-1]
    assert newest["total"] == 3
    assert "next_token" not in newest
    assert {key: value for key, value in newest["media"][0].items() if not key.endswith("_ts")} == {
        "media_id": ids[2], "media_type": "text/plain", "media_length": 10, "upload_name": "b.txt",
        "quarantined_by": None, "safe_from_quarantine": False,
    }  # fmt: skip
    page = (await admin.get(path, order_by="media_length", limit=2)).json
    assert ([one["media_length"] for one in page["media"]], page["next_token"]) == ([5, 10], 2)
    page = (await admin.get(path, order_by="media_length", limit=2, **{"from": 2})).json
    assert [one["media_length"] for one in page["media"]] == [30]
    page = (await admin.get(path, order_by="upload_name", dir="b")).json
    assert [one["upload_name"] for one in page["media"]] == ["c.txt", "b.txt", "a.txt"]
    for wrong in ({"order_by": "nonsense"}, {"dir": "x"}, {"limit": 0}, {"from": -1}):
        assert (await admin.get(path, **wrong)).errcode == "M_INVALID_PARAM"
    assert (await admin.get(f"{ADMIN}/users/@nobody:test/media")).json == {"media": [], "total": 0}
    gone = await admin.delete(path, order_by="media_length", dir="b", limit=1)
    assert gone.json == {"deleted_media": [ids[1]], "total": 1}
    name = f"/_matrix/client/v3/profile/{alice.user_id}/displayname"
    assert (await alice.put(name, {"displayname": "Alice"})).status == 200
    usage = (await admin.get(f"{ADMIN}/statistics/users/media")).json
    assert usage == {
        "users": [{"user_id": alice.user_id, "displayname": "Alice", "media_count": 2, "media_length": 15}],
        "total": 1,
    }


async def test_usage_is_sorted_searched_and_cut(admin: User, alice: User, bob: User) -> None:
    await upload(alice, b"xx")
    await upload(bob, b"x")
    await upload(bob, b"")
    path = f"{ADMIN}/statistics/users/media"

    async def users(**query: Any) -> list[str]:
        return [one["user_id"][1:4] for one in (await admin.get(path, **query)).json["users"]]

    assert await users() == ["ali", "bob"]
    assert await users(dir="b") == ["bob", "ali"]
    assert await users(order_by="media_length") == ["bob", "ali"]
    assert await users(order_by="media_count") == ["ali", "bob"]
    assert await users(order_by="displayname") == ["ali", "bob"]
    assert await users(search_term="BO") == ["bob"]
    assert await users(until_ts=1) == []
    page = (await admin.get(path, limit=1)).json
    assert (page["next_token"], page["total"]) == (1, 2)


async def test_deleted_media_are_gone_and_so_are_their_files(
    homeserver: Homeserver, admin: User, alice: User
) -> None:
    one, copy = await upload(alice, picture()), await upload(alice, picture())
    await thumbnail(alice, one, 32, 32, method="crop")
    assert files(homeserver) == 2
    gone = await admin.delete(f"{ADMIN}/media/test/{one}")
    assert gone.json == {"deleted_media": [one], "total": 1}
    assert (await download(alice, one)).status == 404
    homeserver.clock.ahead_ms = 2 * HOUR_MS
    await sweep(homeserver)
    assert files(homeserver) == 1
    assert (await download(alice, copy)).body == picture()
    await admin.delete(f"{ADMIN}/media/test/{copy}")
    homeserver.clock.ahead_ms = 4 * HOUR_MS
    await sweep(homeserver)
    assert files(homeserver) == 0


async def test_old_media_are_deleted_but_not_what_is_shown(
    homeserver: Homeserver, admin: User, alice: User
) -> None:
    avatar, small, large, sticker = [await upload(alice, bytes([n]) * n * 10) for n in (9, 1, 5, 6)]
    profile = f"/_matrix/client/v3/profile/{alice.user_id}/avatar_url"
    assert (await alice.put(profile, {"avatar_url": f"mxc://test/{avatar}"})).status == 200
    await admin.post(f"{ADMIN}/media/protect/{sticker}")
    now_ms = homeserver.clock.now_ms()
    assert (await delete_old(admin, now_ms - HOUR_MS)).json["total"] == 0
    gone = await delete_old(admin, now_ms + 1, size_gt=20)
    assert gone.json == {"deleted_media": [large], "total": 1}
    assert (await download(alice, small)).status == 200
    homeserver.clock.ahead_ms = 2 * HOUR_MS
    await download(alice, small)  # somebody looks at it
    gone = await delete_old(admin, now_ms + HOUR_MS, keep_profiles="false")
    assert gone.json == {"deleted_media": [avatar], "total": 1}
    for wrong in ({}, {"before_ts": 1700000000}, {"before_ts": "x"}):
        assert (await admin.request("POST", f"{ADMIN}/media/delete", query=wrong)).status == 400


async def delete_old(admin: User, before_ms: int, **query: Any) -> Answer:
    return await admin.request("POST", f"{ADMIN}/media/delete", query={"before_ts": before_ms} | query)


async def test_what_is_uploaded_while_its_twin_is_being_deleted_stays(
    homeserver: Homeserver, admin: User, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweeper has doomed the content and is about to delete the file when it comes in again."""
    await admin.delete(f"{ADMIN}/media/test/{await upload(alice, b'twin')}")
    homeserver.clock.ahead_ms = 2 * HOUR_MS
    sweeper: Any = next(worker for worker in homeserver.workers if worker.name == "media sweeper")
    delete, doomed, go_on = sweeper._blobs.delete, asyncio.Event(), asyncio.Event()

    async def slow_delete(blob_id: str) -> bool:
        doomed.set()
        await go_on.wait()
        return await delete(blob_id)

    monkeypatch.setattr(sweeper._blobs, "delete", slow_delete)
    sweeping = asyncio.create_task(sweeper.sweep())
    await doomed.wait()
    uploading = asyncio.create_task(upload(alice, b"twin"))
    await asyncio.sleep(0.15)
    assert not uploading.done()
    go_on.set()
    await sweeping
    assert (await download(alice, await uploading)).body == b"twin"


async def test_what_a_dead_process_left_doomed_is_deleted_later(
    homeserver: Homeserver, admin: User, alice: User
) -> None:
    await admin.delete(f"{ADMIN}/media/test/{await upload(alice, b'left')}")
    clock, db = homeserver.clock, homeserver.foundation.ports.db
    clock.ahead_ms = 2 * HOUR_MS
    assert len(await db.write(doom_unreferenced, clock.now_ms() - HOUR_MS, clock.now_ms(), 10)) == 1
    await sweep(homeserver)
    assert files(homeserver) == 1
    clock.ahead_ms += 700_000
    await sweep(homeserver)
    assert files(homeserver) == 0
    assert (await download(alice, await upload(alice, b"left"))).body == b"left"


async def test_an_upload_between_its_file_and_its_row_is_safe_from_the_sweeper(
    homeserver: Homeserver, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    published, go_on = asyncio.Event(), asyncio.Event()
    publish = _Staged.publish

    async def slow_publish(staged: Any) -> None:
        await publish(staged)
        published.set()
        await go_on.wait()

    monkeypatch.setattr(_Staged, "publish", slow_publish)
    uploading = asyncio.create_task(upload(alice, b"slow"))
    await published.wait()
    await sweep(homeserver)
    go_on.set()
    assert (await download(alice, await uploading)).body == b"slow"


async def test_expired_reservations_go(homeserver: Homeserver, alice: User) -> None:
    media_id = await create(alice)
    homeserver.clock.ahead_ms = 25 * HOUR_MS
    await sweep(homeserver)
    assert (await alice.request("PUT", f"/_matrix/media/v3/upload/test/{media_id}", body=b"x")).status == 404
    assert (await download(alice, media_id)).status == 404


async def test_quota_comes_back_with_deletion(start_homeserver: Callable) -> None:
    homeserver = await start_homeserver(media=MediaConfig(user_quota_bytes=10))
    alice, admin = await homeserver.register("alice"), await register_admin(homeserver)
    media_id = await upload(alice, b"x" * 10)
    assert (await alice.request("POST", "/_matrix/media/v3/upload", body=b"x")).status == 403
    await admin.delete(f"{ADMIN}/media/test/{media_id}")
    await upload(alice, b"x")
