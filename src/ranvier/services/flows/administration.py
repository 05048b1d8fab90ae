"""What the administrator does to accounts from the command line.

Each function is one transaction on an open database; the server may run meanwhile.
"""

from collections.abc import AsyncIterator
from typing import Final

from ranvier.core.errors import NotFound
from ranvier.core.identifiers import ServerName, UserID
from ranvier.io.clock import Clock
from ranvier.services.accounts.creation import AccountCreation, NewAccount, new_user_id
from ranvier.services.accounts.password_change import set_password
from ranvier.services.accounts.passwords import Passwords
from ranvier.services.flows.deactivation import close_account
from ranvier.store.database import Database, WriteTxn
from ranvier.store.tables.accounts import (
    Account,
    AccountKind,
    find_account_by_id,
    list_accounts,
    set_kind,
)

PAGE: Final = 500


class Administration:
    """Accounts, seen from the machine's own side."""

    def __init__(
        self,
        server_name: ServerName,
        db: Database,
        clock: Clock,
        creation: AccountCreation,
        passwords: Passwords,
    ) -> None:
        self._server_name = server_name
        self._db = db
        self._clock = clock
        self._creation = creation
        self._passwords = passwords

    async def add(self, username: str, password: str, *, is_admin: bool) -> UserID:
        """Make an account. Raises: UserInUse, InvalidUsername, WeakPassword, InvalidParam."""
        user_id = new_user_id(username, self._server_name)
        self._passwords.check_new(password)
        kind = AccountKind.ADMIN if is_admin else AccountKind.USER
        password_hash = await self._passwords.hash(password)
        await self._creation.create(NewAccount(user_id=user_id, kind=kind, password_hash=password_hash), None)
        return user_id

    async def list(self) -> AsyncIterator[Account]:
        """Every account, deactivated ones included, in the order of registration."""
        after = 0
        while page := await self._db.read(list_accounts, after, PAGE):
            for account in page:
                yield account
            after = page[-1].user_nid

    async def reset_password(self, username: str, password: str) -> UserID:
        """Set a password and end all sessions. Raises: NotFound, WeakPassword, Forbidden (deactivated)."""
        self._passwords.check_new(password)
        user_id = await self._find(username)
        password_hash = await self._passwords.hash(password)
        await self._db.write(set_password, user_id, password_hash, keep_device=None, logout_devices=True)
        return user_id

    async def promote(self, username: str, *, is_admin: bool) -> UserID:
        """Make somebody an administrator, or one no longer. Raises: NotFound."""
        user_id = await self._find(username)
        await self._db.write(_set_kind, user_id, AccountKind.ADMIN if is_admin else AccountKind.USER)
        return user_id

    async def deactivate(self, username: str, *, erase: bool) -> UserID:
        """Close an account; a running server leaves its rooms, or the next one that starts. Raises: NotFound."""
        user_id = await self._find(username)
        await self._db.write(close_account, user_id, self._clock.now_ms(), erase=erase)
        return user_id

    async def _find(self, username: str) -> UserID:
        user_id = UserID(username if username.startswith("@") else f"@{username}:{self._server_name}")
        if await self._db.read(find_account_by_id, user_id) is None:
            raise NotFound(f"There is no account {user_id}.")
        return user_id


def _set_kind(txn: WriteTxn, user_id: UserID, kind: AccountKind) -> None:
    account = find_account_by_id(txn, user_id)
    if account is None or account.kind not in (AccountKind.USER, AccountKind.ADMIN):
        raise NotFound(f"There is no account {user_id} of a person.")
    set_kind(txn, account.user_nid, kind)
