"""The room in which the server talks to a user.

Table: notice_rooms. Owner: services.administration.notices. Growth: one row a user who was ever told anything.
"""

from typing import Final

from ranvier.core.identifiers import RoomID
from ranvier.store.database import ReadTxn, WriteTxn

_FIND: Final = """
    SELECT r.room_id FROM notice_rooms n JOIN rooms r ON r.room_nid = n.room_nid WHERE n.user_nid = :user_nid
"""
# Who closes the account leaves all rooms.
_IS_INVITE: Final = """
    SELECT 1 FROM notice_rooms n JOIN rooms r ON r.room_nid = n.room_nid
        JOIN memberships m ON m.room_nid = n.room_nid AND m.user_nid = n.user_nid AND m.membership = 'invite'
        JOIN accounts a ON a.user_nid = n.user_nid AND a.deactivated_ms IS NULL
    WHERE n.user_nid = :user_nid AND r.room_id = :room_id
"""
_SET: Final = """
    INSERT INTO notice_rooms (user_nid, room_nid) VALUES (:user_nid, :room_nid)
    ON CONFLICT (user_nid) DO UPDATE SET room_nid = excluded.room_nid
"""


def find_notice_room(txn: ReadTxn, user_nid: int) -> RoomID | None:
    value: RoomID | None = txn.value(_FIND, user_nid=user_nid)
    return value


def is_notice_invite(txn: ReadTxn, user_nid: int, room_id: RoomID) -> bool:
    """Whether the server has invited the user to the room in which it talks to them."""
    return txn.value(_IS_INVITE, user_nid=user_nid, room_id=room_id) is not None


def set_notice_room(txn: WriteTxn, user_nid: int, room_nid: int) -> None:
    txn.execute(_SET, user_nid=user_nid, room_nid=room_nid)
