"""Whether the database answers."""

from ranvier.store.database import ReadTxn


def probe(txn: ReadTxn) -> None:
    """Ask the least that can be asked. Raises: StoreFault."""
    txn.value("SELECT 1")


def find_engine_version(txn: ReadTxn) -> str:
    """The database's name and version, as "SQLite 3.45.1". Raises: StoreFault."""
    return str(txn.value("SELECT {engine_version}"))
