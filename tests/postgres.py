"""Databases on the PostgreSQL server of the tests.

Homeservers in the process of a test use SQLite; with RANVIER_TEST_ENGINE=postgres (`make test-postgres`) they use
PostgreSQL instead.
"""

import os
import secrets
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

import psycopg
import pytest

from ranvier.store import open_postgres
from ranvier.store.migrate_postgres import migrate_postgres


class PostgresDatabase:
    """A database that is made as new between tests: making one takes half a second."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._name = f"test_{os.getpid()}_{secrets.token_hex(4)}"
        self.url = urlsplit(server)._replace(path=f"/{self._name}").geturl()

    def __enter__(self) -> Self:
        with psycopg.connect(self._server, autocommit=True) as conn:
            conn.execute(f"CREATE DATABASE {self._name} TEMPLATE template0 ENCODING 'UTF8'")
        self._conn = psycopg.connect(self.url, autocommit=True)
        migrate_postgres(self._conn)
        self._tables = self._list_tables()
        self._rows = {table: self._read(table) for table in self._filled()}
        return self

    def __exit__(self, *_: object) -> None:
        self._conn.close()
        with psycopg.connect(self._server, autocommit=True) as conn:
            conn.execute(f"DROP DATABASE {self._name} WITH (FORCE)")

    def reset(self) -> None:
        conn = self._conn
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        for table in self._list_tables() - self._tables:
            conn.execute(f"DROP TABLE {table} CASCADE")
        with conn.transaction():
            # Without foreign keys, so in any order. (TRUNCATE makes new files: a third of a second.)
            conn.execute("SET LOCAL session_replication_role = replica")
            for table in {*self._filled(), *self._rows}:
                rows = self._rows.get(table, [])
                if rows and self._read(table) == rows:
                    continue  # such as the list of migrations
                conn.execute(f"DELETE FROM {table}")
                for row in rows:
                    conn.execute(f"INSERT INTO {table} VALUES ({', '.join(['%s'] * len(row))})", row)
            used = conn.execute(
                "SELECT sequencename FROM pg_sequences WHERE last_value IS NOT NULL"
            ).fetchall()
            for (sequence,) in used:
                conn.execute(f"ALTER SEQUENCE {sequence} RESTART")

    def _list_tables(self) -> set[str]:
        return {
            name
            for (name,) in self._conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        }

    def _read(self, table: str) -> list[tuple[object, ...]]:
        return self._conn.execute(f"SELECT * FROM {table}").fetchall()

    def _filled(self) -> list[str]:
        asked = (f"SELECT '{table}' WHERE EXISTS (SELECT 1 FROM {table})" for table in sorted(self._tables))
        return [name for (name,) in self._conn.execute(" UNION ALL ".join(asked))]


class PostgresPool:
    """For each directory of data a database of its own, until the end of the test."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._stack = ExitStack()
        self._free: list[PostgresDatabase] = []
        self._taken: dict[Path, PostgresDatabase] = {}

    def url_of(self, data_dir: Path) -> str:
        """The same for the same directory: a homeserver that starts again finds what it wrote. Nobody uses that of a
        directory that is gone."""
        for gone in [one for one in self._taken if not one.exists()]:
            self._give_back(gone)
        data_dir.mkdir(parents=True, exist_ok=True)
        if data_dir not in self._taken:
            database = self._free.pop() if self._free else self._stack.enter_context(self._new())
            self._taken[data_dir] = database
        return self._taken[data_dir].url

    def end_test(self) -> None:
        """Nobody uses the databases any more."""
        for data_dir in list(self._taken):
            self._give_back(data_dir)

    def close(self) -> None:
        self._stack.close()

    def _give_back(self, data_dir: Path) -> None:
        database = self._taken.pop(data_dir)
        database.reset()
        self._free.append(database)

    def _new(self) -> PostgresDatabase:
        return PostgresDatabase(self._server)


def _pool() -> PostgresPool | None:
    if os.environ.get("RANVIER_TEST_ENGINE") != "postgres":
        return None
    server = os.environ.get("RANVIER_TEST_POSTGRES")
    assert server, "RANVIER_TEST_ENGINE=postgres needs a server: scripts/with-postgres starts one"
    # A connection costs the server up to thirty milliseconds, until it knows all tables.
    pytest.MonkeyPatch().setattr(open_postgres, "POSTGRES_READERS", 2)
    return PostgresPool(server)


POOL: Final = _pool()
"""For the homeservers of this process; None: they use SQLite."""
