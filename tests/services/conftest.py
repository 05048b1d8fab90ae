"""Databases of both engines, as the tests of the store have them."""

from ..store.conftest import (
    database_url,
    db,
    engine,
    open_another,
    postgres_database,
    postgres_server,
)

__all__ = ["database_url", "db", "engine", "open_another", "postgres_database", "postgres_server"]
