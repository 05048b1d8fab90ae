"""How far those have come that follow all changes and keep something derived from them.

Table: followers. Growth: one row a follower.
"""

from typing import Final

from ranvier.store.database import Conflict, ReadTxn, WriteTxn

_FIND: Final = "SELECT position FROM followers WHERE name = :name"
_INSERT: Final = """
    INSERT INTO followers (name, position) VALUES (:name, :position) ON CONFLICT (name) DO NOTHING
"""
_MOVE: Final = "UPDATE followers SET position = :position WHERE name = :name AND position = :known"

NOT_BEGUN: Final = 0


def find_follower(txn: ReadTxn, name: str) -> int:
    """The position up to which a follower has dealt with everything; NOT_BEGUN if it has not begun."""
    value = txn.value(_FIND, name=name)
    return NOT_BEGUN if value is None else int(value)


def move_follower(txn: WriteTxn, name: str, known: int, position: int) -> None:
    """Note, in the transaction that writes what was derived, that everything up to `position` is dealt with.

    Raises: Conflict when another process has done it; nothing of this transaction counts then.
    """
    if position < known:
        raise Conflict(f"{name} is further than this process sees")
    if known == NOT_BEGUN:
        txn.execute(_INSERT, name=name, position=NOT_BEGUN)
    if not txn.execute(_MOVE, name=name, known=known, position=position):
        raise Conflict(f"{name} is no longer at {known}")
