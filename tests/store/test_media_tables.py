"""Media in both databases: contents are counted, quotas follow, and what is doomed belongs to one process."""

import msgspec
import pytest

from ranvier.core.identifiers import ServerName, UserID
from ranvier.store.database import Conflict, Database, WriteTxn
from ranvier.store.tables import media, media_blobs, media_lists, media_previews, media_thumbnails
from ranvier.store.tables.interned import Interner, intern_servers, intern_users
from ranvier.store.tables.media import Medium, Usage
from ranvier.store.tables.media_thumbnails import Shape, Thumbnail

OWN = ServerName("example.org")
ONE, TWO = b"1" * 32, b"2" * 32


def names(txn: WriteTxn) -> tuple[int, int]:
    interner = Interner(OWN)
    user = UserID("@alice:example.org")
    return intern_servers(txn, interner, [OWN])[OWN], intern_users(txn, interner, [user])[user]


async def prepare(db: Database) -> Medium:
    """Two held contents, and a medium (not stored) with the first."""
    server_nid, user_nid = await db.write(names)
    for blob_hash in (ONE, TWO):
        assert await db.write(media_blobs.hold_blob, blob_hash, 10, 1000)
    return Medium(
        server_nid=server_nid, media_id="m1", blob_hash=ONE, size_bytes=10, content_type="image/png",
        file_name="a", uploader_nid=user_nid, created_ms=1000, accessed_ms=1000,
    )  # fmt: skip


def replaced(medium: Medium, **changes: object) -> Medium:
    return msgspec.structs.replace(medium, **changes)


async def count(db: Database, blob_hash: bytes) -> int | None:
    sql = "SELECT reference_count FROM blobs WHERE blob_hash = :blob_hash"
    return await db.read(lambda txn: txn.value(sql, blob_hash=blob_hash))


async def test_contents_are_counted_and_usage_follows(db: Database) -> None:
    medium = await prepare(db)
    assert await db.write(media.insert_medium, medium)
    assert not await db.write(media.insert_medium, medium)
    copy = replaced(medium, media_id="m2", uploader_nid=None)
    assert await db.write(media.insert_medium, copy)
    assert await count(db, ONE) == 2
    assert await db.read(media.find_medium, medium.server_nid, "m1") == medium
    assert await db.read(media.find_usage, medium.uploader_nid) == Usage(1, 10)
    shape = Shape(32, 32, "crop", False)
    thumbnail = Thumbnail("image/png", 10, TWO)
    for _ in range(2):
        await db.write(media_thumbnails.insert_thumbnail, medium.server_nid, "m1", shape, thumbnail, 5)
    assert await count(db, TWO) == 1
    assert await db.read(media_thumbnails.find_thumbnail, medium.server_nid, "m1", shape) == thumbnail
    await db.write(media.delete_media, [medium, medium], 2000)
    assert (await count(db, ONE), await count(db, TWO)) == (1, 0)
    assert await db.read(media.find_usage, medium.uploader_nid) == Usage(0, 0)
    await db.write(media_thumbnails.insert_thumbnail, medium.server_nid, "m1", shape, thumbnail, 5)
    assert await count(db, TWO) == 0, "its medium has gone"


async def test_reservations(db: Database) -> None:
    medium = await prepare(db)
    reserved = replaced(
        medium, blob_hash=None, size_bytes=0, content_type=None, file_name=None, expires_ms=5000
    )
    assert await db.write(media.insert_medium, reserved)
    assert await db.write(media.insert_medium, replaced(reserved, media_id="late"))
    assert await db.read(media.count_reservations, medium.uploader_nid, 4999) == 2
    assert await db.read(media.count_reservations, medium.uploader_nid, 5000) == 0
    assert await db.write(media.complete_medium, medium)
    assert not await db.write(media.complete_medium, replaced(medium, blob_hash=TWO))
    assert (await count(db, ONE), await count(db, TWO)) == (1, 0)
    assert await db.write(media.delete_expired_reservations, 9000) == 1
    assert await db.read(media.find_medium, medium.server_nid, "m1") == medium


async def test_doomed_contents_belong_to_one_process(db: Database) -> None:
    medium = await prepare(db)
    await db.write(media.insert_medium, medium)
    assert await db.write(media_blobs.doom_unreferenced, 1000, 9000, 10) == [], "touched too lately"
    assert await db.write(media_blobs.doom_unreferenced, 1001, 9000, 10) == [TWO]
    assert await db.write(media_blobs.doom_unreferenced, 9999, 9000, 10) == []
    assert not await db.write(media_blobs.hold_blob, TWO, 10, 9000)
    with pytest.raises(Conflict):
        await db.write(media.insert_medium, replaced(medium, media_id="m2", blob_hash=TWO))
    assert await db.write(media_blobs.claim_abandoned, 9000, 9500, 10) == []
    assert await db.write(media_blobs.claim_abandoned, 9001, 9500, 10) == [TWO]
    assert await db.write(media_blobs.claim_abandoned, 9500, 9600, 10) == []
    await db.write(media_blobs.delete_doomed, [ONE, TWO])
    assert (await count(db, ONE), await count(db, TWO)) == (1, None)
    assert await db.write(media_blobs.hold_blob, TWO, 10, 9700)


