"""PostgreSQL: one writing connection for each process, several reading ones, and one that listens.

Writes run SERIALIZABLE, so that a table function is right on both engines without a word about locks: it
behaves as if it ran alone, as on SQLite. What the server refuses for that (a serialization failure, a
deadlock) is run again. Within a process writes have one order, so only those of different processes ever
collide. Reads run REPEATABLE READ and READ ONLY: one snapshot for the whole function.

A group is first run without savepoints. If one of its functions fails, the group is rolled back and run again
with a savepoint for each.

A connection that is lost is opened again. What was read is read again; what was written is run again if it
had not come to its COMMIT. If it had, the server is asked what became of that transaction.

Each writing transaction begins with a look at the migrations, under a lock that keeps others out until it ends: where a
later version has changed the schema, nothing is written any more. (LOCK TABLE takes no snapshot, so the look that
follows sees whatever was waited for.)
"""

import logging
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

import psycopg
from psycopg.adapt import AdaptersMap, Buffer, Dumper
from psycopg.types.numeric import Int8BinaryDumper, Int8Dumper, NumericBinaryLoader
from psycopg.types.string import StrBinaryDumper, StrDumper

from ranvier.core.errors import BadText
from ranvier.store.database import (
    Conflict,
    Hint,
    Integrity,
    Kind,
    Row,
    SchemaTooNew,
    StoreFault,
    Unavailable,
)
from ranvier.store.dialect import for_postgres
from ranvier.store.migrate import APPLIED
from ranvier.store.positions import OBSERVE, Observation, Settlement, observation_of
from ranvier.store.schema_guard import SchemaGuard
from ranvier.store.telling import Telling
from ranvier.store.threads import Job, News, Outcome, failed

log = logging.getLogger(__name__)

CHANNEL: Final = "ranvier_hints"

MAX_ATTEMPTS: Final = 12
"""To run a group. Then its callers are told of a Conflict."""

ALONE_AFTER: Final = 3
"""Attempts to run a group as a whole. Then each of its functions gets a transaction of its own."""

RECONNECT_S: Final = 5.0
"""How long one job waits for a lost server. Then it is told Unavailable."""

FIRST_SETTLED_S: Final = 30.0
"""How long a process that starts waits for the transactions of others that hold positions back."""

MAX_POSITIONS_AT_ONCE: Final = 64
"""Taken from the sequence by one question. Those left over are never used; gaps are ordinary."""

MAX_PAYLOAD_BYTES: Final = 7_900
"""Of one notification; the server's limit is 8,000. More hints than fit are told as a gap."""

_BEGIN_WRITE: Final = (
    b"BEGIN ISOLATION LEVEL SERIALIZABLE; LOCK TABLE migrations IN ROW SHARE MODE;"
    b"SELECT pg_current_xact_id(), (SELECT COUNT(*) FROM migrations)"
)
_BEGIN_READ: Final = b"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
_NEXT: Final = "SELECT nextval('positions') FROM generate_series(1, $1)"
_SETTINGS: Final = (
    # A process that hangs in a transaction holds everybody's positions back.
    "SET idle_in_transaction_session_timeout = '30s'; SET lock_timeout = '10s'; SET jit = off;"
    "SET client_encoding = 'UTF8'"
)


class _TruthDumper(Dumper):
    """True and False as 1 and 0, as on SQLite."""

    oid = Int8Dumper.oid

    def dump(self, obj: Any) -> Buffer:
        return b"1" if obj else b"0"


class _NumberLoader(NumericBinaryLoader):
    """`SUM` of integers is a NUMERIC here and an integer on SQLite."""

    def load(self, data: Buffer) -> Any:
        number = super().load(data)
        return int(number) if number == number.to_integral_value() else float(number)


def _adapters() -> AdaptersMap:
    adapters = AdaptersMap(psycopg.adapters)
    # Always the same types, so that a statement is prepared once, whatever the size of its numbers.
    for dumper in (StrDumper, StrBinaryDumper):
        adapters.register_dumper(str, dumper)
    for number in (Int8Dumper, Int8BinaryDumper):
        adapters.register_dumper(int, number)
    adapters.register_dumper(bool, _TruthDumper)
    adapters.register_loader("numeric", _NumberLoader)
    return adapters


