"""What a user kept about a room follows to the room that replaces it: tags, m.direct, the room's push rule.

Spec: client-server API, "Room upgrades", "Server behaviour".
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import InvalidParam
from ranvier.core.identifiers import RoomID
from ranvier.core.push.edit import find_rule, put_rule
from ranvier.core.push.rules import RuleKind, decode_user_rules, encode_user_rules
from ranvier.core.push.ruleset import list_quiet_rooms
from ranvier.store.database import Database, WriteTxn
from ranvier.store.tables import account_data, memberships, push_rules, rooms
from ranvier.store.tables.account_data import GLOBAL
from ranvier.store.tables.notifications import change_quiet_rooms
from ranvier.store.tables.rooms import Room

_TAGS: Final = "m.tag"
_DIRECT: Final = "m.direct"


class Successions:
    """Leads the users of this server on when somebody closes a room by hand, as `Upgrading` does by itself."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def close(self, room_id: RoomID, tombstone: JsonObject) -> None:
        """Let those follow who are in the successor before its predecessor says so; others do when they join."""
        successor_id = tombstone.get("replacement_room")
        if isinstance(successor_id, str):
            await self._db.write(_follow_all, room_id, RoomID(successor_id))


def _follow_all(txn: WriteTxn, predecessor_id: RoomID, successor_id: RoomID) -> None:
    known = rooms.list_rooms_by_id(txn, (predecessor_id, successor_id))
    if len(known) < 2:
        return
    successor = known[successor_id]
    summary = rooms.list_summaries(txn, (successor.room_nid,)).get(successor.room_nid)
    # Only the rooms themselves together say that one follows the other: anybody can name a successor.
    if summary is not None and summary.predecessor_room_id == predecessor_id:
        for user_nid in memberships.list_local_members(txn, successor.room_nid):
            follow(txn, user_nid, known[predecessor_id], successor)


def follow(txn: WriteTxn, user_nid: int, predecessor: Room, successor: Room) -> None:
    """Copy what the user kept about the old room, where nothing is kept about the new one yet."""
    _copy_tags(txn, user_nid, predecessor, successor)
    _copy_direct(txn, user_nid, predecessor, successor)
    _copy_push_rule(txn, user_nid, predecessor, successor)


def _copy_tags(txn: WriteTxn, user_nid: int, predecessor: Room, successor: Room) -> None:
    tags = account_data.find_account_data(txn, user_nid, predecessor.room_nid, _TAGS)
    if tags is None or account_data.find_account_data(txn, user_nid, successor.room_nid, _TAGS) is not None:
        return
    account_data.set_account_data(txn, user_nid, successor.room_nid, _TAGS, tags)


def _copy_direct(txn: WriteTxn, user_nid: int, predecessor: Room, successor: Room) -> None:
    stored = account_data.find_account_data(txn, user_nid, GLOBAL, _DIRECT)
    direct: Mapping[str, Any] = {} if stored is None else msgspec.json.decode(stored)
    changed = {
        user_id: [*room_ids, successor.room_id]
        for user_id, room_ids in direct.items()
        if isinstance(room_ids, list)
        and predecessor.room_id in room_ids
        and successor.room_id not in room_ids
    }
    if changed:
        content = msgspec.json.encode({**direct, **changed})
        account_data.set_account_data(txn, user_nid, GLOBAL, _DIRECT, content)


def _copy_push_rule(txn: WriteTxn, user_nid: int, predecessor: Room, successor: Room) -> None:
    stored = push_rules.find_push_rules(txn, user_nid)
    if stored is None:
        return
    rules = decode_user_rules(stored.changes)
    found = find_rule(rules, RuleKind.ROOM, predecessor.room_id)
    if found is None or find_rule(rules, RuleKind.ROOM, successor.room_id) is not None:
        return
    try:
        changed = put_rule(rules, RuleKind.ROOM, msgspec.structs.replace(found[0], rule_id=successor.room_id))
    except InvalidParam:
        return  # no room for one more rule: the new room notifies as rooms do
    position = push_rules.set_push_rules(txn, user_nid, encode_user_rules(changed), stored.position)
    change_quiet_rooms(txn, user_nid, list_quiet_rooms(rules), list_quiet_rooms(changed), position)
