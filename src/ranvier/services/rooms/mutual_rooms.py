"""Rooms that two users share. Spec: client-server API, "Mutual rooms" (v1.19)."""

from typing import Final

import msgspec

from ranvier.core.errors import InvalidParam
from ranvier.core.identifiers import RoomID, UserID
from ranvier.core.tokens import encode_list_token, parse_list_token
from ranvier.services.requester import Requester
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables import memberships, rooms
from ranvier.store.tables.interned import Interner, find_user_nids

PAGE: Final = 1000


class SharedRooms(msgspec.Struct, frozen=True, omit_defaults=True):
    """`count` is of all pages together."""

    joined: list[RoomID]
    count: int
    next_batch: str | None = None


class MutualRooms:
    """Tells what two users have in common, to one of them."""

    def __init__(self, db: Database, interner: Interner) -> None:
        self._db = db
        self._interner = interner

    async def list_shared(self, requester: Requester, other: UserID, since: str | None = None) -> SharedRooms:
        """The rooms in which both are joined, a page from `since` on.

        Raises: InvalidParam when the other is the requester; BadToken.
        """
        if other == requester.user_id:
            raise InvalidParam("user_id: rooms are shared with somebody else.")
        after = 0 if since is None else int(parse_list_token(since, (int,))[0])
        return await self._db.read(_read_shared, self._interner, requester.user_nid, other, after)


def _read_shared(txn: ReadTxn, interner: Interner, user_nid: int, other: UserID, after: int) -> SharedRooms:
    other_nid = find_user_nids(txn, interner, (other,)).get(other)
    if other_nid is None:
        return SharedRooms([], 0)
    shared = sorted(memberships.list_shared_rooms(txn, user_nid, other_nid))
    rest = [nid for nid in shared if nid > after]
    page = rest[:PAGE]
    names = rooms.list_rooms(txn, page)
    return SharedRooms(
        [names[nid].room_id for nid in page],
        len(shared),
        encode_list_token(page[-1]) if len(rest) > PAGE else None,
    )
