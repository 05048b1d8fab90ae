"""Tokens that prove to a third party who somebody is, and nothing else.

Spec: client-server API, "OpenID"; server-server API, "OpenID".
"""

from typing import Final

import msgspec

from ranvier.core.errors import UnknownToken
from ranvier.core.identifiers import ServerName, UserID
from ranvier.io.clock import Clock
from ranvier.io.randomness import Randomness
from ranvier.services.accounts.account_data import check_own
from ranvier.services.requester import Requester
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables.accounts import find_account
from ranvier.store.tables.passing_tokens import find_openid_token, insert_openid_token
from ranvier.store.tables.tokens import hash_token

LIFETIME_S: Final = 3600


class OpenIdToken(msgspec.Struct, frozen=True, kw_only=True):
    access_token: str
    matrix_server_name: ServerName
    expires_in: int  # seconds
    token_type: str = "Bearer"  # noqa: S105 - what OpenID Connect calls it


class OpenId:
    """Gives such tokens out, and says whose they are."""

    def __init__(self, server_name: ServerName, db: Database, clock: Clock, randomness: Randomness) -> None:
        self._server_name = server_name
        self._db = db
        self._clock = clock
        self._randomness = randomness

    async def request_token(self, requester: Requester, user_id: UserID) -> OpenIdToken:
        """Raises: Forbidden: only for oneself."""
        check_own(requester, user_id)
        token = self._randomness.token()
        expires_ms = self._clock.now_ms() + LIFETIME_S * 1000
        await self._db.write(insert_openid_token, hash_token(token), requester.user_nid, expires_ms)
        return OpenIdToken(access_token=token, matrix_server_name=self._server_name, expires_in=LIFETIME_S)

    async def get_user(self, token: str) -> UserID:
        """Whose token it is. Raises: UnknownToken."""
        user_id = await self._db.read(_find_user, hash_token(token), self._clock.now_ms())
        if user_id is None:
            raise UnknownToken("Unknown or expired token.")
        return user_id


def _find_user(txn: ReadTxn, token_hash: bytes, now_ms: int) -> UserID | None:
    user_nid = find_openid_token(txn, token_hash, now_ms)
    account = None if user_nid is None else find_account(txn, user_nid)
    return None if account is None or account.deactivated_ms is not None else account.user_id
