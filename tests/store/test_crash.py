"""A process killed in the middle of commits loses nothing that it acknowledged, and keeps nothing by half."""

import asyncio
import sys
from pathlib import Path

import pytest

from ranvier.store.backup import check
from ranvier.store.connect import open_database, parse_url
from ranvier.store.dialect import Engine

CHILD = Path(__file__).with_name("crash_child.py")


@pytest.mark.slow
async def test_what_was_acknowledged_survives_a_kill(engine: Engine, database_url: str):
    database = await open_database(database_url)
    await database.write(
        lambda txn: txn.execute("CREATE TABLE crashed (id {int} PRIMARY KEY, other {int} NOT NULL)")
    )
    await database.close()
    acknowledged: list[int] = []
    for lines in (1, 150, 400):
        child = await asyncio.create_subprocess_exec(
            sys.executable, CHILD, database_url, stdout=asyncio.subprocess.PIPE
        )
        assert child.stdout
        acknowledged += [int(await child.stdout.readline()) for _ in range(lines)]
        child.kill()
        rest = await child.stdout.read()
        acknowledged += [int(line) for line in rest.split(b"\n")[:-1]]
        await child.wait()

        database = await open_database(database_url)
        rows = dict(await database.read(lambda txn: txn.all("SELECT id, other FROM crashed")))
        assert set(acknowledged) <= rows.keys()
        assert all(rows[rows[number]] == number for number in rows)
        assert database.position() >= max(rows)
        assert await database.write(lambda txn: txn.next_position()) > max(rows)
        await database.close()
        if engine is Engine.SQLITE:
            assert check(Path(parse_url(database_url)[1])) == []
