"""Making and changing accounts as an administrator."""

import re
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ranvier.core.canonical_json import encode
from ranvier.core.errors import Forbidden, InvalidParam, NotFound, UserInUse
from ranvier.core.identifiers import UserID, localpart_of
from ranvier.io.clock import Clock
from ranvier.services.accounts.creation import AccountCreation, NewAccount, new_user_id
from ranvier.services.accounts.password_change import set_password
from ranvier.services.accounts.passwords import Passwords
from ranvier.services.accounts.profiles import (
    AVATAR_URL,
    DISPLAYNAME,
    MAX_AVATAR_URL_CHARS,
    MAX_DISPLAYNAME_CHARS,
    PROPAGATION,
)
from ranvier.services.accounts.threepids import forget_address
from ranvier.services.administration.people import check_local, get_account
from ranvier.services.administration.users import ExternalId
from ranvier.services.flows.deactivation import close_account
from ranvier.services.requester import Requester
from ranvier.store.database import Database, WriteTxn
from ranvier.store.tables import accounts, cross_signing, profiles, threepids
from ranvier.store.tables.accounts import Account, AccountKind
from ranvier.store.tables.admin_users import set_user_type
from ranvier.store.tables.interned import Interner
from ranvier.store.tables.jobs import enqueue_job
from ranvier.store.tables.threepids import Threepid

MAX_ADDRESSES: Final = 100
KEY_RESET_MS: Final = 600_000
_PHONE: Final = re.compile(r"[0-9]{5,15}")


class ThreepidWish(msgspec.Struct, frozen=True):
    medium: str
    address: Annotated[str, Meta(max_length=500)]


class AccountWish(msgspec.Struct, frozen=True, kw_only=True):
    """What an account is to be; what is not said stays as it is."""

    password: str | None = None
    logout_devices: bool = True
    displayname: str | UnsetType | None = UNSET
    avatar_url: str | UnsetType | None = UNSET
    threepids: Annotated[list[ThreepidWish], Meta(max_length=MAX_ADDRESSES)] | None = None
    external_ids: Annotated[list[ExternalId], Meta(max_length=MAX_ADDRESSES)] | None = None
    admin: bool | None = None
    deactivated: bool | None = None
    locked: bool | None = None
    suspended: bool | None = None
    user_type: Annotated[str, Meta(max_length=100)] | UnsetType | None = UNSET


class AccountChanges:
    """Makes and changes accounts. `user_id` is of this server, or InvalidParam is raised."""

    def __init__(
        self, db: Database, interner: Interner, clock: Clock, creation: AccountCreation, passwords: Passwords
    ) -> None:
        self._db = db
        self._interner = interner
        self._clock = clock
        self._creation = creation
        self._passwords = passwords

    async def put(self, requester: Requester, user_id: UserID, wish: AccountWish) -> bool:
        """Make the account, or change it. True: it is new.

        Raises: InvalidParam; InvalidUsername; WeakPassword; Forbidden (to oneself).
        """
        check_local(user_id, self._interner.own_server)
        _check(requester, user_id, wish)
        password_hash = None
        if wish.password is not None:
            self._passwords.check_new(wish.password)
            password_hash = await self._passwords.hash(wish.password)
        is_new = await self._make(user_id, password_hash)
        await self._db.write(_change, user_id, wish, password_hash, self._clock.now_ms(), is_new=is_new)
        return is_new

    async def set_admin(self, requester: Requester, user_id: UserID, *, is_admin: bool) -> None:
        """Raises: NotFound; Forbidden: nobody can stop being an administrator by themselves."""
        check_local(user_id, self._interner.own_server)
        wish = AccountWish(admin=is_admin)
        _check(requester, user_id, wish)
        await self._db.write(_change, user_id, wish, None, self._clock.now_ms(), is_new=False)

    async def reset_password(self, user_id: UserID, password: str, *, logout_devices: bool) -> None:
        """Raises: NotFound; WeakPassword; Forbidden: the account is deactivated."""
        check_local(user_id, self._interner.own_server)
        self._passwords.check_new(password)
        await self._db.read(get_account, user_id)
        password_hash = await self._passwords.hash(password)
        await self._db.write(
            set_password, user_id, password_hash, keep_device=None, logout_devices=logout_devices
        )

    async def deactivate(self, requester: Requester, user_id: UserID, *, erase: bool) -> None:
        """Close an account. Raises: NotFound; Forbidden: it is one's own."""
        check_local(user_id, self._interner.own_server)
        if requester.user_id == user_id:
            raise Forbidden("This is your own account.")
        await self._db.write(close_account, user_id, self._clock.now_ms(), erase=erase)

    async def allow_key_reset(self, user_id: UserID) -> int:
        """Let the user replace the cross-signing keys once without proving who they are. Until when, in ms.

        Raises: NotFound, also when there are no such keys.
        """
        check_local(user_id, self._interner.own_server)
        until_ms = self._clock.now_ms() + KEY_RESET_MS
        await self._db.write(_allow_key_reset, user_id, until_ms)
        return until_ms

    async def check_username(self, username: str) -> None:
        """Raises: UserInUse, InvalidUsername."""
        await self._creation.check_free(new_user_id(username, self._interner.own_server))

    async def _make(self, user_id: UserID, password_hash: str | None) -> bool:
        """Make the account unless it exists; whether it is new."""
        try:
            await self._creation.check_free(user_id)
        except UserInUse:
            return False
        if new_user_id(localpart_of(user_id), self._interner.own_server) != user_id:
            raise InvalidParam("A new user id has no capital letters.")
        try:
            await self._creation.create(NewAccount(user_id=user_id, password_hash=password_hash), None)
        except UserInUse:
            return False
        return True


