"""Registration tokens, as administrators make and change them."""

import re
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ranvier.core.errors import InvalidParam, NotFound
from ranvier.io.clock import Clock
from ranvier.io.randomness import Randomness
from ranvier.store.database import Database, WriteTxn
from ranvier.store.tables.registration_tokens import (
    RegistrationToken,
    delete_registration_token,
    find_registration_token,
    insert_registration_token,
    list_registration_tokens,
    update_registration_token,
)

DEFAULT_LENGTH: Final = 16
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~-]{1,64}")

Number = Annotated[int, Meta(ge=0, le=2**53)]


class TokenInfo(msgspec.Struct, frozen=True):
    """A token, with the names that Synapse gives its parts."""

    token: str
    uses_allowed: int | None
    pending: int
    completed: int
    expiry_time: int | None


class NewToken(msgspec.Struct, frozen=True, kw_only=True):
    token: str | None = None
    uses_allowed: Number | None = None
    expiry_time: Number | None = None
    length: Annotated[int, Meta(ge=1, le=64)] = DEFAULT_LENGTH


class TokenChange(msgspec.Struct, frozen=True, kw_only=True):
    uses_allowed: Number | UnsetType | None = UNSET
    expiry_time: Number | UnsetType | None = UNSET


class TokenAdministration:
    """Makes and changes tokens."""

    def __init__(self, db: Database, clock: Clock, randomness: Randomness) -> None:
        self._db = db
        self._clock = clock
        self._randomness = randomness

    async def list_tokens(self, *, is_valid: bool | None) -> list[TokenInfo]:
        """All tokens, or those that are (not) good for a registration that begins now."""
        now_ms = self._clock.now_ms()
        found = await self._db.read(list_registration_tokens)
        return [_info(one) for one in found if is_valid is None or _is_valid(one, now_ms) == is_valid]

    async def get(self, token: str) -> TokenInfo:
        """Raises: NotFound."""
        found = await self._db.read(find_registration_token, token.replace("\0", ""))
        if found is None:
            raise NotFound("There is no such registration token.")
        return _info(found)

    async def make(self, wish: NewToken) -> TokenInfo:
        """Raises: InvalidParam: the token exists, or is none; or it would have expired."""
        self._check_expiry(wish.expiry_time)
        token = self._randomness.text(wish.length) if wish.token is None else wish.token
        if not _TOKEN.fullmatch(token):
            raise InvalidParam("A token has 1 to 64 characters out of A-Z a-z 0-9 . _ ~ -.")
        if not await self._db.write(insert_registration_token, token, wish.uses_allowed, wish.expiry_time):
            raise InvalidParam("This token exists.")
        return await self.get(token)

    async def change(self, token: str, wish: TokenChange) -> TokenInfo:
        """What is not named stays. Raises: NotFound; InvalidParam."""
        if wish.expiry_time is not UNSET:
            self._check_expiry(wish.expiry_time)

        def write(txn: WriteTxn) -> None:
            found = find_registration_token(txn, token.replace("\0", ""))
            if found is None:
                raise NotFound("There is no such registration token.")
            uses = found.uses_allowed if wish.uses_allowed is UNSET else wish.uses_allowed
            expires_ms = found.expires_ms if wish.expiry_time is UNSET else wish.expiry_time
            update_registration_token(txn, token, uses, expires_ms)

        await self._db.write(write)
        return await self.get(token)

    async def delete(self, token: str) -> None:
        """Raises: NotFound."""
        if not await self._db.write(delete_registration_token, token.replace("\0", "")):
            raise NotFound("There is no such registration token.")

    def _check_expiry(self, expires_ms: int | None) -> None:
        if expires_ms is not None and expires_ms < self._clock.now_ms():
            raise InvalidParam("expiry_time lies in the past.")


def _is_valid(token: RegistrationToken, now_ms: int) -> bool:
    has_uses = token.uses_allowed is None or token.pending + token.completed < token.uses_allowed
    return has_uses and (token.expires_ms is None or token.expires_ms > now_ms)


def _info(token: RegistrationToken) -> TokenInfo:
    return TokenInfo(token.token, token.uses_allowed, token.pending, token.completed, token.expires_ms)
