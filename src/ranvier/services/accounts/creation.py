"""Making an account: the one place where a new user of this server comes from.

Registration, administrators, the command line and application services end here.
"""

from collections.abc import Awaitable, Callable, Iterable

import msgspec

from ranvier.core.canonical_json import encode
from ranvier.core.errors import InvalidUsername, ThreepidInUse, Unauthorized, UserInUse
from ranvier.core.identifiers import ServerName, UserID, is_valid_new_localpart
from ranvier.core.limits import MAX_IDENTIFIER_BYTES
from ranvier.io.clock import Clock
from ranvier.services.accounts.email_validation import EMAIL
from ranvier.services.accounts.sessions import SessionDraft, open_session
from ranvier.store.database import Database, WriteTxn
from ranvier.store.tables.accounts import (
    AccountKind,
    find_account_by_id,
    insert_account,
    insert_external_id,
)
from ranvier.store.tables.interned import Interned, Interner, intern_users
from ranvier.store.tables.profiles import set_profile_field
from ranvier.store.tables.registration_tokens import use_registration_token
from ranvier.store.tables.threepid_validations import delete_validation
from ranvier.store.tables.threepids import Threepid, insert_threepid

IsReserved = Callable[[UserID], bool]
"""Whether an application service claims a user id for itself alone."""

SummonUsers = Callable[[Iterable[UserID]], Awaitable[None]]
"""Let application services make those of these users that are theirs, and are not known yet."""


class ProvenAddress(msgspec.Struct, frozen=True):
    """A mail address, and the session that proved it; None: an identity provider vouches for it."""

    sid: str | None
    address: str


class ExternalIdentity(msgspec.Struct, frozen=True):
    """Who somebody is at another identity provider."""

    provider: str
    subject: str


class IdentityInUse(UserInUse):
    """Another account belongs to this identity."""


class NewAccount(msgspec.Struct, frozen=True, kw_only=True):
    """An account that is to be."""

    user_id: UserID
    kind: AccountKind = AccountKind.USER
    password_hash: str | None = None
    appservice_id: str | None = None
    registration_token: str | None = None  # whose use this is
    email: ProvenAddress | None = None
    displayname: str | None = None
    identity: ExternalIdentity | None = None


class AccountCreation:
    """Writes accounts."""

    def __init__(self, db: Database, interner: Interner, clock: Clock) -> None:
        self._db = db
        self._interner = interner
        self._clock = clock

    async def create(self, account: NewAccount, session: SessionDraft | None) -> int:
        """Make an account, and with a draft its first session. The user_nid.

        Raises: UserInUse; IdentityInUse; Unauthorized: the registration token was used up meanwhile; ThreepidInUse:
        the address is another account's by now.
        """
        user_nid = await self._db.write(_create, self._interner, account, session, self._clock.now_ms())
        self._interner.remember(Interned(users={account.user_id: user_nid}))
        return user_nid

    async def check_free(self, user_id: UserID) -> None:
        """Raises: UserInUse: there is (or was) such an account."""
        if await self._db.read(find_account_by_id, user_id) is not None:
            raise UserInUse("This user name is taken.")


def new_user_id(username: str, server_name: ServerName) -> UserID:
    """The user id for a name that somebody chose. Capital letters become small ones.

    Raises: InvalidUsername.
    Spec: appendices, "User Identifiers".
    """
    localpart = username.lower()
    if not is_valid_new_localpart(localpart):
        raise InvalidUsername("A user name consists of a-z, 0-9, and the characters . _ = / + -.")
    user_id = f"@{localpart}:{server_name}"
    if len(user_id.encode()) > MAX_IDENTIFIER_BYTES:
        raise InvalidUsername(f"A user id has at most {MAX_IDENTIFIER_BYTES} bytes.")
    return UserID(user_id)


def _create(
    txn: WriteTxn, interner: Interner, account: NewAccount, session: SessionDraft | None, now_ms: int
) -> int:
    token = account.registration_token
    if token is not None and not use_registration_token(txn, token, now_ms):
        raise Unauthorized("This registration token is not valid any more.")
    user_nid = intern_users(txn, interner, [account.user_id])[account.user_id]
    if not insert_account(txn, user_nid, account.kind, account.password_hash, account.appservice_id, now_ms):
        raise UserInUse("This user name is taken.")
    if (email := account.email) is not None:
        if not insert_threepid(txn, user_nid, Threepid(EMAIL, email.address, now_ms, now_ms)):
            raise ThreepidInUse("This address belongs to an account already.")
        if email.sid is not None:
            delete_validation(txn, email.sid)
    if (identity := account.identity) is not None and not insert_external_id(
        txn, identity.provider, identity.subject, user_nid
    ):
        raise IdentityInUse("This identity belongs to an account already.")
    if account.displayname:
        set_profile_field(txn, user_nid, "displayname", encode(account.displayname))
    if session is not None:
        open_session(txn, user_nid, session)
    return user_nid
