"""What the floors above know of the database: transactions are synchronous functions, run whole on a thread.

    async def …:
        room = await db.read(rooms.find_room, room_id)
        nid = await db.write(events.insert_event, row)

A function may run twice (PostgreSQL asks for a retry), so it has no effects but those on the database; what
has to happen after the commit is returned, or told with `txn.hint(…)`.

SQL text is the same for both engines. Parameters are named, `:room_nid`; a list is written
`IN (:event_nids[])` and passed as a list. Only `dialect` knows how an engine spells them.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import msgspec

from ranvier.core.errors import ServerFault

Row = tuple[Any, ...]

P = ParamSpec("P")
T = TypeVar("T")


class StoreFault(ServerFault):
    """The database could not do its work: our fault, not a caller's."""


class Conflict(StoreFault):
    """What a write was built on has changed meanwhile. The caller builds it anew."""


class Integrity(StoreFault):
    """A constraint of the schema says no. What may be there already is written with ON CONFLICT instead."""


class Unavailable(StoreFault):
    """The database cannot be reached, is full, is overloaded or is shut down. Trying later may help."""


class SchemaTooNew(StoreFault):
    """The database was written by a later version of this program, which alone understands it."""


class SchemaTooOld(StoreFault):
    """The database is that of an earlier version, and whoever asks does not bring it up to date."""


class Kind(Enum):
    """Whose view of the world changed."""

    ROOM = "room"  # key: room_nid. Events, receipts, typing: whoever is in the room
    USER = "user"  # key: user_nid. Account data, to-device messages, memberships, devices: that user alone
    SESSION = (
        "session"  # key: user_nid. The user's tokens or the standing of the account: who may ask as whom
    )
    DEVICE_LIST = "device_list"  # key: user_nid. The user's keys or devices: whoever shares a room
    PUSH = "push"  # key: user_nid. What notifies the user, and where: push rules, ignored users, pushers
    PRESENCE = "presence"  # key: user_nid. The user's presence: whoever shares a room
    SERVER = "server"  # key: server_nid. Something waits to be sent to that server
    JOB = "job"  # key: 0. Background work was queued
    # key: the name of an answer of sliding sync. Who has given it is to store what its client knows; and has
    ANSWER_WANTED = "answer_wanted"
    ANSWER_STORED = "answer_stored"
    GAP = "gap"  # key: 0. Other hints were lost: anything up to this position may have changed


class Hint(msgspec.Struct, frozen=True, array_like=True):
    """Wakes whoever waits, after a commit. Carries no data: a lost hint costs latency, never correctness."""

    kind: Kind
    key: int
    position: int


class ReadTxn(Protocol):
    """A snapshot of the database.

    `position`: everything that got a position up to this one is visible here, and nothing that commits later
    will have a position up to it. Readers that follow changes read `> since AND <= txn.position`.
    `is_snapshot`: whether all that is seen here is committed, so that what never changes may be kept. In a transaction
    that writes it is not.
    """

    @property
    def position(self) -> int: ...

    @property
    def is_snapshot(self) -> bool: ...

    def all(self, sql: str, /, **params: object) -> list[Row]:
        """Every row."""

    def first(self, sql: str, /, **params: object) -> Row | None:
        """The first row, or None."""

    def value(self, sql: str, /, **params: object) -> Any:
        """The first column of the first row, or None."""


class WriteTxn(ReadTxn, Protocol):
    """A read-write transaction. Fails and rolls back alone, whatever else shares its commit."""

    def execute(self, sql: str, /, **params: object) -> int:
        """Run one statement; the number of rows it changed."""

    def execute_many(self, sql: str, rows: Sequence[Mapping[str, object]], /) -> None:
        """Run one statement for each row of parameters."""

    def next_position(self) -> int:
        """A new position, greater than every one given out before. Gaps are ordinary."""

    def hint(self, kind: Kind, key: int) -> None:
        """After the commit, tell subscribers of this (once for equal hints of one commit)."""


Subscriber = Callable[[Sequence[Hint]], None]
"""Called on the event loop after a commit (of this process or another one) with its hints. Must not block."""


class Database(Protocol):
    """An open database. `store.connect.open_database` makes one from a URL."""

    async def read(self, fn: Callable[Concatenate[ReadTxn, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `fn(txn, …)` on a snapshot. Raises what `fn` raises, or StoreFault."""

    async def write(self, fn: Callable[Concatenate[WriteTxn, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `fn(txn, …)` and commit. When this returns, the change survives SIGKILL.

        Writes of one process take effect in the order of these calls: each sees those before it. The write is
        queued before the first suspension, so who does not await between deciding and calling holds a lock.
        A cancelled caller does not undo it: the outcome is decided by the database alone.
        Raises what `fn` raises (then nothing of it is kept), or StoreFault.
        """

    def position(self) -> int:
        """The newest position that a read started now would see; never goes back."""

    def subscribe(self, subscriber: Subscriber) -> None:
        """Call `subscriber` with the hints of every later commit."""

    async def close(self) -> None:
        """Finish the writes that wait, then close. Idempotent; later calls raise Unavailable."""
