"""Accounts as administrators see them, and what is known of users besides."""

from typing import Any, Final, cast, get_args

import msgspec
from msgspec import UNSET, UnsetType

from ranvier.core.errors import NotFound
from ranvier.core.identifiers import RoomID, UserID
from ranvier.services.administration.people import act_as, get_account
from ranvier.services.requester import Requester
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables import memberships
from ranvier.store.tables.account_data import GLOBAL, list_account_data
from ranvier.store.tables.accounts import find_account, find_external_id, list_external_ids
from ranvier.store.tables.admin_users import (
    ListedUser,
    Order,
    count_joined_rooms_since,
    count_users,
    find_user,
    list_member_events_since,
    list_users,
)
from ranvier.store.tables.admin_users import (
    UserFilter as UserFilter,
)
from ranvier.store.tables.interned import Interner, find_user_nids
from ranvier.store.tables.rooms import list_rooms
from ranvier.store.tables.threepids import find_threepid_owner, list_threepids

ORDERS: Final[tuple[str, ...]] = get_args(Order)


class ThreepidInfo(msgspec.Struct, frozen=True):
    medium: str
    address: str
    added_at: int
    validated_at: int


class ExternalId(msgspec.Struct, frozen=True):
    auth_provider: str
    external_id: str


class UserInfo(msgspec.Struct, frozen=True, kw_only=True):
    """An account, with the names that Synapse gives its parts."""

    name: UserID
    displayname: str | None
    avatar_url: str | None
    is_guest: bool
    admin: bool
    deactivated: bool
    erased: bool
    locked: bool
    suspended: bool
    shadow_banned: bool = False
    approved: bool = True
    user_type: str | None
    creation_ts: int
    last_seen_ts: int | None
    appservice_id: str | None
    consent_server_notice_sent: None = None
    consent_version: None = None
    consent_ts: None = None
    # Not in lists.
    threepids: list[ThreepidInfo] | UnsetType = UNSET
    external_ids: list[ExternalId] | UnsetType = UNSET


class UserPage(msgspec.Struct, frozen=True, kw_only=True):
    users: list[UserInfo]
    total: int
    next_offset: int | None


class Users:
    """Looks accounts up."""

    def __init__(self, db: Database, interner: Interner) -> None:
        self._db = db
        self._interner = interner

    async def list_page(
        self, wanted: UserFilter, order: str, *, backwards: bool, limit: int, offset: int
    ) -> UserPage:
        """A page of those accounts, by one of ORDERS."""

        def read(txn: ReadTxn) -> UserPage:
            found = list_users(
                txn, wanted, cast(Order, order), backwards=backwards, limit=limit, offset=offset
            )
            total = count_users(txn, wanted)
            end = offset + len(found)
            return UserPage(
                users=[UserInfo(**_facts(user)) for user in found],
                total=total,
                next_offset=end if found and end < total else None,
            )

        return await self._db.read(read)

    async def get(self, user_id: UserID) -> UserInfo:
        """Raises: NotFound."""
        return await self._db.read(_read_details, user_id)

    async def is_admin(self, user_id: UserID) -> bool:
        """Raises: NotFound."""
        return (await self.get(user_id)).admin

    async def act_as(self, user_id: UserID) -> Requester:
        """The user, for services that ask who asks. Raises: NotFound."""
        return act_as(await self._db.read(get_account, user_id))

    async def list_joined_rooms(self, user_id: UserID) -> list[RoomID]:
        """Raises: NotFound: nobody here has ever met this user."""
        return sorted(
            room_id
            for room_id, membership in (await self.list_memberships(user_id)).items()
            if membership == memberships.JOIN
        )

    async def list_memberships(self, user_id: UserID) -> dict[RoomID, str]:
        """What a user, of this server or another one, is in which room. Raises: NotFound."""
        return await self._db.read(_read_memberships, self._interner, user_id)

    async def list_account_data(self, user_id: UserID) -> dict[str, Any]:
        """`global` and `rooms`: what the user keeps here. Raises: NotFound."""
        return await self._db.read(_read_account_data, user_id)

    async def count_joined_rooms(self, user_id: UserID, from_ms: int) -> int:
        """Raises: NotFound."""

        def read(txn: ReadTxn) -> int:
            return count_joined_rooms_since(txn, get_account(txn, user_id).user_nid, from_ms)

        return await self._db.read(read)

    async def count_sent_invites(self, user_id: UserID, from_ms: int) -> int:
        """Raises: NotFound."""

        def read(txn: ReadTxn) -> int:
            nids = list_member_events_since(txn, get_account(txn, user_id).user_nid, from_ms)
            said = memberships.list_stored_memberships(txn, nids)
            return sum(membership == memberships.INVITE for membership in said.values())

        return await self._db.read(read)

    async def find_by_threepid(self, medium: str, address: str) -> UserID:
        """Raises: NotFound."""

        def read(txn: ReadTxn) -> UserID:
            return _named(txn, find_threepid_owner(txn, medium, address.replace("\0", "")))

        return await self._db.read(read)

    async def find_by_external_id(self, provider: str, external_id: str) -> UserID:
        """Raises: NotFound."""

        def read(txn: ReadTxn) -> UserID:
            found = find_external_id(txn, provider.replace("\0", ""), external_id.replace("\0", ""))
            return _named(txn, found)

        return await self._db.read(read)


