"""SQLite: one file, one writing connection, several reading ones.

The file is in WAL mode, so readers see a snapshot and never wait for the writer, nor it for them. With
`synchronous=FULL` a commit is on disk before anybody hears of it.

Another process may write to the same file now and then (`ranvier user add`). So nothing that the writer
knows outlives its transaction: each group begins by reading the newest position. If that is not where this
process left it, somebody else was here, and subscribers are told of a gap. If that was a later version, which has
changed the schema, nothing is written any more.
"""

import logging
import os
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ranvier.store.database import Hint, Integrity, Kind, Row, SchemaTooNew, StoreFault, Unavailable
from ranvier.store.dialect import for_sqlite
from ranvier.store.migrate import APPLIED
from ranvier.store.schema_guard import SchemaGuard
from ranvier.store.threads import Job, News, Outcome, failed

log = logging.getLogger(__name__)

BUSY_S: Final = 10.0
"""How long to wait for another process's write lock."""

CHECKPOINT_PAGES: Final = 4_000
"""Of 4 KiB in the write-ahead log; then a commit copies them into the database, as far as readers let it."""

MAX_WAL_BYTES: Final = 64 * 1024 * 1024
"""Above this the writer waits, a moment, for readers to leave the log, and empties it."""

TRUNCATE_WAIT_MS: Final = 500

CACHE_BYTES: Final = 48 * 1024 * 1024
"""For pages of the database, of all connections together. What is in the file itself is mapped and does not count."""

READERS: Final = 4
WRITER_SHARE: Final = 2 / 3
"""Of the cache; the readers have the rest. The writer's spares reading what it is about to change."""

MMAP_BYTES: Final = 256 * 1024 * 1024
CACHED_STATEMENTS: Final = 1_024

_POSITION: Final = "SELECT position FROM newest_position"
_LOOK: Final = "SELECT position, (SELECT COUNT(*) FROM migrations) FROM newest_position"
_SET_POSITION: Final = "UPDATE newest_position SET position = ?"

_UNAVAILABLE: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_NOTADB,
    }
)


def connect(path: Path, *, writes: bool = False, cache_bytes: int = CACHE_BYTES) -> sqlite3.Connection:
    """Open a connection in autocommit mode, usable on one thread at a time. Creates the file if `writes`.
    `cache_bytes`: for a writer and its readers together.

    Raises: Unavailable when the file cannot be opened, or not in WAL mode.
    """
    try:
        if writes:
            # Nobody but the owner reads accounts and keys.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        conn = sqlite3.connect(
            path,
            timeout=BUSY_S,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=CACHED_STATEMENTS,
        )
    except (OSError, sqlite3.Error) as error:
        raise Unavailable(f"cannot open {path}: {error}") from error
    try:
        _configure(conn, cache_bytes, writes=writes)
    except BaseException as error:
        conn.close()
        if isinstance(error, sqlite3.Error):
            raise fault(error) from error
        raise
    return conn


def _configure(conn: sqlite3.Connection, cache_bytes: int, *, writes: bool) -> None:
    share = WRITER_SHARE if writes else (1 - WRITER_SHARE) / READERS
    if writes:
        (mode,) = conn.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise Unavailable(f"SQLite cannot use a write-ahead log here (it says {mode!r})")
    else:
        conn.execute("PRAGMA query_only = ON")
    for pragma in (
        "synchronous = FULL",
        "foreign_keys = ON",
        # The same on both engines; see dialect.
        "case_sensitive_like = ON",
        "temp_store = MEMORY",
        "trusted_schema = OFF",
        # Debian's build overwrites all that is deleted, at the cost of writing those pages.
        "secure_delete = FAST",
        f"cache_size = -{int(share * cache_bytes / 1024)}",
        f"mmap_size = {MMAP_BYTES}",
        f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
        f"journal_size_limit = {MAX_WAL_BYTES}",
    ):
        conn.execute(f"PRAGMA {pragma}").fetchall()


