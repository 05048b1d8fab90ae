"""Logging in with a token that another program of the administrator signed: a web site with accounts of its own.

Whom a token names and who is not here yet gets an account. As Synapse has it: org.matrix.login.jwt.
"""

from collections.abc import Collection

import msgspec

from ranvier.core.errors import ExclusiveNamespace, Forbidden, UserDeactivated, UserInUse
from ranvier.core.identifiers import UserID
from ranvier.core.jwt import BadJwt, check_claims, verify_jwt
from ranvier.io.clock import Clock
from ranvier.services.accounts.creation import AccountCreation, NewAccount, new_user_id
from ranvier.services.accounts.registration import RegistrationPolicy
from ranvier.services.accounts.sessions import Session, SessionDraft, SessionDrafts, SessionWish, open_session
from ranvier.services.accounts.user_identifiers import check_unlocked
from ranvier.store.database import Database, WriteTxn
from ranvier.store.tables.accounts import AccountKind, find_account_by_id


class JwtTrust(msgspec.Struct, frozen=True, kw_only=True):
    """Which tokens are believed."""

    secret: str
    subject_claim: str
    issuer: str | None
    audiences: Collection[str]


class JwtLogin:
    """Opens sessions for whom a token names."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        trust: JwtTrust,
        policy: RegistrationPolicy,
        creation: AccountCreation,
        drafts: SessionDrafts,
    ) -> None:
        self._db = db
        self._clock = clock
        self._trust = trust
        self._policy = policy
        self._creation = creation
        self._drafts = drafts

    async def login(self, token: str, wish: SessionWish) -> Session:
        """Raises: Forbidden, InvalidUsername, ExclusiveNamespace, UserDeactivated, UserLocked."""
        draft = self._drafts.draft(wish)
        user_id = new_user_id(self._verify(token), self._policy.server_name)
        if self._policy.is_reserved(user_id):
            raise ExclusiveNamespace("This user name belongs to an application service.")
        if not await self._db.write(_open, user_id, draft):
            try:
                await self._creation.create(NewAccount(user_id=user_id), draft)
            except UserInUse:
                # Made by another login of the same user meanwhile.
                await self._db.write(_open, user_id, draft)
        return draft.of(user_id)

    def _verify(self, token: str) -> str:
        """The user name. Raises: Forbidden."""
        trust = self._trust
        try:
            claims = verify_jwt(token, trust.secret)
            check_claims(claims, self._clock.now_ms() // 1000, trust.issuer, trust.audiences)
        except BadJwt as error:
            raise Forbidden(str(error)) from error
        name = claims.get(trust.subject_claim)
        if not isinstance(name, str):
            raise Forbidden(f"The token does not say who logs in: {trust.subject_claim}.")
        return name


def _open(txn: WriteTxn, user_id: UserID, draft: SessionDraft) -> bool:
    """Whether there is such an account. Raises: Forbidden, UserDeactivated, UserLocked."""
    account = find_account_by_id(txn, user_id)
    if account is None:
        return False
    if account.deactivated_ms is not None:
        raise UserDeactivated("This account is deactivated.")
    if account.kind not in (AccountKind.USER, AccountKind.ADMIN):
        raise Forbidden("This is no person's account.")
    check_unlocked(account)
    open_session(txn, account.user_nid, draft)
    return True
