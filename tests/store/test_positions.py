"""Whoever follows positions sees every change, whatever order transactions commit in."""

import asyncio
import secrets
from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranvier.store.database import Database, Hint, Kind, ReadTxn, Unavailable, WriteTxn
from ranvier.store.dialect import Engine
from ranvier.store.positions import (
    MAX_OBSERVATIONS,
    OBSERVE,
    Observation,
    Settlement,
    observation_of,
)
from ranvier.store.postgres import Link, PostgresWriter, decode_payload, encode_payload
from ranvier.store.schema_guard import SchemaGuard
from ranvier.store.telling import Telling

only_postgres = pytest.mark.parametrize("engine", [Engine.POSTGRES], ids=["postgres"], indirect=True)


def slow_note(txn: WriteTxn, delay_s: float | None) -> int:
    """Takes its position long before it commits."""
    position = txn.next_position()
    if delay_s is not None:
        txn.value("SELECT pg_sleep(:s)", s=delay_s)
    txn.execute("INSERT INTO notes (id) VALUES (:id)", id=position)
    txn.hint(Kind.ROOM, 1)
    return position


async def follow(database: Database, count: int) -> list[int]:
    """Read forward as every consumer does, until `count` were seen or hope is gone."""
    seen: list[int] = []
    since, woken = 0, asyncio.Event()
    database.subscribe(lambda _: woken.set())

    def after(txn: ReadTxn, since: int) -> tuple[list[int], int]:
        sql = "SELECT id FROM notes WHERE id > :since AND id <= :now ORDER BY id"
        return [number for (number,) in txn.all(sql, since=since, now=txn.position)], txn.position

    async with asyncio.timeout(20):
        while len(seen) < count:
            new, now = await database.read(after, since)
            assert now >= since
            seen += new
            since = now
            if not new:
                woken.clear()
                if database.position() == since:
                    await woken.wait()
    return seen


async def test_followers_miss_nothing(db: Database, engine: Engine, open_another):
    """Three processes write, each commits late and at its own pace; each follows all of it."""
    await db.write(lambda txn: txn.execute("CREATE TABLE notes (id {int} PRIMARY KEY)"))
    databases = [db] if engine is Engine.SQLITE else [db, await open_another(), await open_another()]
    each = 40

    async def write(number: int, database: Database) -> list[int]:
        written = []
        for n in range(each):
            delay = None if engine is Engine.SQLITE else (n * (number + 3) % 7) / 1_000
            written.append(await database.write(slow_note, delay))
        return written

    async with asyncio.TaskGroup() as group:
        following = [group.create_task(follow(database, each * len(databases))) for database in databases]
        writing = [group.create_task(write(n, database)) for n, database in enumerate(databases)]
    everything = sorted(position for task in writing for position in task.result())
    for task in following:
        assert task.result() == everything


@pytest.fixture
def late(database_url: str) -> Iterator[psycopg.Connection]:
    """A transaction of another process, which took a position and is still open."""
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("BEGIN")
        conn.execute("SELECT pg_current_xact_id()")
        yield conn
        conn.execute("ROLLBACK")


@only_postgres
def test_an_open_transaction_holds_positions_back(late: psycopg.Connection, database_url: str):
    (held,) = late.execute("SELECT nextval('positions')").fetchone() or (0,)
    observer = Link(database_url)
    settlement = Settlement()

    # Nothing ended since: the open transaction's id is at or above a snapshot's xmax.
    assert settlement.observe(observer.observe(OBSERVE)) < held
    assert settlement.observe(observer.observe(OBSERVE)) < held
    with psycopg.connect(database_url) as other:
        other.execute("SELECT pg_current_xact_id(), nextval('positions')")
    assert settlement.observe(observer.observe(OBSERVE)) < held
    late.execute("COMMIT")
    assert settlement.observe(observer.observe(OBSERVE)) == held + 1
    observer.conn.close()


@only_postgres
def test_what_is_done_in_other_databases_holds_nobody_up(database_url: str):
    elsewhere = urlsplit(database_url)._replace(path="/postgres").geturl()
    observer = Link(database_url)
    with psycopg.connect(elsewhere) as other, psycopg.connect(database_url, autocommit=True) as writer:
        other.execute("SELECT pg_current_xact_id()")
        (taken,) = writer.execute("SELECT nextval('positions')").fetchone() or (0,)
        assert Settlement().observe(observer.observe(OBSERVE)) == taken
    observer.conn.close()


@only_postgres
def test_whose_transactions_may_not_be_seen_are_waited_for_all_the_same(
    late: psycopg.Connection, database_url: str
):
    """Two roles that may not look at each other, connected to one database."""
    late.execute("SELECT nextval('positions')")
    role = f"role_{secrets.token_hex(4)}"
    with psycopg.connect(database_url, autocommit=True) as owner:
        owner.execute(f"CREATE ROLE {role} LOGIN")
        owner.execute(f"GRANT SELECT, USAGE ON SEQUENCE positions TO {role}")
        parts = urlsplit(database_url)
        observer = Link(parts._replace(netloc=f"{role}@{parts.netloc.rpartition('@')[2]}").geturl())
        try:
            seen = observer.observe(OBSERVE)
            assert seen.xmin < seen.xid
        finally:
            observer.conn.close()
            owner.execute(f"DROP OWNED BY {role}")
            owner.execute(f"DROP ROLE {role}")


