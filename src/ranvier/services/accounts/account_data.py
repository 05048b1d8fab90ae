"""Account data: what clients keep here for themselves, globally or for a room; and tags, which are a part of it.

Spec: client-server API, "Client Config" and "Room Tagging"; deletion: MSC3391.
"""

from collections.abc import Callable
from typing import Any, Final

import orjson

from ranvier.core.canonical_json import JsonObject, encode
from ranvier.core.errors import (
    BadIdentifier,
    BadJsonValue,
    Forbidden,
    InvalidParam,
    NotFound,
    ServerManagedAccountData,
)
from ranvier.core.identifiers import RoomID, UserID, parse_user_id
from ranvier.core.limits import MAX_IDENTIFIER_BYTES
from ranvier.services.push.rules import read_push_rules
from ranvier.services.requester import Requester
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables import account_data
from ranvier.store.tables.interned import Interned, Interner, intern_users
from ranvier.store.tables.memberships import find_membership
from ranvier.store.tables.rooms import find_room

TAG: Final = "m.tag"
IGNORED_USERS: Final = "m.ignored_user_list"
PUSH_RULES: Final = "m.push_rules"
SERVER_MANAGED: Final = frozenset(("m.fully_read", PUSH_RULES))
MAX_TAGS: Final = 500
MAX_IGNORED_USERS: Final = 10_000


class AccountDataStore:
    """Reads and writes what users keep here. `room_id` None: global."""

    def __init__(self, db: Database, interner: Interner) -> None:
        self._db = db
        self._interner = interner

    async def get(self, requester: Requester, user_id: UserID, room_id: RoomID | None, type_: str) -> bytes:
        """The content, JSON. Raises: Forbidden (not your own), NotFound."""
        check_own(requester, user_id)
        if type_ == PUSH_RULES and room_id is None:
            content = await self._db.read(read_push_rules, requester.user_nid, requester.user_id)
        else:
            content = await self._db.read(_find, requester.user_nid, room_id, type_)
        if content is None:
            raise NotFound("There is no such account data.")
        return content

    async def set(
        self, requester: Requester, user_id: UserID, room_id: RoomID | None, type_: str, content: JsonObject
    ) -> None:
        """Raises: Forbidden (not your own); NotFound (no room that the user has to do with); InvalidParam;
        ServerManagedAccountData.
        """
        check_own(requester, user_id)
        _check_type(type_)
        ignored = _ignored_users(content) if type_ == IGNORED_USERS and room_id is None else None
        interned = await self._db.write(
            _set, self._interner, requester.user_nid, room_id, type_, encode(content), ignored
        )
        self._interner.remember(Interned(users=interned))

    async def delete(self, requester: Requester, user_id: UserID, room_id: RoomID | None, type_: str) -> None:
        """Raises: as `set`; what is not there is deleted already."""
        check_own(requester, user_id)
        _check_type(type_)
        await self._db.write(_delete, requester.user_nid, room_id, type_)

    async def get_tags(self, requester: Requester, user_id: UserID, room_id: RoomID) -> JsonObject:
        """tag -> what is kept with it. Raises: Forbidden (not your own)."""
        check_own(requester, user_id)
        content = await self._db.read(_find, requester.user_nid, room_id, TAG)
        return _tags(content)

    async def set_tag(
        self, requester: Requester, user_id: UserID, room_id: RoomID, tag: str, content: JsonObject
    ) -> None:
        """Raises: Forbidden, NotFound, InvalidParam, BadJsonValue."""
        check_own(requester, user_id)
        _check_tag(tag, content)

        def add(tags: JsonObject) -> JsonObject:
            if tag not in tags and len(tags) >= MAX_TAGS:
                raise InvalidParam(f"A room has at most {MAX_TAGS} tags.")
            return {**tags, tag: content}

        await self._db.write(_change_tags, requester.user_nid, room_id, add)

    async def delete_tag(self, requester: Requester, user_id: UserID, room_id: RoomID, tag: str) -> None:
        """Raises: Forbidden, NotFound (no such room)."""
        check_own(requester, user_id)

        def remove(tags: JsonObject) -> JsonObject:
            return {name: content for name, content in tags.items() if name != tag}

        await self._db.write(_change_tags, requester.user_nid, room_id, remove)


