"""Who is signed in with which browser. Only this server's own pages ask; no client can.

What a browser keeps is a random key. Before anybody is signed in it is known to the browser alone, and forgery tokens
are made of it; signing in gives another one, whose hash is stored.
"""

import hashlib
import hmac
from typing import Final

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import Forbidden
from ranvier.core.identifiers import UserID
from ranvier.core.unpadded_base64 import encode_base64_urlsafe
from ranvier.io.clock import Clock
from ranvier.io.randomness import Randomness
from ranvier.services.accounts.owners import Owners
from ranvier.services.accounts.passwords import Passwords
from ranvier.services.accounts.user_identifiers import check_unlocked
from ranvier.services.requester import Requester
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables.accounts import (
    Account,
    AccountKind,
    find_account,
    find_account_by_id,
    set_password_hash,
)
from ranvier.store.tables.browser_sessions import Browser, delete_browser, find_browser, insert_browser
from ranvier.store.tables.passing_tokens import take_login_token
from ranvier.store.tables.tokens import hash_token

LIFETIME_MS: Final = 14 * 24 * 3_600_000
FRESH_MS: Final = 10 * 60_000
"""For so long a proof is good for what cannot be undone."""


class Person(msgspec.Struct, frozen=True):
    """Who is signed in."""

    user_nid: int
    user_id: UserID
    is_fresh: bool  # the proof is not old
    has_password: bool
    is_suspended: bool
    is_admin: bool

    @property
    def requester(self) -> Requester:
        """As services see it that clients use, too."""
        return Requester(
            user_id=self.user_id,
            user_nid=self.user_nid,
            device_id=None,
            is_admin=self.is_admin,
            is_suspended=self.is_suspended,
        )


class Browsers:
    """Signs people in and out."""

    def __init__(
        self, db: Database, clock: Clock, randomness: Randomness, owners: Owners, passwords: Passwords
    ) -> None:
        self._db = db
        self._clock = clock
        self._randomness = randomness
        self._owners = owners
        self._passwords = passwords

    def new_key(self) -> str:
        """For a browser that has none."""
        return self._randomness.token()

    async def find(self, key: str) -> Person | None:
        """Who is signed in; None also for accounts that are locked or closed."""
        return await self._db.read(_find, hash_token(key), self._clock.now_ms())

    async def by_password(self, user: str, password: str) -> str:
        """A new key. Raises: Forbidden, UserLocked, LimitExceeded."""
        body: JsonObject = {"identifier": {"type": "m.id.user", "user": user}}
        account = await self._owners.prove(body, password)
        renewed = await self._passwords.renew(account.password_hash, password)
        key = self._randomness.token()
        await self._db.write(_sign_in, account, renewed, hash_token(key), self._browser(account))
        return key

    async def by_login_token(self, token: str) -> str:
        """Use up the token with which single sign-on came back; a new key. Raises: Forbidden, UserLocked."""
        key = self._randomness.token()
        now_ms = self._clock.now_ms()
        user_id = await self._db.write(_sign_in_by_token, hash_token(token), hash_token(key), now_ms)
        if user_id is None:
            raise Forbidden("This sign-in is unknown, used or expired.")
        return key

    async def admit(self, user_id: UserID) -> str:
        """A new key for whoever has just made the account, or proved in another way to own it."""
        key = self._randomness.token()
        account = await self._db.read(find_account_by_id, user_id)
        if account is None:
            raise Forbidden("There is no such account.")
        await self._db.write(_sign_in, account, None, hash_token(key), self._browser(account))
        return key

    async def sign_out(self, key: str) -> None:
        await self._db.write(delete_browser, hash_token(key))

    def _browser(self, account: Account) -> Browser:
        now_ms = self._clock.now_ms()
        return Browser(account.user_nid, now_ms, now_ms + LIFETIME_MS)


def forgery_token(key: str, purpose: str) -> str:
    """What only pages that know the browser's key can hold. It does not tell the key."""
    return encode_base64_urlsafe(hmac.digest(key.encode(), purpose.encode(), hashlib.sha256))


def is_forgery_token(text: str, key: str, purpose: str) -> bool:
    return hmac.compare_digest(text.encode("utf-8", "surrogatepass"), forgery_token(key, purpose).encode())


def _find(txn: ReadTxn, session_hash: bytes, now_ms: int) -> Person | None:
    browser = find_browser(txn, session_hash, now_ms)
    account = None if browser is None else find_account(txn, browser.user_nid)
    if browser is None or account is None or account.deactivated_ms is not None or account.is_locked:
        return None
    return Person(
        account.user_nid,
        account.user_id,
        browser.proved_ms + FRESH_MS > now_ms,
        account.password_hash is not None,
        account.is_suspended,
        account.kind is AccountKind.ADMIN,
    )


def _sign_in(
    txn: WriteTxn, account: Account, renewed: str | None, session_hash: bytes, browser: Browser
) -> None:
    # The password may have been changed, or the account closed, while it was verified.
    now = find_account(txn, account.user_nid)
    if now is None or now.deactivated_ms is not None or now.password_hash != account.password_hash:
        raise Forbidden("Invalid username or password.")
    check_unlocked(now)
    if renewed is not None:
        set_password_hash(txn, account.user_nid, renewed)
    insert_browser(txn, session_hash, browser)


def _sign_in_by_token(txn: WriteTxn, token_hash: bytes, session_hash: bytes, now_ms: int) -> UserID | None:
    user_nid = take_login_token(txn, token_hash, now_ms)
    account = None if user_nid is None else find_account(txn, user_nid)
    if account is None or account.deactivated_ms is not None:
        return None
    check_unlocked(account)
    insert_browser(txn, session_hash, Browser(account.user_nid, now_ms, now_ms + LIFETIME_MS))
    return account.user_id