_ADAPTERS: Final = _adapters()


def connect(url: str) -> psycopg.Connection:
    """Open a connection in autocommit mode. Raises Unavailable."""
    try:
        conn = psycopg.connect(
            url,
            autocommit=True,
            prepare_threshold=2,
            context=_ADAPTERS,
            cursor_factory=psycopg.RawCursor,
            connect_timeout=5,
            application_name="ranvier",
            keepalives_idle=30,
        )
        conn.prepared_max = 1_000
        conn.execute(_SETTINGS, prepare=False)
        if conn.info.parameter_status("server_encoding") != "UTF8":
            conn.close()
            raise Unavailable("the database is not encoded in UTF8")
    except psycopg.Error as error:
        reason = " ".join(str(error).split())
        raise Unavailable(f"cannot connect to PostgreSQL: {reason}") from error
    return conn


def fault(error: psycopg.Error) -> StoreFault | BadText:
    """What the floors above are told of an error of PostgreSQL."""
    if isinstance(error, psycopg.errors.CharacterNotInRepertoire):
        return BadText("A text has a null character.")
    if isinstance(error, psycopg.IntegrityError):
        return Integrity(str(error))
    if _is_collision(error):
        return Conflict(str(error))
    # Classes: connection, resources, locks, operator intervention, system error; and idle in a transaction.
    if error.sqlstate in (None, "25P03") or error.sqlstate[:2] in ("08", "53", "55", "57", "58"):
        return Unavailable(str(error))
    return StoreFault(str(error))


def _is_collision(error: BaseException) -> bool:
    return isinstance(error, psycopg.errors.SerializationFailure | psycopg.errors.DeadlockDetected)


class PostgresTxn:
    """A `ReadTxn`, and on a writing connection a `WriteTxn`."""

    __slots__ = (
        "_cursor",
        "_positions",
        "earliest",
        "hints",
        "is_snapshot",
        "jobs_left",
        "position",
        "taken",
    )

    def __init__(self, cursor: psycopg.RawCursor[Row], position: int, *, is_snapshot: bool = False) -> None:
        self._cursor = cursor
        self.is_snapshot = is_snapshot
        self._positions: list[int] = []
        self.position = position
        self.earliest = self.taken = 0  # the first and the last position that it took
        self.jobs_left = 1
        self.hints: dict[tuple[Kind, int], None] = {}

    def all(self, sql: str, /, **params: object) -> list[Row]:
        return self._run(sql, params).fetchall()

    def first(self, sql: str, /, **params: object) -> Row | None:
        return self._run(sql, params).fetchone()

    def value(self, sql: str, /, **params: object) -> Any:
        row = self._run(sql, params).fetchone()
        return None if row is None else row[0]

    def execute(self, sql: str, /, **params: object) -> int:
        return max(self._run(sql, params).rowcount, 0)

    def execute_many(self, sql: str, rows: Sequence[Mapping[str, object]], /) -> None:
        if not rows:
            return
        statement = for_postgres(sql)
        if statement.expand is not None:
            raise ValueError("a list parameter in execute_many")
        if len(rows) == 1:
            self._cursor.execute(statement.text, statement.bind(rows[0]))
        else:
            self._cursor.executemany(statement.text, [statement.bind(row) for row in rows])

    def next_position(self) -> int:
        if not self._positions:
            # Most jobs take one, so as many as there are jobs.
            count = max(1, min(self.jobs_left, MAX_POSITIONS_AT_ONCE))
            rows = self._cursor.execute(_NEXT, (count,)).fetchall()
            self._positions = sorted((position for (position,) in rows), reverse=True)
        self.taken = self._positions.pop()
        self.earliest = self.earliest or self.taken
        return self.taken

    def hint(self, kind: Kind, key: int) -> None:
        self.hints[kind, key] = None

    def _run(self, sql: str, params: Mapping[str, object]) -> psycopg.RawCursor[Row]:
        return self._cursor.execute(*for_postgres(sql).render(params))


