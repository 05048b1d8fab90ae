"""A backup is whole and sound, or there is none."""

import asyncio
import os
import sqlite3
import stat
from pathlib import Path

import pytest

from ranvier.store.backup import BackupFailed, back_up, check
from ranvier.store.connect import open_database
from ranvier.store.database import WriteTxn
from ranvier.store.restored import SKIPPED_POSITIONS


def pair(txn: WriteTxn) -> None:
    """Two rows that only ever come together."""
    position = txn.next_position()
    for half in ("left_half", "right_half"):
        txn.execute(f"INSERT INTO {half} (id, filling) VALUES (:p, :f)", p=position, f="x" * 2_000)


async def test_a_backup_of_a_busy_database_is_one_moment(tmp_path: Path):
    source, target = tmp_path / "a.db", tmp_path / "b.db"
    target.write_text("an older backup")
    database = await open_database(f"sqlite:{source}")
    for half in ("left_half", "right_half"):
        await database.write(
            lambda txn, h=half: txn.execute(f"CREATE TABLE {h} (id INTEGER PRIMARY KEY, filling TEXT)")
        )
    await asyncio.gather(*(database.write(pair) for _ in range(2_000)))
    heard: list[tuple[int, int]] = []
    copying = asyncio.create_task(asyncio.to_thread(back_up, source, target, lambda *n: heard.append(n)))
    written = 0
    while not copying.done():
        await database.write(pair)
        written += 1
    await copying
    await database.close()
    assert written > 1
    assert heard[-1][0] == heard[-1][1] > 0
    assert check(target) == []
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert sorted(os.listdir(tmp_path)) == ["a.db", "b.db"]
    conn = sqlite3.connect(target)
    left, right, position = conn.execute(
        "SELECT (SELECT COUNT(*) FROM left_half), (SELECT COUNT(*) FROM right_half), position "
        "FROM newest_position"
    ).fetchone()
    conn.close()
    assert left == right == position - SKIPPED_POSITIONS >= 2_000
    restored = await open_database(f"sqlite:{target}")
    await restored.write(pair)
    await restored.close()


async def test_what_cannot_be_backed_up_leaves_no_file(tmp_path: Path):
    with pytest.raises(BackupFailed, match="no database"):
        back_up(tmp_path / "none.db", tmp_path / "b.db")
    await (await open_database(f"sqlite:{tmp_path / 'a.db'}")).close()
    with pytest.raises(BackupFailed, match="cannot write"):
        back_up(tmp_path / "a.db", tmp_path / "no" / "b.db")
    (tmp_path / "b.db.partial").write_text("another backup runs")
    with pytest.raises(BackupFailed, match="cannot write"):
        back_up(tmp_path / "a.db", tmp_path / "b.db")
    assert (tmp_path / "b.db.partial").read_text() == "another backup runs"
    assert not (tmp_path / "b.db").exists()


async def test_damage_is_found(tmp_path: Path):
    file = tmp_path / "a.db"
    database = await open_database(f"sqlite:{file}")
    await database.write(
        lambda txn: txn.execute("CREATE TABLE left_half (id INTEGER PRIMARY KEY, filling TEXT)")
    )
    await database.write(lambda txn: txn.execute("CREATE INDEX by_filling ON left_half (filling)"))
    fill = "INSERT INTO left_half (filling) VALUES (:f)"
    await database.write(lambda txn: txn.execute_many(fill, [{"f": f"{n:05}" * 40} for n in range(500)]))
    await database.close()
    assert check(file) == []
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b"00123" * 40, b"99999" * 40, 1))
    assert check(file)
    file.write_bytes(whole[: len(whole) // 2])
    assert check(file)
    file.write_bytes(b"")
    assert check(file)
    file.unlink()
    assert check(file)
