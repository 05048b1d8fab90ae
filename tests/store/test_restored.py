"""A database that was restored from a copy gives nothing out that was given out since."""

from pathlib import Path

from ranvier.store.backup import back_up
from ranvier.store.connect import open_database
from ranvier.store.database import Database, WriteTxn
from ranvier.store.restored import SKIPPED_POSITIONS, note_restored
from ranvier.store.tables.devices import list_devices
from ranvier.store.tables.one_time_keys import (
    Holder,
    PublicKey,
    claim_keys,
    count_one_time_keys,
    insert_one_time_keys,
    list_unused_fallback_types,
    set_fallback_key,
)

from .test_encryption_tables import make_holder

ALGORITHM = "signed_curve25519"


def prepare(txn: WriteTxn) -> Holder:
    holder = make_holder(txn)
    insert_one_time_keys(txn, holder, {(ALGORITHM, name): b'"key"' for name in "AB"})
    set_fallback_key(txn, holder, PublicKey(ALGORITHM, "F", b'"fallback"'))
    return holder


async def check(database: Database, holder: Holder, given: int) -> None:
    """No key of before is given out; the device hears that it has to upload; no position comes again."""
    assert database.position() >= given + SKIPPED_POSITIONS

    def run(txn: WriteTxn) -> None:
        assert txn.next_position() > given + SKIPPED_POSITIONS
        assert [device.device_nid for device in list_devices(txn, holder.user_nid)] == [holder.device_nid]
        assert count_one_time_keys(txn, holder.device_nid) == {}
        assert list_unused_fallback_types(txn, holder.device_nid) == []
        claimed = claim_keys(txn, [(holder, ALGORITHM)])
        assert [key.key_id for key in claimed.values()] == ["F"]

    await database.write(run)
    assert database.position() > given + SKIPPED_POSITIONS


async def test_a_database_that_came_back_in_whatever_way(database_url: str) -> None:
    database = await open_database(database_url)
    holder = await database.write(prepare)
    given = database.position()
    await database.close()
    await note_restored(database_url)
    restored = await open_database(database_url)
    await check(restored, holder, given)
    await restored.close()


async def test_a_backup_needs_nothing_more(tmp_path: Path) -> None:
    source, target = tmp_path / "a.db", tmp_path / "b.db"
    database = await open_database(f"sqlite:{source}")
    holder = await database.write(prepare)
    given = database.position()
    back_up(source, target)
    # The one that was copied is as it was.
    assert await database.read(count_one_time_keys, holder.device_nid) == {ALGORITHM: 2}
    assert database.position() == given
    await database.close()
    restored = await open_database(f"sqlite:{target}")
    await check(restored, holder, given)
    await restored.close()