def _facts(user: ListedUser) -> dict[str, Any]:
    return {
        "name": user.user_id,
        "displayname": _text(user.displayname),
        "avatar_url": _text(user.avatar_url),
        "is_guest": user.kind == "guest",
        "admin": user.kind == "admin",
        "deactivated": user.deactivated_ms is not None,
        "erased": user.is_erased,
        "locked": user.is_locked,
        "suspended": user.is_suspended,
        "user_type": user.user_type,
        "creation_ts": user.created_ms,
        "last_seen_ts": user.last_seen_ms,
        "appservice_id": user.appservice_id,
    }


def _text(stored: bytes | None) -> str | None:
    value = None if stored is None else msgspec.json.decode(stored)
    return value if isinstance(value, str) else None


def _read_details(txn: ReadTxn, user_id: UserID) -> UserInfo:
    user = find_user(txn, user_id)
    if user is None:
        raise NotFound("There is no such user.")
    facts = _facts(user)
    # In seconds here, though in milliseconds in lists: so does Synapse, and so tools expect it.
    facts["creation_ts"] //= 1000
    return UserInfo(
        threepids=[
            ThreepidInfo(one.medium, one.address, one.added_ms, one.validated_ms)
            for one in list_threepids(txn, user.user_nid)
        ],
        external_ids=[ExternalId(*one) for one in list_external_ids(txn, user.user_nid)],
        **facts,
    )


def _read_memberships(txn: ReadTxn, interner: Interner, user_id: UserID) -> dict[RoomID, str]:
    nid = find_user_nids(txn, interner, (user_id,)).get(user_id)
    if nid is None:
        raise NotFound("There is no such user.")
    found = memberships.list_rooms_of_user(txn, nid, memberships.MEMBERSHIPS)
    names = list_rooms(txn, [one.room_nid for one in found])
    return {names[one.room_nid].room_id: one.membership for one in found}


def _read_account_data(txn: ReadTxn, user_id: UserID) -> dict[str, Any]:
    found = list_account_data(txn, get_account(txn, user_id).user_nid, txn.position)
    names = list_rooms(txn, {one.room_nid for one in found if one.room_nid != GLOBAL})
    everywhere: dict[str, msgspec.Raw] = {}
    in_rooms: dict[str, dict[str, msgspec.Raw]] = {}
    for one in found:
        if one.content is None:
            continue
        part = everywhere if one.room_nid == GLOBAL else in_rooms.setdefault(names[one.room_nid].room_id, {})
        part[one.type] = msgspec.Raw(one.content)
    return {"global": everywhere, "rooms": in_rooms}


def _named(txn: ReadTxn, user_nid: int | None) -> UserID:
    account = None if user_nid is None else find_account(txn, user_nid)
    if account is None:
        raise NotFound("There is no such user.")
    return account.user_id