def check_own(requester: Requester, user_id: UserID) -> None:
    """Raises: Forbidden: everybody has their own data alone."""
    if requester.user_id != user_id:
        raise Forbidden("This belongs to another user.")


def _check_type(type_: str) -> None:
    if type_ in SERVER_MANAGED:
        raise ServerManagedAccountData(f"{type_} cannot be set here.")
    if not type_ or len(type_.encode("utf-8", "surrogatepass")) > MAX_IDENTIFIER_BYTES:
        raise InvalidParam(f"A type has 1 to {MAX_IDENTIFIER_BYTES} bytes.")


def _check_tag(tag: str, content: JsonObject) -> None:
    if not tag or len(tag.encode("utf-8", "surrogatepass")) > MAX_IDENTIFIER_BYTES:
        raise InvalidParam(f"A tag has 1 to {MAX_IDENTIFIER_BYTES} bytes.")
    order = content.get("order")
    if order is not None and (isinstance(order, bool) or not isinstance(order, int | float)):
        raise BadJsonValue("order is a number.")


def _ignored_users(content: JsonObject) -> list[UserID]:
    """Whom the list names. Ids that are none cannot be a sender's and are passed over."""
    named = content.get("ignored_users")
    if not isinstance(named, dict):
        return []
    if len(named) > MAX_IGNORED_USERS:
        raise InvalidParam(f"At most {MAX_IGNORED_USERS} users can be ignored.")
    found = []
    for user_id in named:
        try:
            found.append(parse_user_id(user_id))
        except BadIdentifier:
            continue
    return found


def _room_nid(txn: ReadTxn, user_nid: int, room_id: RoomID | None) -> int | None:
    """The number of a room that the user has or had to do with."""
    if room_id is None:
        return account_data.GLOBAL
    room = find_room(txn, room_id)
    if room is None or find_membership(txn, room.room_nid, user_nid) is None:
        return None
    return room.room_nid


def _known_room_nid(txn: ReadTxn, user_nid: int, room_id: RoomID | None) -> int:
    room_nid = _room_nid(txn, user_nid, room_id)
    if room_nid is None:
        raise NotFound("You have nothing to do with such a room.")
    return room_nid


def _find(txn: ReadTxn, user_nid: int, room_id: RoomID | None, type_: str) -> bytes | None:
    room_nid = _room_nid(txn, user_nid, room_id)
    return None if room_nid is None else account_data.find_account_data(txn, user_nid, room_nid, type_)


def _set(
    txn: WriteTxn,
    interner: Interner,
    user_nid: int,
    room_id: RoomID | None,
    type_: str,
    content: bytes,
    ignored: list[UserID] | None,
) -> dict[UserID, int]:
    room_nid = _known_room_nid(txn, user_nid, room_id)
    account_data.set_account_data(txn, user_nid, room_nid, type_, content)
    if ignored is None:
        return {}
    nids = intern_users(txn, interner, ignored)
    account_data.set_ignored_users(txn, user_nid, nids.values())
    return nids


def _delete(txn: WriteTxn, user_nid: int, room_id: RoomID | None, type_: str) -> None:
    room_nid = _known_room_nid(txn, user_nid, room_id)
    account_data.delete_account_data(txn, user_nid, room_nid, type_)
    if type_ == IGNORED_USERS and room_id is None:
        account_data.set_ignored_users(txn, user_nid, ())


def _change_tags(
    txn: WriteTxn, user_nid: int, room_id: RoomID, change: Callable[[JsonObject], JsonObject]
) -> None:
    room_nid = _known_room_nid(txn, user_nid, room_id)
    old = _tags(account_data.find_account_data(txn, user_nid, room_nid, TAG))
    new = change(old)
    if new != old:
        account_data.set_account_data(txn, user_nid, room_nid, TAG, encode({"tags": new}))


def _tags(content: bytes | None) -> JsonObject:
    """The tags in m.tag, which a client may have written as it likes."""
    stored: Any = {} if content is None else orjson.loads(content)
    tags = stored.get("tags")
    return tags if isinstance(tags, dict) else {}
