"""The stages of user-interactive authentication that this server knows.

Spec: client-server API, "Authentication types".
"""

from ranvier.core.canonical_json import JsonObject, encode
from ranvier.core.errors import MissingParam, Unauthorized
from ranvier.io.clock import Clock
from ranvier.services.accounts.owners import Owners
from ranvier.services.accounts.uia import DUMMY, PASSWORD, REGISTRATION_TOKEN, AnothersProof
from ranvier.store.database import Database
from ranvier.store.tables.registration_tokens import is_registration_token_valid


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


def _text(auth: JsonObject, name: str) -> str:
    value = auth.get(name)
    if not isinstance(value, str):
        raise MissingParam(f"auth: {name} is missing, or is no string.")
    return value
