"""Account data, global and per room (tags, m.direct and m.fully_read are account data too), and who ignores
whom.

Tables: account_data, ignored_users. Owner: services.accounts. Growth: one row a user, room and type.
Index -> query: primary key -> get; by_position -> sync; ignored_users primary key -> who ignores a sender.

A deletion leaves a row without content, which tells clients of it; an initial sync does not show it.

Spec: client-server API, "Client Config"; deletion: MSC3391.
"""

from collections.abc import Collection
from typing import Final

import msgspec

from ranvier.store.database import Kind, ReadTxn, WriteTxn
from ranvier.store.tables.batches import in_batches

GLOBAL: Final = 0
"""As `room_nid`: account data of no room."""


class AccountData(msgspec.Struct, frozen=True):
    room_nid: int  # or GLOBAL
    type: str
    content: bytes | None  # JSON; None: deleted
    position: int


_SET: Final = """
    INSERT INTO account_data (user_nid, room_nid, type, content, position)
    VALUES (:user_nid, :room_nid, :type, :content, :position)
    ON CONFLICT (user_nid, room_nid, type) DO UPDATE SET content = excluded.content, position =
        excluded.position
"""
_FIND: Final = """
    SELECT content FROM account_data WHERE user_nid = :user_nid AND room_nid = :room_nid AND type = :type
"""
_FIND_OF_USERS: Final = """
    SELECT user_nid, content FROM account_data
    WHERE user_nid IN (:user_nids[]) AND room_nid = :room_nid AND type = :type AND content IS NOT NULL
"""
_LIST: Final = """
    SELECT room_nid, type, content, position FROM account_data
    WHERE user_nid = :user_nid AND position <= :up_to AND content IS NOT NULL ORDER BY position
"""
_LIST_OF_ROOMS: Final = """
    SELECT room_nid, type, content, position FROM account_data
    WHERE user_nid = :user_nid AND room_nid IN (:room_nids[]) AND content IS NOT NULL ORDER BY position
"""
_CHANGES: Final = """
    SELECT room_nid, type, content, position FROM account_data
    WHERE user_nid = :user_nid AND position > :since AND position <= :up_to ORDER BY position
"""
_DELETE_OF_USER: Final = "DELETE FROM account_data WHERE user_nid = :user_nid"
_DELETE_OF_ROOM: Final = "DELETE FROM account_data WHERE user_nid = :user_nid AND room_nid = :room_nid"
_UNIGNORE_ALL: Final = "DELETE FROM ignored_users WHERE user_nid = :user_nid"
_IGNORE: Final = "INSERT INTO ignored_users (ignored_nid, user_nid) VALUES (:ignored_nid, :user_nid)"
_IGNORED_BY: Final = "SELECT user_nid, ignored_nid FROM ignored_users WHERE user_nid IN (:user_nids[])"
_IGNORED: Final = "SELECT ignored_nid FROM ignored_users WHERE user_nid = :user_nid"


def set_account_data(txn: WriteTxn, user_nid: int, room_nid: int, type_: str, content: bytes) -> int:
    """Store an object (JSON) under its type; the position."""
    return _set(txn, user_nid, room_nid, type_, content)


def delete_account_data(txn: WriteTxn, user_nid: int, room_nid: int, type_: str) -> bool:
    """Delete what is there, leaving a mark for clients; False if nothing is."""
    if txn.value(_FIND, user_nid=user_nid, room_nid=room_nid, type=type_) is None:
        return False
    _set(txn, user_nid, room_nid, type_, None)
    return True


def find_account_data(txn: ReadTxn, user_nid: int, room_nid: int, type_: str) -> bytes | None:
    value: bytes | None = txn.value(_FIND, user_nid=user_nid, room_nid=room_nid, type=type_)
    return value


def list_account_data_of_users(
    txn: ReadTxn, user_nids: Collection[int], room_nid: int, type_: str
) -> dict[int, bytes]:
    """One type of several users: user_nid -> content, of those who have it."""
    return {
        user_nid: content
        for batch in in_batches(list(user_nids))
        for user_nid, content in txn.all(_FIND_OF_USERS, user_nids=batch, room_nid=room_nid, type=type_)
    }


def list_account_data(txn: ReadTxn, user_nid: int, up_to: int) -> list[AccountData]:
    """Everything there is, global and of all rooms, for an initial sync."""
    return [AccountData(*row) for row in txn.all(_LIST, user_nid=user_nid, up_to=up_to)]


def list_account_data_of_rooms(txn: ReadTxn, user_nid: int, room_nids: Collection[int]) -> list[AccountData]:
    """What there is of these rooms (or of GLOBAL), for rooms that a client sees for the first time."""
    return [
        AccountData(*row)
        for batch in in_batches(list(room_nids))
        for row in txn.all(_LIST_OF_ROOMS, user_nid=user_nid, room_nids=batch)
    ]


def list_account_data_changes(txn: ReadTxn, user_nid: int, since: int, up_to: int) -> list[AccountData]:
    """What changed in (since, up_to], deletions included, oldest first."""
    return [AccountData(*row) for row in txn.all(_CHANGES, user_nid=user_nid, since=since, up_to=up_to)]


def delete_account_data_of_room(txn: WriteTxn, user_nid: int, room_nid: int) -> None:
    """The user forgot the room. Nothing tells clients, which forget it with the room."""
    txn.execute(_DELETE_OF_ROOM, user_nid=user_nid, room_nid=room_nid)


def delete_account_data_of_user(txn: WriteTxn, user_nid: int) -> None:
    """The account is closed: drop its data and whom it ignored."""
    txn.execute(_DELETE_OF_USER, user_nid=user_nid)
    txn.execute(_UNIGNORE_ALL, user_nid=user_nid)


def set_ignored_users(txn: WriteTxn, user_nid: int, ignored_nids: Collection[int]) -> None:
    """What m.ignored_user_list says, in the transaction that stores it."""
    txn.execute(_UNIGNORE_ALL, user_nid=user_nid)
    rows = [{"ignored_nid": nid, "user_nid": user_nid} for nid in sorted(set(ignored_nids))]
    txn.execute_many(_IGNORE, rows)
    txn.hint(Kind.PUSH, user_nid)


def list_ignored(txn: ReadTxn, user_nid: int) -> set[int]:
    return {ignored_nid for (ignored_nid,) in txn.all(_IGNORED, user_nid=user_nid)}


def list_ignored_by(txn: ReadTxn, user_nids: Collection[int]) -> dict[int, list[int]]:
    """user_nid -> whom the user ignores; users who ignore nobody are left out."""
    found: dict[int, list[int]] = {}
    for batch in in_batches(list(user_nids)):
        for user_nid, ignored_nid in txn.all(_IGNORED_BY, user_nids=batch):
            found.setdefault(user_nid, []).append(ignored_nid)
    return found


def _set(txn: WriteTxn, user_nid: int, room_nid: int, type_: str, content: bytes | None) -> int:
    position = txn.next_position()
    txn.execute(_SET, user_nid=user_nid, room_nid=room_nid, type=type_, content=content, position=position)
    txn.hint(Kind.USER, user_nid)
    return position
