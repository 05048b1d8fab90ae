"""The stages of user-interactive authentication that this server knows.

Spec: client-server API, "Authentication types".
"""

from collections.abc import Collection

import msgspec

from ranvier.core.canonical_json import JsonObject, encode
from ranvier.core.errors import MissingParam, ThreepidAuthFailed, Unauthorized
from ranvier.io.clock import Clock
from ranvier.services.accounts.email_validation import EMAIL, Credentials, Purpose, check_validated
from ranvier.services.accounts.owners import Owners
from ranvier.services.accounts.uia import (
    DUMMY,
    EMAIL_IDENTITY,
    PASSWORD,
    REGISTRATION_TOKEN,
    AnothersProof,
)
from ranvier.services.accounts.user_identifiers import check_unlocked
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables.accounts import Account, find_account
from ranvier.store.tables.registration_tokens import is_registration_token_valid
from ranvier.store.tables.threepids import find_threepid_owner


class DummyStage:
    """Proves nothing: for what needs no proof but has to be asked twice all the same."""

    type = DUMMY

    async def attempt(self, user_nid: int | None, auth: JsonObject) -> bytes:
        return b"{}"


class PasswordStage:
    """The password of the very user who asks."""

    type = PASSWORD

    def __init__(self, owners: Owners) -> None:
        self._owners = owners

    async def attempt(self, user_nid: int | None, auth: JsonObject) -> bytes:
        account = await self._owners.prove(auth, _text(auth, "password"))
        if user_nid is not None and account.user_nid != user_nid:
            raise AnothersProof("This is another user's password.")
        return encode({"user_id": account.user_id})


class RegistrationTokenStage:
    """A token that an administrator gave out. Its use is counted when the account is made."""

    type = REGISTRATION_TOKEN

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def attempt(self, user_nid: int | None, auth: JsonObject) -> bytes:
        token = _text(auth, "token")
        if not await self._db.read(is_registration_token_valid, token, self._clock.now_ms()):
            raise Unauthorized("This registration token is not valid.")
        return encode({"token": token})


class EmailStage:
    """An address, proved by a link in a mail: that of the very user who asks, or one for a new account."""

    type = EMAIL_IDENTITY

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def attempt(self, user_nid: int | None, auth: JsonObject) -> bytes:
        shown = auth.get("threepid_creds")
        try:
            credentials = msgspec.convert(shown, Credentials)
        except msgspec.ValidationError as error:
            raise MissingParam("auth: threepid_creds has a sid and a client_secret.") from error
        # Who is logged in has an account: an address for a new one proves nothing of it.
        purposes = (Purpose.RESET, Purpose.REGISTER) if user_nid is None else (Purpose.RESET,)
        address, account = await self._db.read(_find_proof, credentials, purposes, self._clock.now_ms())
        if account is None:
            return encode({"address": address, "sid": credentials.sid})
        if user_nid is not None and account.user_nid != user_nid:
            raise AnothersProof("This is another user's address.")
        check_unlocked(account)
        return encode({"user_id": account.user_id, "sid": credentials.sid})


def _find_proof(
    txn: ReadTxn, credentials: Credentials, purposes: Collection[Purpose], now_ms: int
) -> tuple[str, Account | None]:
    """The address, and unless it is for a new account, whose it is. Raises: ThreepidAuthFailed."""
    purpose, address = check_validated(txn, credentials, purposes, now_ms)
    if purpose is Purpose.REGISTER:
        return address, None
    owner = find_threepid_owner(txn, EMAIL, address)
    account = None if owner is None else find_account(txn, owner)
    if account is None or account.deactivated_ms is not None:
        raise ThreepidAuthFailed("No account has this address.")
    return address, account


def _text(auth: JsonObject, name: str) -> str:
    value = auth.get(name)
    if not isinstance(value, str):
        raise MissingParam(f"auth: {name} is missing, or is no string.")
    return value
