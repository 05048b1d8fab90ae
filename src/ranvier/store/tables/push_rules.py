"""How users' push rules differ from the default ones: one document a user.

Table: push_rules. Owner: services.push. Growth: one row a user who changed a rule.

Rules are few, always evaluated and shown together, and their order matters, so they are one document,
replaced whole.
A writer says on which version it builds; if another one came first it gets Conflict and does it again.

Spec: client-server API, "Push Rules: API".
"""

from collections.abc import Collection
from typing import Final

import msgspec

from ranvier.store.database import Conflict, Kind, ReadTxn, WriteTxn
from ranvier.store.tables.batches import in_batches


class PushRuleChanges(msgspec.Struct, frozen=True):
    changes: bytes  # JSON, the form is that of core.push
    position: int


_FIND: Final = "SELECT changes, position FROM push_rules WHERE user_nid = :user_nid"
_LIST: Final = "SELECT user_nid, changes, position FROM push_rules WHERE user_nid IN (:user_nids[])"
_INSERT: Final = """
    INSERT INTO push_rules (user_nid, changes, position) VALUES (:user_nid, :changes, :position)
    ON CONFLICT (user_nid) DO NOTHING
"""
_UPDATE: Final = """
    UPDATE push_rules SET changes = :changes, position = :position
    WHERE user_nid = :user_nid AND position = :built_on
"""


def find_push_rules(txn: ReadTxn, user_nid: int) -> PushRuleChanges | None:
    """None: the user has the default rules."""
    row = txn.first(_FIND, user_nid=user_nid)
    return None if row is None else PushRuleChanges(*row)


def list_push_rules(txn: ReadTxn, user_nids: Collection[int]) -> dict[int, PushRuleChanges]:
    """user_nid -> changes; users who have the default rules are left out."""
    return {
        user_nid: PushRuleChanges(changes, position)
        for batch in in_batches(list(user_nids))
        for user_nid, changes, position in txn.all(_LIST, user_nids=batch)
    }


def set_push_rules(txn: WriteTxn, user_nid: int, changes: bytes, built_on: int | None) -> int:
    """Replace the document; the position. `built_on`: position of the one that was read, None if there was
    none.

    Raises: Conflict when it is not the newest.
    """
    position = txn.next_position()
    if built_on is None:
        changed = txn.execute(_INSERT, user_nid=user_nid, changes=changes, position=position)
    else:
        changed = txn.execute(
            _UPDATE, user_nid=user_nid, changes=changes, position=position, built_on=built_on
        )
    if not changed:
        raise Conflict(f"the push rules of user {user_nid} changed meanwhile")
    txn.hint(Kind.USER, user_nid)
    txn.hint(Kind.PUSH, user_nid)
    return position
