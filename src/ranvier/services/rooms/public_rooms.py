"""The directory: rooms that this server publishes. Spec: client-server API, "Published room directory"."""

from collections.abc import Awaitable, Callable
from typing import Final

import msgspec

from ranvier.core.errors import BadToken, Forbidden, NotFound, UserSuspended
from ranvier.core.identifiers import RoomID, ServerName
from ranvier.core.tokens import encode_list_token, parse_list_token
from ranvier.services.requester import Requester
from ranvier.services.rooms.aliases import may_set_canonical_alias
from ranvier.services.rooms.room_summary import PublicSummary, public_summary
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables import directory, rooms
from ranvier.store.tables.directory import OWN_NETWORK, DirectoryPlace, DirectoryQuery
from ranvier.store.tables.interned import Interner

MAX_PAGE: Final = 500
"""Rooms in one answer, and how many there are if nobody asks for less."""

_FORWARDS: Final = "next"
_BACKWARDS: Final = "prev"


class RoomsWish(msgspec.Struct, frozen=True, kw_only=True):
    """Which rooms a client asks for."""

    limit: int = MAX_PAGE
    since: str | None = None
    text: str | None = None
    room_types: tuple[str | None, ...] | None = None
    networks: tuple[str, ...] | None = (OWN_NETWORK,)  # None: all
    versions: tuple[str, ...] | None = None  # of rooms; None: any


class RoomsPage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Spec: definitions/public_rooms_response.yaml."""

    chunk: list[PublicSummary]
    total_room_count_estimate: int
    next_batch: str | None = None
    prev_batch: str | None = None


FetchPage = Callable[[ServerName, RoomsWish], Awaitable[RoomsPage]]
"""Ask another server for a page of its directory. Raises: BadGateway."""


class PublicRooms:
    """The directory of this server, and what others answer for theirs."""

    def __init__(self, db: Database, interner: Interner, fetch: FetchPage) -> None:
        self._fetch = fetch
        self._db = db
        self._interner = interner

    async def list_rooms(self, wish: RoomsWish, server: ServerName | None = None) -> RoomsPage:
        """A page, the largest room first.

        Raises: BadToken; BadGateway for the directory of another server.
        """
        if server is not None and server != self._interner.own_server:
            return await self._fetch(server, wish)
        return await self._db.read(_read_page, _query(wish))

    async def is_published(self, room_id: RoomID) -> bool:
        """Raises: NotFound (the room is not known here)."""
        return await self._db.read(_is_published, room_id)

    async def publish(self, requester: Requester, room_id: RoomID, *, is_published: bool) -> None:
        """Show a room in the directory, or show it no longer.

        Who may set the room's canonical alias may, and administrators.

        Raises: NotFound (the room is not known here); Forbidden; UserSuspended.
        """
        if requester.is_suspended:
            raise UserSuspended("This account is suspended: it may not change rooms.")
        await self._db.write(_publish, self._interner, requester, room_id, is_published)


def _query(wish: RoomsWish) -> DirectoryQuery:
    after = None
    direction: object = _FORWARDS
    if wish.since is not None:
        direction, joined_count, room_nid = parse_list_token(wish.since, (str, int, int))
        if direction not in (_FORWARDS, _BACKWARDS):
            raise BadToken("this token is of no list of rooms")
        after = DirectoryPlace(int(joined_count), int(room_nid))
    return DirectoryQuery(
        networks=wish.networks,
        versions=wish.versions,
        text=wish.text,
        room_types=wish.room_types,
        after=after,
        backwards=direction == _BACKWARDS,
        limit=max(0, min(wish.limit, MAX_PAGE)),
    )


def _read_page(txn: ReadTxn, query: DirectoryQuery) -> RoomsPage:
    """One room more is read than is shown, to learn whether there is more in that direction."""
    found = directory.list_published(txn, msgspec.structs.replace(query, limit=query.limit + 1))
    has_more = len(found) > query.limit
    if query.backwards:
        shown = found[1:] if has_more else found
        has_previous, has_next = has_more, True
    else:
        shown = found[: query.limit]
        has_previous, has_next = query.after is not None, has_more
    return RoomsPage(
        chunk=[public_summary(one.room_id, one.joined_count, one.summary) for one in shown],
        total_room_count_estimate=directory.count_published(txn, query),
        next_batch=_token(_FORWARDS, shown[-1]) if shown and has_next else None,
        prev_batch=_token(_BACKWARDS, shown[0]) if shown and has_previous else None,
    )


def _token(direction: str, room: directory.PublishedRoom) -> str:
    return encode_list_token(direction, room.joined_count, room.room_nid)


def _is_published(txn: ReadTxn, room_id: RoomID) -> bool:
    room = rooms.find_room(txn, room_id)
    if room is None:
        raise NotFound("This room is not known here.")
    return directory.is_published(txn, room.room_nid)


def _publish(
    txn: WriteTxn, interner: Interner, requester: Requester, room_id: RoomID, is_published: bool
) -> None:
    room = rooms.find_room(txn, room_id)
    if room is None:
        raise NotFound("This room is not known here.")
    if not requester.is_admin and not may_set_canonical_alias(txn, interner, room, requester.user_id):
        raise Forbidden("You may not decide whether this room is published.")
    change = directory.publish_room if is_published else directory.hide_room
    change(txn, room.room_nid)