def fault(error: sqlite3.Error) -> StoreFault:
    """What the floors above are told of an error of SQLite."""
    if isinstance(error, sqlite3.IntegrityError):
        return Integrity(str(error))
    # The low byte is the family of an extended code.
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in _UNAVAILABLE:
        return Unavailable(str(error))
    return StoreFault(str(error))


class SqliteTxn:
    """A `ReadTxn`, and on the writing connection a `WriteTxn`: the same one for each job of a group.

    One cursor serves every statement, as each answer is fetched before the next statement runs.
    """

    __slots__ = ("_cursor", "_position", "hints", "is_snapshot")

    def __init__(self, cursor: sqlite3.Cursor, position: int | None = None) -> None:
        """`position`: for a WriteTxn, where it begins."""
        self._cursor = cursor
        self._position = position
        self.is_snapshot = position is None
        self.hints: dict[tuple[Kind, int], None] = {}

    @property
    def position(self) -> int:
        # Read in the transaction's own snapshot, whenever it is asked for.
        if self._position is None:
            self._position = self.value(_POSITION)
        return self._position

    def all(self, sql: str, /, **params: object) -> list[Row]:
        return self._cursor.execute(*for_sqlite(sql).render(params)).fetchall()

    def first(self, sql: str, /, **params: object) -> Row | None:
        row: Row | None = self._cursor.execute(*for_sqlite(sql).render(params)).fetchone()
        return row

    def value(self, sql: str, /, **params: object) -> Any:
        row = self._cursor.execute(*for_sqlite(sql).render(params)).fetchone()
        return None if row is None else row[0]

    def execute(self, sql: str, /, **params: object) -> int:
        return max(self._cursor.execute(*for_sqlite(sql).render(params)).rowcount, 0)

    def execute_many(self, sql: str, rows: Sequence[Mapping[str, object]], /) -> None:
        if not rows:
            return
        statement = for_sqlite(sql)
        if statement.expand is not None:
            raise ValueError("a list parameter in execute_many")
        self._cursor.executemany(statement.text, map(statement.bind, rows))

    def next_position(self) -> int:
        self._position = self.position + 1
        return self._position

    def hint(self, kind: Kind, key: int) -> None:
        self.hints[kind, key] = None


class SqliteReader:
    """See `threads.Reader`."""

    def __init__(self, path: Path, cache_bytes: int = CACHE_BYTES) -> None:
        self._conn = connect(path, cache_bytes=cache_bytes)
        self._cursor = self._conn.cursor()

    def read(self, job: Job) -> Outcome:
        try:
            self._cursor.execute("BEGIN")
            value = job.fn(SqliteTxn(self._cursor), *job.args, **job.kwargs)
            # Also resets the last statement, which would keep the snapshot otherwise.
            self._cursor.execute("COMMIT")
        except BaseException as error:
            if (undone := _rollback(self._cursor)) is not None:
                log.error("a reading transaction could not be ended", exc_info=undone)
            return failed(job, _told(error))
        return Outcome(job, value)

    def close(self) -> None:
        self._conn.close()