class Link:
    """A connection that is opened again when it was lost."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._open(connect(url))

    def _open(self, conn: psycopg.Connection) -> None:
        self.conn = conn
        # Answers come in binary form; several statements in one text need the other one.
        self.cursor: psycopg.RawCursor[Row] = psycopg.RawCursor(conn)
        self.cursor.format = psycopg.pq.Format.BINARY
        self.control: psycopg.RawCursor[Row] = psycopg.RawCursor(conn)

    @property
    def is_lost(self) -> bool:
        return self.conn.closed  # also when it is broken

    def renew(self) -> None:
        """Connect again if need be, for a while. Raises Unavailable."""
        deadline = time.monotonic() + RECONNECT_S
        pause = 0.05
        while self.is_lost:
            try:
                self._open(connect(self._url))
            except Unavailable:
                if time.monotonic() + pause > deadline:
                    raise
                time.sleep(pause)
                pause *= 2

    def run(self, sql: bytes) -> psycopg.RawCursor[Row]:
        return self.control.execute(sql, prepare=False)

    def direct(self, sql: bytes) -> psycopg.pq.abc.PGresult:
        """Run statements that begin and end transactions; what the last of them answers.

        Past psycopg, which forgets all prepared statements when it sees a ROLLBACK, and takes twice the time.
        """
        answer = self.conn.pgconn.exec_(sql)
        if answer.status == psycopg.pq.ExecStatus.FATAL_ERROR:
            raise psycopg.errors.error_from_result(answer)
        return answer

    def roll_back(self) -> None:
        """Leave a transaction, if there is one and the connection lives."""
        if self.is_lost:
            return
        try:
            if self.conn.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                self.direct(b"ROLLBACK")
        except psycopg.Error as error:
            log.warning("a connection is given up: %s", error)
            self.conn.close()

    def observe(self, sql: bytes, skip: int = 0) -> Observation:
        """Run a text that ends with OBSERVE; `skip`: the answers before those of OBSERVE."""
        cursor = self.run(sql)
        for _ in range(skip):
            cursor.nextset()
        seen = []
        for _ in range(3):
            (value,) = cursor.fetchone() or ("",)
            seen.append(value)
            cursor.nextset()
        return observation_of(int(seen[0]), int(seen[1]), str(seen[2]))


class PostgresReader:
    """See `threads.Reader`."""

    def __init__(self, url: str, settlement: Settlement) -> None:
        self._url = url
        self._lazy: Link | None = None
        self._settlement = settlement

    @property
    def _link(self) -> Link:
        # Opened when first needed: most servers are never so busy as to need all.
        if self._lazy is None:
            self._lazy = Link(self._url)
        return self._lazy

    def read(self, job: Job) -> Outcome:
        try:
            link = self._link
        except Unavailable as error:
            return failed(job, error)
        try:
            try:
                return Outcome(job, self._attempt(job))
            except psycopg.Error:
                if not link.conn.broken:
                    raise
                # The server was restarted, perhaps: once more.
                return Outcome(job, self._attempt(job))
        except BaseException as error:
            link.roll_back()
            return failed(job, _told(error))

    def _attempt(self, job: Job) -> Any:
        self._link.renew()
        # Before the snapshot is taken: what is settled by now is in it.
        position = self._settlement.settled
        self._link.direct(_BEGIN_READ)
        txn = PostgresTxn(self._link.cursor, position, is_snapshot=True)
        value = job.fn(txn, *job.args, **job.kwargs)
        self._link.direct(b"COMMIT")
        return value

    def close(self) -> None:
        if self._lazy is not None:
            self._lazy.conn.close()


class Companion(Protocol):
    """What settles positions that the writer itself cannot: see `listen`."""

    def wake(self) -> None: ...

    def close(self) -> None: ...


class _JobFailed(Exception):
    """One function of a group failed by itself."""


class PostgresWriter:
    """See `threads.Writer`. `name` tells this process's notifications from those of others."""

    def __init__(
        self,
        url: str,
        settlement: Settlement,
        telling: Telling,
        name: str,
        listener: Companion,
        guard: SchemaGuard,
    ) -> None:
        self._link = Link(url)
        self._guard = guard
        self._listener = listener
        self._settlement = settlement
        self._telling = telling
        self._name = name
        self._xid = 0
        self._committing = False
        try:
            self._settle_first()
        except BaseException:
            self._link.conn.close()
            raise

    def _settle_first(self) -> None:
        """Wait until all that others gave out is settled: clients may hold those positions already."""
        deadline = time.monotonic() + FIRST_SETTLED_S
        first = self._link.observe(OBSERVE)
        seen = first
        while seen.xmin < first.xid:
            if time.monotonic() > deadline:
                raise Unavailable("a transaction of the database server has been open for too long")
            time.sleep(0.01)
            seen = self._link.observe(OBSERVE)
        self._settlement.observe(first)
        self._settlement.observe(seen)

    def commit(self, jobs: Sequence[Job]) -> tuple[list[Outcome], News | None]:
        careful = False
        for attempt in range(MAX_ATTEMPTS):
            if attempt == ALONE_AFTER and len(jobs) > 1:
                return self._commit_each(jobs)
            try:
                self._link.renew()
                outcomes, txn = self._run_group(jobs, careful)
                return outcomes, self._end(txn)
            except SchemaTooNew as error:
                self._link.roll_back()
                return _all_failed(jobs, error), News(0, outdated=str(error))
            except Unavailable as error:
                return _all_failed(jobs, error), None
            except _JobFailed:
                self._link.roll_back()
                careful = True
            except BaseException as error:
                self._link.roll_back()
                if self._committing and self._link.conn.broken:
                    if (decided := self._was_committed()) is None:
                        return _all_failed(jobs, error), None
                    if decided:
                        return outcomes, self._after_lost_answer(txn)
                elif not (_is_collision(error) or self._link.conn.broken):
                    return _all_failed(jobs, error), None
                last = error
                time.sleep(random.uniform(0, 0.002 * 2 ** min(attempt, 6)))  # noqa: S311 - spreads retries
        return [failed(job, Conflict(f"gave up after {MAX_ATTEMPTS} attempts: {last}")) for job in jobs], None

    def _commit_each(self, jobs: Sequence[Job]) -> tuple[list[Outcome], News | None]:
        results = [self.commit([job]) for job in jobs]
        told = [news for _, news in results if news is not None]
        hints = [hint for news in told for hint in news.hints]
        own = max((news.own for news in told), default=0)
        outdated = next((news.outdated for news in told if news.outdated), "")
        return [outcome for outcomes, _ in results for outcome in outcomes], News(0, hints, own, outdated)

    def _run_group(self, jobs: Sequence[Job], careful: bool) -> tuple[list[Outcome], PostgresTxn]:
        self._committing = False
        settled = self._settlement.settled
        begun = self._link.direct(_BEGIN_WRITE)
        self._xid = int(begun.get_value(0, 0) or 0)
        migrations = int(begun.get_value(0, 1) or 0)
        self._guard.check(migrations, lambda: self._link.conn.execute(APPLIED).fetchall())
        txn = PostgresTxn(self._link.cursor, settled)
        if careful or len(jobs) == 1:
            return [self._run_alone(txn, job) for job in jobs], txn
        outcomes = []
        for done, job in enumerate(jobs):
            txn.jobs_left = len(jobs) - done
            try:
                outcomes.append(Outcome(job, job.fn(txn, *job.args, **job.kwargs)))
            except BaseException as error:
                if _is_collision(error) or self._link.conn.broken:
                    raise
                raise _JobFailed from error
        return outcomes, txn

    def _run_alone(self, txn: PostgresTxn, job: Job) -> Outcome:
        """One job in its savepoint."""
        hints = txn.hints
        txn.hints = {}
        self._link.direct(b"SAVEPOINT job")
        try:
            value = job.fn(txn, *job.args, **job.kwargs)
            self._link.direct(b"RELEASE SAVEPOINT job")
        except BaseException as error:
            if _is_collision(error) or self._link.conn.broken:
                raise
            txn.hints = hints
            self._link.direct(b"ROLLBACK TO SAVEPOINT job; RELEASE SAVEPOINT job")
            return failed(job, _told(error))
        txn.hints = hints | txn.hints
        return Outcome(job, value)

    def _end(self, txn: PostgresTxn) -> News | None:
        """Commit, and look at once what is settled: one question to the server."""
        if not (txn.taken or txn.hints):
            self._committing = True
            self._link.direct(b"COMMIT")
            self._committing = False
            return None
        if txn.hints:
            payload = encode_payload(self._name, txn.earliest, txn.taken, txn.hints)
            self._link.cursor.execute("SELECT pg_notify($1, $2)", (CHANNEL, payload))
        if txn.taken:
            self._telling.hold(_hints(txn), txn.earliest)
        mark = self._telling.next_mark()
        self._committing = True
        seen = self._link.observe(b"COMMIT;" + observe_with(self._name, mark), skip=1)
        self._committing = False
        return self._news(txn, mark, seen)

    def _news(self, txn: PostgresTxn, mark: int, seen: Observation) -> News:
        """What the group took. What may be told of it is told by now; the rest will be by the listener."""
        self._telling.observed(mark, seen)
        if self._telling.is_waiting:
            self._listener.wake()
        return _answered(txn)

    def _was_committed(self) -> bool | None:
        """What became of the transaction whose COMMIT got no answer; None: the server does not tell."""
        try:
            for _ in range(20):
                self._link.renew()
                row = self._link.conn.execute(
                    "SELECT pg_xact_status($1::text::xid8)", (str(self._xid),)
                ).fetchone()
                if row is not None and row[0] != "in progress":
                    return bool(row[0] == "committed")
                time.sleep(0.1)
        except (psycopg.Error, StoreFault) as error:
            log.error("a commit's outcome is not known: %s", error)
        return None

    def _after_lost_answer(self, txn: PostgresTxn) -> News:
        try:
            mark = self._telling.next_mark()
            return self._news(txn, mark, self._link.observe(observe_with(self._name, mark)))
        except psycopg.Error as error:
            log.warning("the observer will tell what is settled: %s", error)
            return _answered(txn)

    def after_commit(self) -> None:
        """Nothing: the server tidies up by itself."""

    def look(self) -> None:
        """Nothing: the listener hears of other processes."""

    def close(self) -> None:
        self._listener.close()
        self._link.conn.close()


