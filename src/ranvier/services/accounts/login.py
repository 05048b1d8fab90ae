"""Logging in: from a password or a login token to a session.

Spec: client-server API, "Login".
"""

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import Forbidden, UserDeactivated
from ranvier.core.identifiers import UserID
from ranvier.io.clock import Clock
from ranvier.services.accounts.owners import Owners
from ranvier.services.accounts.passwords import Passwords
from ranvier.services.accounts.sessions import Session, SessionDraft, SessionDrafts, SessionWish, open_session
from ranvier.services.accounts.user_identifiers import check_unlocked
from ranvier.store.database import Database, WriteTxn
from ranvier.store.tables.accounts import Account, find_account, set_password_hash
from ranvier.store.tables.passing_tokens import take_login_token
from ranvier.store.tables.tokens import hash_token


class Login:
    """Opens sessions for those who have an account."""

    def __init__(
        self, db: Database, clock: Clock, owners: Owners, passwords: Passwords, drafts: SessionDrafts
    ) -> None:
        self._db = db
        self._clock = clock
        self._owners = owners
        self._passwords = passwords
        self._drafts = drafts

    async def by_password(self, body: JsonObject, password: str, wish: SessionWish) -> Session:
        """`body` names the user, by `identifier` or `user`.

        Raises: as `Owners.prove`; BadIdentifier, InvalidParam for a device id or name that cannot be used.
        """
        draft = self._drafts.draft(wish)
        account = await self._owners.prove(body, password)
        renewed = await self._passwords.renew(account.password_hash, password)
        await self._db.write(_open_by_password, account, renewed, draft)
        return draft.of(account.user_id)

    async def by_token(self, token: str, wish: SessionWish) -> Session:
        """Use up a login token. Raises: Forbidden, UserDeactivated, UserLocked."""
        draft = self._drafts.draft(wish)
        user_id = await self._db.write(_open_by_token, hash_token(token), draft, self._clock.now_ms())
        if user_id is None:
            raise Forbidden("This login token is unknown, used or expired.")
        return draft.of(user_id)


def _open_by_password(txn: WriteTxn, account: Account, renewed: str | None, draft: SessionDraft) -> None:
    # The password may have been changed, or the account closed, while it was verified.
    now = find_account(txn, account.user_nid)
    if now is None or now.password_hash != account.password_hash:
        raise Forbidden("Invalid username or password.")
    check_unlocked(now)
    if renewed is not None:
        set_password_hash(txn, account.user_nid, renewed)
    open_session(txn, account.user_nid, draft)


def _open_by_token(txn: WriteTxn, token_hash: bytes, draft: SessionDraft, now_ms: int) -> UserID | None:
    user_nid = take_login_token(txn, token_hash, now_ms)
    account = None if user_nid is None else find_account(txn, user_nid)
    if account is None:
        return None
    if account.deactivated_ms is not None:
        raise UserDeactivated("This account is deactivated.")
    check_unlocked(account)
    open_session(txn, account.user_nid, draft)
    return account.user_id
