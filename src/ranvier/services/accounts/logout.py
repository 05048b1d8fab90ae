"""Logging out. Spec: client-server API, "Logout"."""

from ranvier.services.requester import Requester
from ranvier.store.database import Database, WriteTxn
from ranvier.store.tables.devices import delete_devices, find_device, list_devices
from ranvier.store.tables.passing_tokens import delete_passing_tokens_of_user
from ranvier.store.tables.tokens import delete_token, delete_tokens_issued_by, delete_tokens_of_user


class Logout:
    """Ends sessions: the device goes with its token."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def this_session(self, requester: Requester) -> None:
        await self._db.write(_end, requester)

    async def all_sessions(self, requester: Requester) -> None:
        await self._db.write(end_all_sessions, requester.user_nid)


def _end(txn: WriteTxn, requester: Requester) -> None:
    if requester.device_id is not None:
        device = find_device(txn, requester.user_nid, requester.device_id)
        delete_devices(txn, [] if device is None else [device])
    if requester.token_nid is not None:
        delete_token(txn, requester.token_nid)


def end_all_sessions(txn: WriteTxn, user_nid: int) -> None:
    """Delete every device and every token of a user, those with which the user acts as others included, and what
    sessions might still come of; sign out browsers, too.
    """
    delete_devices(txn, list_devices(txn, user_nid))
    delete_tokens_of_user(txn, user_nid)
    delete_tokens_issued_by(txn, user_nid)
    delete_passing_tokens_of_user(txn, user_nid)
