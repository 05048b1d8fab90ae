"""Locking and suspending accounts.

Spec: client-server API, "Account moderation" and "Server administration".
"""

from ranvier.core.errors import Forbidden, InvalidParam, NotFound
from ranvier.core.identifiers import ServerName, UserID, server_of
from ranvier.services.requester import Requester
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables.accounts import (
    Account,
    AccountKind,
    find_account_by_id,
    set_locked,
    set_suspended,
)


class Moderation:
    """What administrators do to accounts. The caller has checked that an administrator asks.

    All raise: InvalidParam (a user of another server), NotFound (no such account, or deactivated), Forbidden
    (an administrator's account).
    """

    def __init__(self, server_name: ServerName, db: Database) -> None:
        self._server_name = server_name
        self._db = db

    async def is_locked(self, requester: Requester, user_id: UserID) -> bool:
        return (await self._get(requester, user_id)).is_locked

    async def is_suspended(self, requester: Requester, user_id: UserID) -> bool:
        return (await self._get(requester, user_id)).is_suspended

    async def lock(self, requester: Requester, user_id: UserID, *, is_locked: bool) -> None:
        """Lock or unlock. Raises: Forbidden for one's own account, too."""
        self._check_target(requester, user_id)
        await self._db.write(_lock, requester, user_id, is_locked)

    async def suspend(self, requester: Requester, user_id: UserID, *, is_suspended: bool) -> None:
        """Suspend, or end that. Raises: Forbidden for one's own account, too."""
        self._check_target(requester, user_id)
        await self._db.write(_suspend, requester, user_id, is_suspended)

    async def _get(self, requester: Requester, user_id: UserID) -> Account:
        self._check_local(user_id)
        return await self._db.read(_get_moderated, requester, user_id)

    def _check_local(self, user_id: UserID) -> None:
        if server_of(user_id) != self._server_name:
            raise InvalidParam("This user belongs to another server.")

    def _check_target(self, requester: Requester, user_id: UserID) -> None:
        self._check_local(user_id)
        if requester.user_id == user_id:
            raise Forbidden("This is your own account.")


def _get_moderated(txn: ReadTxn, requester: Requester, user_id: UserID) -> Account:
    account = find_account_by_id(txn, user_id)
    if account is None or account.deactivated_ms is not None:
        raise NotFound("There is no such user.")
    if account.kind is AccountKind.ADMIN and user_id != requester.user_id:
        raise Forbidden("This user is an administrator, too.")
    return account


def _lock(txn: WriteTxn, requester: Requester, user_id: UserID, is_locked: bool) -> None:
    set_locked(txn, _get_moderated(txn, requester, user_id).user_nid, is_locked=is_locked)


def _suspend(txn: WriteTxn, requester: Requester, user_id: UserID, is_suspended: bool) -> None:
    set_suspended(txn, _get_moderated(txn, requester, user_id).user_nid, is_suspended=is_suspended)
