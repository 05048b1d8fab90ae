"""Accounts for whoever knows a secret of the configuration: bots, test suites, provisioning scripts.

The wire is that of Synapse, which such programs speak: POST /_synapse/admin/v1/register.
"""

import hashlib
import hmac
from typing import Final

import msgspec

from ranvier.core.errors import Forbidden, InvalidParam
from ranvier.core.identifiers import ServerName
from ranvier.io.clock import Clock
from ranvier.io.randomness import Randomness
from ranvier.services.accounts.creation import AccountCreation, NewAccount, new_user_id
from ranvier.services.accounts.passwords import MAX_PASSWORD_CHARS, Passwords
from ranvier.services.accounts.sessions import Session, SessionDrafts, SessionWish
from ranvier.store.tables.accounts import AccountKind

NONCE_LIFETIME_MS: Final = 60_000


class SharedSecretWish(msgspec.Struct, frozen=True, kw_only=True):
    """The body of the request."""

    nonce: str
    username: str
    password: str
    mac: str
    admin: bool = False
    displayname: str | None = None
    user_type: str | None = None
    inhibit_login: bool = False


class Nonces:
    """Numbers that are good for a minute, in any process: the time is signed, nothing is kept.

    A request sent again asks for a user name that is taken by then, so a nonce need not be good for only one.
    """

    def __init__(self, secret: str, clock: Clock, randomness: Randomness) -> None:
        self._key = b"nonce " + secret.encode()
        self._clock = clock
        self._randomness = randomness

    def make(self) -> str:
        return self._sign(f"{self._clock.now_ms() + NONCE_LIFETIME_MS}.{self._randomness.token(12)}")

    def is_good(self, nonce: str) -> bool:
        signed = nonce.rpartition(".")[0]
        if not hmac.compare_digest(_octets(nonce), _octets(self._sign(signed))):
            return False
        return int(signed.partition(".")[0]) > self._clock.now_ms()

    def _sign(self, text: str) -> str:
        return f"{text}.{hmac.new(self._key, _octets(text), hashlib.sha256).hexdigest()}"


class SharedSecretRegistration:
    """Makes accounts without asking further."""

    def __init__(
        self,
        secret: str,
        server_name: ServerName,
        nonces: Nonces,
        creation: AccountCreation,
        passwords: Passwords,
        drafts: SessionDrafts,
    ) -> None:
        self._secret = secret.encode()
        self._server_name = server_name
        self.nonces = nonces
        self._creation = creation
        self._passwords = passwords
        self._drafts = drafts

    async def register(self, wish: SharedSecretWish) -> Session:
        """Raises: Forbidden (the mac is wrong), InvalidParam, InvalidUsername, UserInUse."""
        if not self.nonces.is_good(wish.nonce):
            raise InvalidParam("The nonce is unknown or has expired.")
        if not hmac.compare_digest(_octets(wish.mac), self._mac(wish)):
            raise Forbidden("The mac is wrong.")
        if not 0 < len(wish.password) <= MAX_PASSWORD_CHARS:
            raise InvalidParam(f"A password has 1 to {MAX_PASSWORD_CHARS} characters.")
        user_id = new_user_id(wish.username, self._server_name)
        session = None if wish.inhibit_login else self._drafts.draft(SessionWish())
        account = NewAccount(
            user_id=user_id,
            kind=AccountKind.ADMIN if wish.admin else AccountKind.USER,
            password_hash=await self._passwords.hash(wish.password),
            displayname=wish.displayname,
        )
        await self._creation.create(account, session)
        return Session(user_id=user_id) if session is None else session.of(user_id)

    def _mac(self, wish: SharedSecretWish) -> bytes:
        parts = [wish.nonce, wish.username, wish.password, "admin" if wish.admin else "notadmin"]
        if wish.user_type is not None:
            parts.append(wish.user_type)
        # SHA-1 is what the programs out there compute; as HMAC it is not known to be broken.
        digest = hmac.new(self._secret, _octets("\0".join(parts)), hashlib.sha1)
        return digest.hexdigest().encode()


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