def _hints(txn: PostgresTxn) -> list[Hint]:
    return [Hint(kind, key, txn.taken or txn.position) for kind, key in txn.hints]


def _answered(txn: PostgresTxn) -> News:
    """What goes with the answers. They wait until what took a position is told; what took none is told with them."""
    return News(0, () if txn.taken else _hints(txn), txn.taken)


def marks_of(name: str) -> str:
    """The channel on which a process hears its own marks."""
    return f"ranvier_marks_{name}"


def observe_with(name: str, mark: int) -> bytes:
    """OBSERVE, and then a mark, which is sent when the observation has been made."""
    return OBSERVE + f"; SELECT pg_notify('{marks_of(name)}', '{mark}')".encode()


def encode_payload(
    name: str, first: int, last: int, hints: Sequence[tuple[Kind, int]] | Mapping[tuple[Kind, int], None]
) -> str:
    """`name first last kind:key …`, or a gap when that would be too long. `first`, `last`: the positions taken."""
    payload = f"{name} {first} {last} {' '.join(f'{kind.value}:{key}' for kind, key in hints)}"
    return payload if len(payload) <= MAX_PAYLOAD_BYTES else f"{name} {first} {last} {Kind.GAP.value}:0"


def decode_payload(payload: str) -> tuple[str, int, list[Hint]]:
    """Who sent it, the first position that it took, and its hints. What a later version may say and this one does not
    know is a gap."""
    name, _, rest = payload.partition(" ")
    begin, _, rest = rest.partition(" ")
    end, _, listed = rest.partition(" ")
    first, last = (int(one) if one.isdecimal() else 0 for one in (begin, end))
    try:
        split = [word.split(":") for word in listed.split()]
        return name, first, [Hint(Kind(kind), int(key), last) for kind, key in split]
    except ValueError:
        return name, first, [Hint(Kind.GAP, 0, last)]


def _all_failed(jobs: Sequence[Job], error: BaseException) -> list[Outcome]:
    outcomes = []
    told: StoreFault | BadText
    for job in jobs:
        if isinstance(error, psycopg.Error):
            told = fault(error)
        elif isinstance(error, SchemaTooNew):
            told = SchemaTooNew(str(error))
        else:
            told = Unavailable(f"the commit failed: {error}")
        told.__cause__ = error
        outcomes.append(Outcome(job, error=told))
    return outcomes


def _told(error: BaseException) -> BaseException:
    if not isinstance(error, psycopg.Error):
        return error
    told = fault(error)
    told.__cause__ = error
    return told