class SqliteWriter:
    """See `threads.Writer`. The file's schema is that of this program already."""

    def __init__(self, path: Path, guard: SchemaGuard, cache_bytes: int = CACHE_BYTES) -> None:
        self._conn = connect(path, writes=True, cache_bytes=cache_bytes)
        self._cursor = self._conn.cursor()
        self._guard = guard
        self._wal = Path(f"{path}-wal")
        self._wal_allowed = MAX_WAL_BYTES
        self.position: int = self._cursor.execute(_POSITION).fetchone()[0]

    def commit(self, jobs: Sequence[Job]) -> tuple[list[Outcome], News | None]:
        try:
            self._cursor.execute("BEGIN IMMEDIATE")
            found = self._look()
            txn = SqliteTxn(self._cursor, found)
            outcomes = [self._run(txn, job) for job in jobs]
            if txn.position != found:
                self._cursor.execute(_SET_POSITION, (txn.position,))
            self._cursor.execute("COMMIT")
        except SchemaTooNew as error:
            return self._all_failed(jobs, error), News(self.position, outdated=str(error))
        except BaseException as error:
            return self._all_failed(jobs, error), None
        return outcomes, self._news(found, txn.position, list(txn.hints))

    def _run(self, txn: SqliteTxn, job: Job) -> Outcome:
        """One job in its savepoint. Raises: what leaves the whole transaction unusable."""
        execute = self._cursor.execute
        hints = txn.hints
        txn.hints = {}
        execute("SAVEPOINT job")
        try:
            value = job.fn(txn, *job.args, **job.kwargs)
            execute("RELEASE job")
        except BaseException as error:
            txn.hints = hints
            # After some errors (a full disk) SQLite has rolled back all by itself.
            if not self._conn.in_transaction:
                raise
            execute("ROLLBACK TO job")
            execute("RELEASE job")
            return failed(job, _told(error))
        txn.hints = hints | txn.hints if hints else txn.hints
        return Outcome(job, value)

    def _all_failed(self, jobs: Sequence[Job], error: BaseException) -> list[Outcome]:
        """Nothing of the group is kept, whoever's fault it was."""
        undone = _rollback(self._cursor)
        if undone is not None:
            log.error("a failed commit could not be rolled back", exc_info=undone)
        outcomes = []
        for job in jobs:
            # An exception each: what several raise would share a traceback.
            is_too_new = isinstance(error, SchemaTooNew)
            told = SchemaTooNew(str(error)) if is_too_new else Unavailable(f"the commit failed: {error}")
            told.__cause__ = error
            outcomes.append(Outcome(job, error=told))
        return outcomes

    def _news(self, found: int, position: int, changed: Sequence[tuple[Kind, int]]) -> News | None:
        """`found` is where the group began; `position` where it ended."""
        hints = [Hint(kind, key, position) for kind, key in changed]
        if found != self.position:
            hints.append(Hint(Kind.GAP, 0, position))
        if not hints and position == self.position:
            return None
        self.position = position
        return News(position, hints)

    def look(self) -> News | None:
        try:
            found = self._look()
        except SchemaTooNew as error:
            return News(self.position, outdated=str(error))
        except sqlite3.Error:
            log.exception("the newest position cannot be read")
            return None
        return self._news(found, found, ())

    def _look(self) -> int:
        """The newest position. Raises: SchemaTooNew."""
        found, migrations = self._cursor.execute(_LOOK).fetchone()
        self._guard.check(migrations, lambda: self._cursor.execute(APPLIED).fetchall())
        return int(found)

    def after_commit(self) -> None:
        """Keep the log bounded. SQLite starts it anew only without readers; if need be, wait for them."""
        try:
            size = os.stat(self._wal).st_size
            if size <= self._wal_allowed:
                return
            self._cursor.execute(f"PRAGMA busy_timeout = {TRUNCATE_WAIT_MS}")
            try:
                blocked, _, _ = self._cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            finally:
                self._cursor.execute(f"PRAGMA busy_timeout = {int(BUSY_S * 1000)}").fetchall()
        except (OSError, sqlite3.Error):
            log.exception("the write-ahead log could not be emptied")
            return
        # A reader that stays on (a backup) is not waited for at every commit.
        self._wal_allowed = size + MAX_WAL_BYTES if blocked else MAX_WAL_BYTES

    def close(self) -> None:
        self._conn.close()


def _rollback(cursor: sqlite3.Cursor) -> sqlite3.Error | None:
    """Leave a transaction, if there is one. The error that kept from it."""
    try:
        if cursor.connection.in_transaction:
            cursor.execute("ROLLBACK")
    except sqlite3.Error as error:
        return error
    return None


def _told(error: BaseException) -> BaseException:
    """What a caller is told: its own exceptions as they are, those of SQLite in our words."""
    if not isinstance(error, sqlite3.Error):
        return error
    told = fault(error)
    told.__cause__ = error
    return told
