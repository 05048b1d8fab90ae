"""Push rules as users see and change them. What they mean for events: `effects`.

Spec: client-server API, "Push Rules: API".
"""

from collections.abc import Callable
from typing import Final

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import ServerFault
from ranvier.core.identifiers import UserID
from ranvier.core.push.client_form import build_push_rule, build_push_rules
from ranvier.core.push.edit import get_rule
from ranvier.core.push.rules import RuleKind, UserRules, decode_user_rules, encode_user_rules
from ranvier.core.push.ruleset import list_quiet_rooms
from ranvier.services.requester import Requester
from ranvier.store.database import Conflict, Database, ReadTxn, WriteTxn
from ranvier.store.tables.notifications import change_quiet_rooms
from ranvier.store.tables.push_rules import PushRuleChanges, find_push_rules, set_push_rules

MAX_ATTEMPTS: Final = 10

Edit = Callable[[UserRules], UserRules]
"""A change, from `core.push.edit`; it may run more than once."""


class PushRules:
    """The rules of users."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def all_rules(self, requester: Requester) -> JsonObject:
        """`{"global": …}`."""
        rules = await self._db.read(_read, requester.user_nid)
        return build_push_rules(rules, requester.user_id)

    async def rule(self, requester: Requester, kind: RuleKind, rule_id: str) -> JsonObject:
        """One rule, own or default. Raises: NotFound."""
        rules = await self._db.read(_read, requester.user_nid)
        found, is_default = get_rule(rules, kind, rule_id)
        return build_push_rule(kind, found, requester.user_id, is_default=is_default)

    async def change(self, requester: Requester, edit: Edit) -> None:
        """Apply a change to the user's rules. Raises: what `edit` raises."""
        for _ in range(MAX_ATTEMPTS):
            try:
                await self._db.write(_change, requester.user_nid, edit)
            except Conflict:
                continue
            return
        raise ServerFault("the push rules change too fast")


def read_push_rules(txn: ReadTxn, user_nid: int, user_id: UserID, since: int = 0) -> bytes | None:
    """The content of the user's m.push_rules (JSON) if it changed after the position `since`, else None.

    With `since` 0 there always is one: who changed nothing has the default rules.
    """
    stored = find_push_rules(txn, user_nid)
    if since and (stored is None or stored.position <= since):
        return None
    return msgspec.json.encode(build_push_rules(_decode(stored), user_id))


def follow_threads(txn: WriteTxn, user_nid: int) -> None:
    """From now on, threads notify the user by subscription. Raises: Conflict. Spec: MSC4306."""
    _change(txn, user_nid, _follow_threads)


def _follow_threads(rules: UserRules) -> UserRules:
    return msgspec.structs.replace(rules, follows_threads=True)


def _read(txn: ReadTxn, user_nid: int) -> UserRules:
    return _decode(find_push_rules(txn, user_nid))


def _decode(stored: PushRuleChanges | None) -> UserRules:
    return UserRules() if stored is None else decode_user_rules(stored.changes)


def _change(txn: WriteTxn, user_nid: int, edit: Edit) -> None:
    stored = find_push_rules(txn, user_nid)
    before = _decode(stored)
    after = edit(before)
    if after != before:
        built_on = None if stored is None else stored.position
        position = set_push_rules(txn, user_nid, encode_user_rules(after), built_on)
        change_quiet_rooms(txn, user_nid, list_quiet_rooms(before), list_quiet_rooms(after), position)