@only_postgres
async def test_who_writes_is_answered_when_others_can_see_it(
    db: Database, late: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
):
    await db.write(lambda txn: txn.execute("CREATE TABLE notes (id {int} PRIMARY KEY)"))
    monkeypatch.setattr("ranvier.store.threads.PATIENCE_S", 60)
    late.execute("SELECT nextval('positions')")
    writing = asyncio.create_task(db.write(slow_note, None))
    await asyncio.sleep(0.2)
    assert not writing.done()
    late.execute("COMMIT")
    position = await asyncio.wait_for(writing, 10)
    assert await db.read(lambda txn: txn.position) >= position


def test_ids_are_made_whole_again():
    """pg_stat_activity has the lower 32 bits of what pg_current_xact_id gives in full."""
    assert observation_of(7, 100, "here ") == Observation(7, 100, 100)
    assert observation_of(7, 100, "here 90 101") == Observation(7, 100, 90)
    after_wrap = 5 * 2**32 + 10
    assert observation_of(7, after_wrap, f"here {2**32 - 3} 12") == Observation(7, after_wrap, 5 * 2**32 - 3)
    assert observation_of(7, after_wrap, f"all {after_wrap - 50}") == Observation(
        7, after_wrap, after_wrap - 50
    )


@only_postgres
async def test_hints_wait_until_their_position_is_settled(
    db: Database, late: psycopg.Connection, database_url: str
):
    await db.write(lambda txn: txn.execute("CREATE TABLE notes (id {int} PRIMARY KEY)"))
    heard: list[Hint] = []
    woken = asyncio.Event()
    db.subscribe(lambda hints: (heard.extend(hints), woken.set()))
    (held,) = late.execute("SELECT nextval('positions')").fetchone() or (0,)
    position = await db.write(slow_note, None)
    assert position > held > db.position()
    assert heard == []
    assert await db.read(lambda txn: txn.position) < held
    late.execute("COMMIT")
    async with asyncio.timeout(60):
        await woken.wait()
    assert heard == [Hint(Kind.ROOM, 1, position)]
    assert db.position() == position


@only_postgres
def test_a_process_starts_only_where_others_have_been(
    late: psycopg.Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
):
    late.execute("SELECT nextval('positions')")
    monkeypatch.setattr("ranvier.store.postgres.FIRST_SETTLED_S", 0.1)
    settlement = Settlement()
    with pytest.raises(Unavailable, match="open for too long"):
        PostgresWriter(database_url, settlement, Telling(settlement, print), "test", late, SchemaGuard(()))


class Simulated:
    """PostgreSQL's numbers: ids and positions in order of asking, transactions ending in any order."""

    def __init__(self, sees_all: bool) -> None:
        self.sees_all = sees_all  # whether pg_stat_activity tells the open transactions
        self.next_xid, self.last, self.newest_ended = 1, 0, 0
        self.open: dict[int, list[int]] = {}

    def begin(self) -> None:
        self.open[self.next_xid] = []
        self.next_xid += 1

    def take(self, which: int) -> None:
        if self.open:
            self.last += 1
            self.open[sorted(self.open)[which % len(self.open)]].append(self.last)

    def end(self, which: int) -> None:
        if self.open:
            xid = sorted(self.open)[which % len(self.open)]
            del self.open[xid]
            self.newest_ended = max(self.newest_ended, xid)

    def observe(self) -> Observation:
        last, xid = self.last, self.next_xid
        self.next_xid += 1
        if self.sees_all:
            return observation_of(last, xid, f"here {' '.join(map(str, self.open))}")
        xmin = min(
            [number for number in self.open if number <= self.newest_ended], default=self.newest_ended + 1
        )
        self.newest_ended = xid
        return observation_of(last, xid, f"all {xmin}")


@given(
    st.lists(st.tuples(st.sampled_from(["begin", "take", "end", "observe"]), st.integers(0, 9)), max_size=60),
    st.booleans(),
)
def test_settled_is_below_every_open_position(steps, sees_all):
    server, settlement, before = Simulated(sees_all), Settlement(), 0
    for step, which in steps:
        if step == "begin":
            server.begin()
        elif step == "observe":
            settled = settlement.observe(server.observe())
            taken = [position for positions in server.open.values() for position in positions]
            assert before <= settled < min(taken, default=settled + 1)
            before = settled
        else:
            getattr(server, step)(which)
    server.open.clear()
    settlement.observe(server.observe())
    assert settlement.observe(server.observe()) == server.last


def test_what_is_kept_is_bounded():
    settlement = Settlement()
    for n in range(MAX_OBSERVATIONS * 3):
        settlement.observe(Observation(10 + n, 100 + n, 1))
    assert settlement.observe(Observation(5_000, 5_000, 5_000)) == 5_000
    assert not settlement.is_waiting


def test_payloads():
    hints = [(Kind.ROOM, 5), (Kind.DEVICE_LIST, 6)]
    assert decode_payload(encode_payload("me", 7, 9, dict.fromkeys(hints))) == (
        "me",
        7,
        [Hint(kind, key, 9) for kind, key in hints],
    )
    many = dict.fromkeys((Kind.ROOM, n) for n in range(10_000))
    assert decode_payload(encode_payload("me", 7, 9, many)) == ("me", 7, [Hint(Kind.GAP, 0, 9)])


@given(st.text(max_size=30))
def test_any_payload_is_understood_or_a_gap(payload):
    for hint in decode_payload(payload)[2]:
        assert isinstance(hint.kind, Kind)
    assert decode_payload("other 11 12 later:5")[2] == [Hint(Kind.GAP, 0, 12)]
