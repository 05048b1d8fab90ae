"""Reads what users say of who may invite them."""

from collections.abc import Collection

from ranvier.core.canonical_json import JsonObject, parse_object
from ranvier.core.invite_permission import (
    ALLOW_ALL,
    TYPES,
    InvitePermission,
    Verdict,
    parse_invite_permission,
)
from ranvier.store.database import ReadTxn
from ranvier.store.tables import account_data
from ranvier.store.tables.interned import Interner, list_user_ids


def read_invite_permissions(txn: ReadTxn, user_nids: Collection[int]) -> dict[int, InvitePermission]:
    """Of users with such a wish (by user_nid). Cost: 2 queries."""
    said: dict[int, dict[str, JsonObject]] = {}
    for type_ in TYPES:
        found = account_data.list_account_data_of_users(txn, user_nids, account_data.GLOBAL, type_)
        for user_nid, content in found.items():
            said.setdefault(user_nid, {})[type_] = parse_object(content)
    return {user_nid: parse_invite_permission(contents) for user_nid, contents in said.items()}


def read_invite_permission(txn: ReadTxn, user_nid: int) -> InvitePermission:
    """Of one user. Cost: 2 queries."""
    return read_invite_permissions(txn, (user_nid,)).get(user_nid, ALLOW_ALL)


def list_unwanted(txn: ReadTxn, interner: Interner, user_nid: int, sender_nids: Collection[int]) -> set[int]:
    """Of whose invites the user wants to see nothing. Cost: 2 queries, or 3.

    Spec: "Invite permission": such events "MUST NOT be served over client synchronisation endpoints".
    """
    permission = read_invite_permission(txn, user_nid)
    if permission is ALLOW_ALL:
        return set()
    senders = list_user_ids(txn, interner, set(sender_nids))
    return {nid for nid, sender in senders.items() if permission.decide(sender) is not Verdict.ALLOW}