def _check(requester: Requester, user_id: UserID, wish: AccountWish) -> None:
    """What can be told without the database."""
    if requester.user_id == user_id and (
        wish.admin is False or wish.deactivated or wish.locked or wish.suspended
    ):
        raise Forbidden("Another administrator has to do this to your own account.")
    stored = [
        wish.user_type,
        *(part for one in wish.external_ids or () for part in (one.auth_provider, one.external_id)),
    ]
    if any(isinstance(text, str) and "\0" in text for text in stored):
        raise InvalidParam("user_type and external_ids hold no U+0000.")
    for field, value, most in (
        (DISPLAYNAME, wish.displayname, MAX_DISPLAYNAME_CHARS),
        (AVATAR_URL, wish.avatar_url, MAX_AVATAR_URL_CHARS),
    ):
        if isinstance(value, str) and len(value) > most:
            raise InvalidParam(f"{field} has at most {most} characters.")


def _change(
    txn: WriteTxn, user_id: UserID, wish: AccountWish, password_hash: str | None, now_ms: int, *, is_new: bool
) -> None:
    account = get_account(txn, user_id)
    if wish.deactivated:
        if account.deactivated_ms is None:
            close_account(txn, user_id, now_ms, erase=False)
        account = get_account(txn, user_id)
    elif wish.deactivated is False and account.deactivated_ms is not None:
        accounts.reactivate_account(txn, account.user_nid, password_hash)
    if password_hash is not None and not is_new and not wish.deactivated:
        set_password(txn, user_id, password_hash, keep_device=None, logout_devices=wish.logout_devices)
    _change_profile(txn, account, wish, now_ms)
    _change_standing(txn, account, wish)
    if wish.threepids is not None:
        _replace_threepids(txn, account, wish.threepids, now_ms)
    if wish.external_ids is not None:
        accounts.delete_external_ids(txn, account.user_nid)
        for one in wish.external_ids:
            if not accounts.insert_external_id(txn, one.auth_provider, one.external_id, account.user_nid):
                raise InvalidParam(f"Another user has the identity {one.external_id} at {one.auth_provider}.")


def _change_profile(txn: WriteTxn, account: Account, wish: AccountWish, now_ms: int) -> None:
    has_changed = False
    for field, value in ((DISPLAYNAME, wish.displayname), (AVATAR_URL, wish.avatar_url)):
        if value is UNSET:
            continue
        if value:
            has_changed |= profiles.set_profile_field(txn, account.user_nid, field, encode(value))
        else:
            has_changed |= profiles.delete_profile_field(txn, account.user_nid, field)
    if has_changed:
        enqueue_job(txn, PROPAGATION, account.user_id, b"{}", now_ms)


def _change_standing(txn: WriteTxn, account: Account, wish: AccountWish) -> None:
    if wish.admin is not None and wish.admin != (account.kind is AccountKind.ADMIN):
        if account.kind not in (AccountKind.ADMIN, AccountKind.USER):
            raise InvalidParam("Only a person's account can be that of an administrator.")
        accounts.set_kind(txn, account.user_nid, AccountKind.ADMIN if wish.admin else AccountKind.USER)
    if wish.locked is not None:
        accounts.set_locked(txn, account.user_nid, is_locked=wish.locked)
    if wish.suspended is not None:
        accounts.set_suspended(txn, account.user_nid, is_suspended=wish.suspended)
    if wish.user_type is not UNSET:
        set_user_type(txn, account.user_nid, wish.user_type or None)


def _replace_threepids(txn: WriteTxn, account: Account, wished: list[ThreepidWish], now_ms: int) -> None:
    wanted = {(one.medium, _canonical(one)) for one in wished}
    held = {(one.medium, one.address) for one in threepids.list_threepids(txn, account.user_nid)}
    for medium, address in held - wanted:
        forget_address(txn, account.user_nid, medium, address)
    for medium, address in sorted(wanted - held):
        if not threepids.insert_threepid(txn, account.user_nid, Threepid(medium, address, now_ms, now_ms)):
            raise InvalidParam(f"Another user has the address {address}.")


def _canonical(wish: ThreepidWish) -> str:
    """Raises: InvalidParam."""
    if wish.medium == "email":
        name, at, host = wish.address.strip().rpartition("@")
        if name and at and host and wish.address.isprintable():
            return f"{name}@{host}".casefold()
    elif wish.medium == "msisdn" and _PHONE.fullmatch(wish.address):
        return wish.address
    raise InvalidParam("A third-party id is of the medium email or msisdn, and has an address of that kind.")


def _allow_key_reset(txn: WriteTxn, user_id: UserID, until_ms: int) -> None:
    account = get_account(txn, user_id)
    keys = cross_signing.list_cross_signing_keys(txn, [account.user_nid])[account.user_nid]
    if cross_signing.MASTER not in keys:
        raise NotFound("This user has no cross-signing keys.")
    cross_signing.allow_reset(txn, account.user_nid, until_ms)
