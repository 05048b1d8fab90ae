"""Trading a refresh token for a new pair.

Spec: client-server API, "Refreshing access tokens".
"""

import msgspec

from ranvier.core.errors import UnknownToken
from ranvier.services.accounts.sessions import SessionDrafts
from ranvier.services.accounts.user_identifiers import check_unlocked
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables.accounts import find_account
from ranvier.store.tables.oauth_grants import find_grant
from ranvier.store.tables.tokens import NewToken, RefreshToken, hash_token, refresh_token


class Refreshed(msgspec.Struct, frozen=True):
    access_token: str
    refresh_token: str | None
    expires_in_ms: int | None


class Refreshing:
    """Goes on with sessions."""

    def __init__(self, db: Database, drafts: SessionDrafts) -> None:
        self._db = db
        self._drafts = drafts

    async def refresh(self, token: str) -> Refreshed:
        """A new pair; the old one stays good until the new one is used.

        Raises: UnknownToken: the token was used already, or its session is over; UserLocked.
        """
        tokens = self._drafts.refreshable_tokens()
        await self._db.write(_refresh, hash_token(token), tokens.stored)
        return Refreshed(tokens.access, tokens.refresh, tokens.expires_in_ms)


def _refresh(txn: WriteTxn, refresh_hash: bytes, tokens: NewToken) -> None:
    old = refresh_token(txn, refresh_hash, tokens)
    account = None if old is None else find_account(txn, old.user_nid)
    # Who logged in by OAuth refreshes by OAuth, where clients are told apart.
    if account is None or _is_oauth(txn, old):
        raise UnknownToken("Unknown refresh token.", soft_logout=False)
    check_unlocked(account)


def _is_oauth(txn: ReadTxn, old: RefreshToken | None) -> bool:
    return old is not None and old.device_nid is not None and find_grant(txn, old.device_nid) is not None
