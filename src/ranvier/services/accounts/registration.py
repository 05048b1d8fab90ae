"""Registration: who may make an account here, and what they have to show.

Spec: client-server API, "Account registration".
"""

import json
from typing import Final, Literal

import msgspec

from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import (
    ExclusiveNamespace,
    Forbidden,
    GuestAccessForbidden,
    MissingParam,
    ThreepidAuthFailed,
)
from ranvier.core.identifiers import ServerName, UserID
from ranvier.io.randomness import Randomness
from ranvier.services.accounts.creation import (
    AccountCreation,
    IsReserved,
    NewAccount,
    ProvenAddress,
    new_user_id,
)
from ranvier.services.accounts.passwords import Passwords
from ranvier.services.accounts.sessions import Session, SessionDrafts, SessionWish
from ranvier.services.accounts.uia import (
    DUMMY,
    EMAIL_IDENTITY,
    REGISTRATION_TOKEN,
    Flow,
    UserInteractive,
)
from ranvier.store.tables.accounts import AccountKind

LOCALPART_CHARS: Final = 12
_LOCALPART_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz0123456789"


class RegistrationPolicy(msgspec.Struct, frozen=True):
    """Who may register."""

    server_name: ServerName
    mode: Literal["closed", "token", "open"]
    guests: bool
    is_reserved: IsReserved
    email: Literal["impossible", "possible", "required"] = "impossible"  # to prove an address at registration

    @property
    def flows(self) -> tuple[Flow, ...]:
        token: Flow = (REGISTRATION_TOKEN,) if self.mode == "token" else ()
        # The address comes first: with the token, the flow without an address would be complete.
        with_email, without = (EMAIL_IDENTITY, *token), token or (DUMMY,)
        match self.email:
            case "required":
                return (with_email,)
            case "possible":
                return (without, with_email)
            case "impossible":
                return (without,)


class RegistrationWish(SessionWish, frozen=True, kw_only=True):
    """The body of POST /register."""

    username: str | None = None
    password: str | None = None
    inhibit_login: bool = False
    auth: JsonObject | None = None


class Registration:
    """Makes accounts for those who ask for one themselves."""

    def __init__(
        self,
        policy: RegistrationPolicy,
        creation: AccountCreation,
        uia: UserInteractive,
        passwords: Passwords,
        drafts: SessionDrafts,
        randomness: Randomness,
    ) -> None:
        self._policy = policy
        self._creation = creation
        self._uia = uia
        self._passwords = passwords
        self._drafts = drafts
        self._randomness = randomness

    async def register(self, wish: RegistrationWish) -> Session:
        """Make an account of kind "user".

        Raises: Forbidden where registration is closed; UiaRequired; UserInUse, InvalidUsername,
        ExclusiveNamespace, WeakPassword, MissingParam; ThreepidAuthFailed, ThreepidInUse.
        """
        self._check_open()
        # These errors come before authentication, as the specification demands.
        user_id = await self._choose(wish.username)
        if wish.password is not None:
            self._passwords.check_new(wish.password)
        session = None if wish.inhibit_login else self._drafts.draft(wish)
        proofs = await self._uia.authorize(None, "register", wish.auth, self._policy.flows)
        if wish.password is None:
            raise MissingParam("The password is missing.")
        account = NewAccount(
            user_id=user_id,
            password_hash=await self._passwords.hash(wish.password),
            registration_token=_shown_token(proofs.get(REGISTRATION_TOKEN)),
            email=_proven_address(proofs.get(EMAIL_IDENTITY)),
        )
        await self._creation.create(account, session)
        return Session(user_id=user_id) if session is None else session.of(user_id)

    async def register_guest(self, display_name: str | None) -> Session:
        """Make an account of kind "guest". Raises: GuestAccessForbidden."""
        if not self._policy.guests:
            raise GuestAccessForbidden("There are no guests on this server.")
        session = self._drafts.draft(SessionWish(initial_device_display_name=display_name))
        user_id = self._made_up()
        await self._creation.create(NewAccount(user_id=user_id, kind=AccountKind.GUEST), session)
        return session.of(user_id)

    async def check_available(self, username: str) -> None:
        """Raises: UserInUse, InvalidUsername, ExclusiveNamespace; Forbidden where registration is closed."""
        self._check_open()
        await self._choose(username)

    def _check_open(self) -> None:
        if self._policy.mode == "closed":
            raise Forbidden("Registration is closed on this server.")

    async def _choose(self, username: str | None) -> UserID:
        if username is None:
            return self._made_up()
        user_id = new_user_id(username, self._policy.server_name)
        if self._policy.is_reserved(user_id):
            raise ExclusiveNamespace("This user name belongs to an application service.")
        await self._creation.check_free(user_id)
        return user_id

    def _made_up(self) -> UserID:
        localpart = self._randomness.text(LOCALPART_CHARS, _LOCALPART_ALPHABET)
        return UserID(f"@{localpart}:{self._policy.server_name}")


def _shown_token(proof: bytes | None) -> str | None:
    return None if proof is None else str(json.loads(proof)["token"])


def _proven_address(proof: bytes | None) -> ProvenAddress | None:
    """Raises: ThreepidAuthFailed: the address was proved to set a new password of the account that has it."""
    if proof is None:
        return None
    try:
        return msgspec.json.decode(proof, type=ProvenAddress)
    except msgspec.ValidationError as error:
        raise ThreepidAuthFailed("This address was not confirmed for a new account.") from error
