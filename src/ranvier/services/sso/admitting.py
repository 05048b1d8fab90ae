"""From who somebody is at a provider to an account here: the one they have, one that is linked, or a new one."""

import logging
from typing import Final

import msgspec

from ranvier.core.errors import (
    ExclusiveNamespace,
    Forbidden,
    InvalidParam,
    InvalidUsername,
    ThreepidInUse,
    UserDeactivated,
    UserInUse,
)
from ranvier.core.identifiers import UserID
from ranvier.core.sso import claims
from ranvier.services.accounts.creation import (
    AccountCreation,
    ExternalIdentity,
    NewAccount,
    ProvenAddress,
    new_user_id,
)
from ranvier.services.accounts.email_validation import parse_address
from ranvier.services.accounts.registration import RegistrationPolicy
from ranvier.services.accounts.user_identifiers import check_unlocked
from ranvier.services.sso.providers import ProviderSettings
from ranvier.services.sso.upstream import Identity
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables.accounts import (
    Account,
    AccountKind,
    find_account,
    find_account_by_id,
    find_external_id,
    insert_external_id,
    list_external_ids,
)

log = logging.getLogger(__name__)

_PEOPLE: Final = (AccountKind.USER, AccountKind.ADMIN)


class User(msgspec.Struct, frozen=True):
    """Somebody with an account."""

    user_nid: int
    user_id: UserID


