"""Tokens with which somebody who is logged in lets another client of theirs log in.

Spec: client-server API, POST /login/get_token.
"""

from typing import Final

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.io.clock import Clock
from ranvier.io.randomness import Randomness
from ranvier.services.accounts.uia import UserInteractive
from ranvier.services.requester import Requester
from ranvier.store.database import Database
from ranvier.store.tables.passing_tokens import insert_login_token
from ranvier.store.tables.tokens import hash_token

LIFETIME_MS: Final = 120_000
ARRIVAL_LIFETIME_MS: Final = 60_000
"""Of a token that a browser takes straight to the client."""


class LoginToken(msgspec.Struct, frozen=True):
    login_token: str
    expires_in_ms: int


class LoginTokens:
    """Gives them out."""

    def __init__(self, db: Database, clock: Clock, randomness: Randomness, uia: UserInteractive) -> None:
        self._db = db
        self._clock = clock
        self._randomness = randomness
        self._uia = uia

    async def generate(self, requester: Requester, auth: JsonObject | None) -> LoginToken:
        """A token for one login within two minutes. Raises: UiaRequired."""
        await self._uia.authorize_owner(requester, "generateLoginToken", auth)
        return LoginToken(await self._issue(requester.user_nid, LIFETIME_MS), LIFETIME_MS)

    async def issue(self, user_nid: int) -> str:
        """A token for a user who has just proved who they are to an identity provider."""
        return await self._issue(user_nid, ARRIVAL_LIFETIME_MS)

    async def _issue(self, user_nid: int, lifetime_ms: int) -> str:
        token = self._randomness.token()
        await self._db.write(
            insert_login_token, hash_token(token), user_nid, self._clock.now_ms() + lifetime_ms
        )
        return token
