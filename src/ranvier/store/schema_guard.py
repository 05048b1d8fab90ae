"""Notices that a later version of the program has changed the schema under a process that runs.

What that version keeps beside each row, this one would not keep; so it may write no more. Each writing transaction
looks how many migrations the database has, in a way that no migration can come between: on SQLite it holds the write
lock by then, on PostgreSQL a lock on the table of migrations.
"""

from collections.abc import Callable, Sequence

from ranvier.store.migrate import Migration, check_known


class SchemaGuard:
    """The schema with which a process began."""

    def __init__(self, known: Sequence[Migration]) -> None:
        """`known`: the migrations of this program, all of which the database has."""
        self._known = known
        self._count = len(known)

    def check(self, count: int, list_applied: Callable[[], Sequence[tuple[int, str]]]) -> None:
        """`count`: the migrations that the database has now; `list_applied`: which. Raises: SchemaTooNew."""
        if count != self._count:
            check_known(list_applied(), self._known)
