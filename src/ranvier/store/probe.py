"""Whether the database answers."""

from ranvier.store.database import ReadTxn


def probe(txn: ReadTxn) -> None:
    """Ask the least that can be asked. Raises: StoreFault."""
    txn.value("SELECT 1")