class Newcomer(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody who may have an account."""

    identity: ExternalIdentity
    user_name: str | None  # as the provider has it, if that can be one here
    display_name: str | None
    email: str | None  # proved to the provider


class Admitting:
    """Finds, links and makes accounts."""

    def __init__(self, db: Database, policy: RegistrationPolicy, creation: AccountCreation) -> None:
        self._db = db
        self._policy = policy
        self._creation = creation

    async def admit(self, settings: ProviderSettings, identity: Identity) -> User | Newcomer:
        """The user; a newcomer where no account could be made without asking for a name.

        Raises: Forbidden: nobody new comes in; UserDeactivated, UserLocked.
        """
        newcomer = self._describe(settings, identity)
        known = await self.find(newcomer.identity)
        if known is None and settings.admission.link_existing:
            known = await self._link(settings, newcomer, is_proved=_is_email_proved(settings, identity))
        if known is not None:
            return known
        self._check_allowed(settings, newcomer)
        if newcomer.user_name is not None:
            try:
                return await self.make(settings, newcomer, newcomer.user_name)
            except (UserInUse, ExclusiveNamespace):
                return newcomer
        return newcomer

    async def find(self, identity: ExternalIdentity) -> User | None:
        """Raises: UserDeactivated, UserLocked."""
        account = await self._db.read(_find, identity)
        return None if account is None else _usable(account)

    async def make(self, settings: ProviderSettings, newcomer: Newcomer, user_name: str) -> User:
        """An account with a name that the provider or the person chose.

        Raises: InvalidUsername, UserInUse, ExclusiveNamespace; Forbidden: nobody new comes in; UserDeactivated,
        UserLocked: of an account that was made for this identity meanwhile.
        """
        self._check_allowed(settings, newcomer)
        user_id = new_user_id(user_name, self._policy.server_name)
        if self._policy.is_reserved(user_id):
            raise ExclusiveNamespace("This user name belongs to an application service.")
        try:
            user = User(await self._create(user_id, newcomer), user_id)
        except UserInUse:
            # By the same person, who signed in at two places at once?
            found = await self.find(newcomer.identity)
            if found is None:
                raise
            return found
        log.info("%s was made for somebody of the identity provider %s", user_id, settings.provider.id)
        return user

    async def _create(self, user_id: UserID, newcomer: Newcomer) -> int:
        account = NewAccount(user_id=user_id, displayname=newcomer.display_name, identity=newcomer.identity)
        if newcomer.email is None:
            return await self._creation.create(account, None)
        address = ProvenAddress(None, newcomer.email)
        try:
            return await self._creation.create(msgspec.structs.replace(account, email=address), None)
        except ThreepidInUse:
            # Another account's: this one does without.
            return await self._creation.create(account, None)

    async def _link(self, settings: ProviderSettings, newcomer: Newcomer, *, is_proved: bool) -> User | None:
        """Make the account with that very name theirs. `is_proved`: whether their e-mail address is.

        Raises: UserDeactivated, UserLocked; Forbidden: the name is from an address that anybody may have written.
        """
        if newcomer.user_name is None:
            return None
        user_id = new_user_id(newcomer.user_name, self._policy.server_name)
        if not is_proved and _is_named_by_email(settings):
            if await self._db.read(find_account_by_id, user_id) is None:
                return None
            name = settings.provider.name
            raise Forbidden(f"{name} does not say that your e-mail address is yours. Confirm it there first.")
        account = await self._db.write(_link, user_id, newcomer.identity)
        if account is None:
            return None
        user = _usable(account)
        log.info("%s was linked to the identity provider %s", user_id, newcomer.identity.provider)
        return user

    def _describe(self, settings: ProviderSettings, identity: Identity) -> Newcomer:
        admission, said = settings.admission, identity.claims
        name = claims.fill(admission.user_name, said)
        email = claims.fill(admission.email, said) if _is_email_proved(settings, identity) else None
        return Newcomer(
            identity=ExternalIdentity(settings.provider.id, identity.subject),
            user_name=None if name is None else self._usable_name(name),
            display_name=claims.fill(admission.display_name, said),
            email=None if email is None else _usable_address(email),
        )

    def _usable_name(self, name: str) -> str | None:
        localpart = claims.localpart_of_name(name)
        try:
            new_user_id(localpart, self._policy.server_name)
        except InvalidUsername:
            return None
        return localpart

    def _check_allowed(self, settings: ProviderSettings, newcomer: Newcomer) -> None:
        """Raises: Forbidden."""
        if not settings.admission.allow_registration:
            raise Forbidden(
                f"There is no account here for yours at {settings.provider.name}. The administrator can make one."
            )
        if self._policy.email == "required" and newcomer.email is None:
            raise Forbidden(
                f"An account here needs a confirmed e-mail address, and {settings.provider.name} vouches for none."
            )


def check_welcome(settings: ProviderSettings, identity: Identity) -> None:
    """Whether the claims are those that the administrator demands. Raises: Forbidden."""
    unmet = claims.find_unmet(identity.claims, settings.admission.required_claims)
    if unmet is not None:
        name = settings.provider.name
        raise Forbidden(f"Your account at {name} may not be used here: {unmet} does not allow it.")


def _is_email_proved(settings: ProviderSettings, identity: Identity) -> bool:
    return settings.admission.email_is_verified or claims.is_true(identity.claims, "email_verified")


def _is_named_by_email(settings: ProviderSettings) -> bool:
    """Whether an e-mail address makes the user name."""
    admission = settings.admission
    addresses = {"email", *claims.list_named(admission.email)}
    return not addresses.isdisjoint(claims.list_named(admission.user_name))


def _find(txn: ReadTxn, identity: ExternalIdentity) -> Account | None:
    user_nid = find_external_id(txn, identity.provider, identity.subject)
    return None if user_nid is None else find_account(txn, user_nid)


def _link(txn: WriteTxn, user_id: UserID, identity: ExternalIdentity) -> Account | None:
    account = find_account_by_id(txn, user_id)
    if account is None or account.kind not in _PEOPLE:
        return None
    # Who has this name at the provider now need not be who had it: an account is linked once.
    if any(provider == identity.provider for provider, _ in list_external_ids(txn, account.user_nid)):
        return None
    if account.deactivated_ms is not None:
        return account
    is_linked = insert_external_id(txn, identity.provider, identity.subject, account.user_nid)
    return account if is_linked else None


def _usable_address(email: str) -> str | None:
    try:
        return parse_address(email)
    except InvalidParam:
        return None


def _usable(account: Account) -> User:
    """Raises: UserDeactivated, UserLocked."""
    if account.deactivated_ms is not None:
        raise UserDeactivated("This account is deactivated.")
    check_unlocked(account)
    return User(account.user_nid, account.user_id)
