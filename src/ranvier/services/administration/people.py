"""The users and rooms that an administrator names."""

from ranvier.core.errors import InvalidParam, NotFound
from ranvier.core.identifiers import RoomID, ServerName, UserID, server_of
from ranvier.services.requester import Requester
from ranvier.store.database import ReadTxn
from ranvier.store.tables.accounts import Account, find_account_by_id
from ranvier.store.tables.rooms import Room, find_room


def check_local(user_id: UserID, server_name: ServerName) -> None:
    """Raises: InvalidParam."""
    if server_of(user_id) != server_name:
        raise InvalidParam("This user belongs to another server.")


def get_account(txn: ReadTxn, user_id: UserID) -> Account:
    """An account of this server. Raises: NotFound."""
    account = find_account_by_id(txn, user_id)
    if account is None:
        raise NotFound("There is no such user.")
    return account


def get_room(txn: ReadTxn, room_id: RoomID) -> Room:
    """A room of which more than the name is here. Raises: NotFound."""
    room = find_room(txn, room_id)
    if room is None or not (room.state_root or room.joined_count or room.invited_count):
        raise NotFound("This server does not know this room.")
    return room


def act_as(account: Account) -> Requester:
    """A user of this server in whose name an administrator acts: nothing that is held against the account counts."""
    return Requester(user_id=account.user_id, user_nid=account.user_nid, device_id=None)
