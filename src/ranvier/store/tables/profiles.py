"""Profiles of users, local ones and what is remembered of remote ones.

Tables: profile_fields, profile_versions. Owner: services.accounts. Growth: one row a field; one a user that
has changed.
Index -> query: primary key -> get; versions_by_position -> whose profile changed since P.

A change moves the user's one version; who follows profiles then reads the whole profile, which is bounded
(64 KiB), so that a deleted field needs no mark.

Spec: client-server API, "Profiles" (v1.16: custom fields).
"""

from collections.abc import Collection
from typing import Final

from ranvier.store.database import Kind, ReadTxn, WriteTxn
from ranvier.store.tables.batches import in_batches

_LIST: Final = "SELECT field, value FROM profile_fields WHERE user_nid = :user_nid ORDER BY field"
_LIST_OF_USERS: Final = """
    SELECT user_nid, field, value FROM profile_fields WHERE user_nid IN (:user_nids[]) ORDER BY user_nid,
        field
"""
_FIND: Final = "SELECT value FROM profile_fields WHERE user_nid = :user_nid AND field = :field"
_SET: Final = """
    INSERT INTO profile_fields (user_nid, field, value) VALUES (:user_nid, :field, :value)
    ON CONFLICT (user_nid, field) DO UPDATE SET value = excluded.value
"""
_DELETE: Final = "DELETE FROM profile_fields WHERE user_nid = :user_nid AND field = :field"
_DELETE_ALL: Final = "DELETE FROM profile_fields WHERE user_nid = :user_nid"
_SET_VERSION: Final = """
    INSERT INTO profile_versions (user_nid, position) VALUES (:user_nid, :position)
    ON CONFLICT (user_nid) DO UPDATE SET position = excluded.position
"""
_CHANGED: Final = """
    SELECT user_nid FROM profile_versions WHERE position > :since AND position <= :up_to ORDER BY position
"""


def find_profile(txn: ReadTxn, user_nid: int) -> dict[str, bytes]:
    """field -> value (JSON); empty if there is none."""
    return dict(txn.all(_LIST, user_nid=user_nid))


def list_profiles(txn: ReadTxn, user_nids: Collection[int]) -> dict[int, dict[str, bytes]]:
    """user_nid -> profile. Every user asked for has an entry."""
    found: dict[int, dict[str, bytes]] = {nid: {} for nid in user_nids}
    for batch in in_batches(list(found)):
        for user_nid, field, value in txn.all(_LIST_OF_USERS, user_nids=batch):
            found[user_nid][field] = value
    return found


def set_profile_field(txn: WriteTxn, user_nid: int, field: str, value: bytes) -> bool:
    """Store a field (JSON); False if it has this very value. Sizes are the caller's to check, in this
    transaction.
    """
    if txn.value(_FIND, user_nid=user_nid, field=field) == value:
        return False
    txn.execute(_SET, user_nid=user_nid, field=field, value=value)
    _changed(txn, user_nid)
    return True


def delete_profile_field(txn: WriteTxn, user_nid: int, field: str) -> bool:
    """False if there is none."""
    if not txn.execute(_DELETE, user_nid=user_nid, field=field):
        return False
    _changed(txn, user_nid)
    return True


def replace_profile(txn: WriteTxn, user_nid: int, fields: dict[str, bytes]) -> None:
    """Store a whole profile: of a remote user as its server gave it, or none for an account that is closed."""
    if find_profile(txn, user_nid) == fields:
        return
    txn.execute(_DELETE_ALL, user_nid=user_nid)
    rows = [{"user_nid": user_nid, "field": field, "value": value} for field, value in fields.items()]
    txn.execute_many(_SET, rows)
    _changed(txn, user_nid)


def list_changed_profiles(txn: ReadTxn, since: int, up_to: int) -> list[int]:
    """Users whose profile changed last in (since, up_to], oldest first."""
    return [user_nid for (user_nid,) in txn.all(_CHANGED, since=since, up_to=up_to)]


def _changed(txn: WriteTxn, user_nid: int) -> None:
    txn.execute(_SET_VERSION, user_nid=user_nid, position=txn.next_position())
    txn.hint(Kind.USER, user_nid)