async def test_quarantine_is_of_contents(db: Database) -> None:
    medium = await prepare(db)
    protected = replaced(medium, media_id="m2", is_protected=True)
    for one in (medium, protected):
        await db.write(media.insert_medium, one)
    assert await db.write(media_lists.quarantine_contents, [ONE], "@admin:example.org") == 1
    await db.write(media_blobs.set_blobs_quarantined, [ONE], is_quarantined=True)
    await db.write(media.insert_medium, replaced(medium, media_id="m3"))
    found = {one.media_id: one.quarantined_by for one in await db.read(media_lists.list_equal_media, [ONE])}
    assert found == {"m1": "@admin:example.org", "m2": None, "m3": media.CONTENT_QUARANTINED}
    await db.write(media.delete_media, await db.read(media_lists.list_equal_media, [ONE]), 1500)
    assert await db.write(media_blobs.doom_unreferenced, 9999, 9999, 10) == [TWO], (
        "what is quarantined is kept"
    )
    assert await db.write(media_lists.release_contents, [ONE]) == 0


async def test_copies_are_listed_by_their_last_use(db: Database) -> None:
    medium = await prepare(db)
    await db.write(media.insert_medium, medium)
    for number in range(3):
        copy = replaced(medium, media_id=f"c{number}", uploader_nid=None, accessed_ms=1000 + number)
        await db.write(media.insert_medium, copy)
    await db.write(media.touch_medium, medium.server_nid, "c0", 1500)
    await db.write(media.touch_medium, medium.server_nid, "c0", 1400)
    found = await db.read(media.list_unused_copies, 1501, 10)
    assert [one.media_id for one in found] == ["c1", "c2", "c0"]
    assert found[-1].accessed_ms == 1500
    assert await db.read(media.sum_copies) == 30


async def test_lists_for_administrators(db: Database) -> None:
    medium = await prepare(db)
    for number, size in enumerate((5, 30, 10)):
        one = replaced(medium, media_id=f"m{number}", size_bytes=size, created_ms=number, file_name=None)
        await db.write(media.insert_medium, one)
    user_nid = medium.uploader_nid
    for order in ("media_id", "upload_name", "created_ts", "last_access_ts", "media_length", "media_type",
                  "quarantined_by", "safe_from_quarantine"):  # fmt: skip
        listed = await db.read(
            media_lists.list_user_media, user_nid, order, backwards=True, limit=2, offset=1
        )
        assert len(listed) == 2
    assert await db.read(media_lists.count_user_media, user_nid) == 3
    keys = [(medium.server_nid, "m0"), (medium.server_nid, "m2"), (medium.server_nid, "none"), (99, "m0")]
    assert [one.media_id for one in await db.read(media_lists.list_media, keys)] == ["m0", "m2"]
    assert await db.read(media_lists.list_media, []) == []
    old = await db.read(media_lists.list_old_uploads, 1001, 5, "", 10)
    assert [one.media_id for one in old] == ["m1", "m2"]
    assert [one.media_id for one in await db.read(media_lists.list_old_uploads, 1001, 5, "m1", 10)] == ["m2"]
    assert await db.write(media_lists.set_protected, medium.server_nid, "m1", is_protected=True)
    assert not await db.write(media_lists.set_protected, medium.server_nid, "none", is_protected=True)
    assert [one.media_id for one in await db.read(media_lists.list_old_uploads, 1001, 5, "", 10)] == ["m2"]
    assert await db.read(media_lists.list_usage, 0, 1) == [media_lists.UserMedia(user_nid, 2, 35)]
    assert await db.read(media_lists.list_avatars) == ([], [])


async def test_previews(db: Database) -> None:
    await db.write(media_previews.upsert_url_preview, ONE, "https://a/", b"1", 0, 100)
    await db.write(media_previews.upsert_url_preview, ONE, "https://a/", b"2", 50, 200)
    assert await db.read(media_previews.find_url_preview, ONE, 199) == b"2"
    assert await db.read(media_previews.find_url_preview, ONE, 200) is None
    assert await db.write(media_previews.delete_expired_previews, 199) == 0
    assert await db.write(media_previews.delete_expired_previews, 200) == 1
