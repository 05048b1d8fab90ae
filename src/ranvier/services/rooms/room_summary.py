"""What a room is about, for those who are not in it: in the directory, before joining, in the tree of a space.

Spec: client-server API, definitions/public_rooms_chunk.yaml, definitions/room_summary.yaml.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from ranvier.core.auth.select import JOIN_RULES
from ranvier.core.errors import NotFound
from ranvier.core.identifiers import RoomID, ServerName
from ranvier.core.room_versions import get_room_version
from ranvier.services.requester import Requester
from ranvier.services.rooms.access import may_preview
from ranvier.services.rooms.conditions import RESTRICTED, list_allowed_rooms
from ranvier.services.rooms.elsewhere import list_here, list_servers, list_ways
from ranvier.services.rooms.live import read_slots
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables import memberships, rooms
from ranvier.store.tables.interned import Interner
from ranvier.store.tables.rooms import Room, RoomSummary

_NOT_FOUND: Final = "This room is not found."
_OPEN: Final = ("public", "knock", "knock_restricted")


class PublicSummary(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A room in the directory."""

    room_id: RoomID
    num_joined_members: int
    world_readable: bool
    guest_can_join: bool
    name: str | None = None
    topic: str | None = None
    avatar_url: str | None = None
    canonical_alias: str | None = None
    join_rule: str | None = None
    room_type: str | None = None


class Summary(PublicSummary, frozen=True, kw_only=True, omit_defaults=True):
    """A room by itself."""

    room_version: str | None = None  # another server may not tell
    encryption: str | None = None
    allowed_room_ids: Sequence[RoomID] | None = None
    membership: str | None = None  # of the requester; only where the room was asked for by itself


def public_summary(room_id: RoomID, joined_count: int, summary: RoomSummary) -> PublicSummary:
    return PublicSummary(
        room_id=room_id,
        num_joined_members=joined_count,
        world_readable=summary.history_visibility == "world_readable",
        guest_can_join=summary.guest_can_join,
        name=summary.name,
        topic=summary.topic,
        avatar_url=summary.avatar_url,
        canonical_alias=summary.canonical_alias,
        join_rule=summary.join_rule or "invite",
        room_type=summary.room_type,
    )


def build_summary(
    room: Room, summary: RoomSummary, allowed_rooms: Sequence[RoomID], membership: str | None = None
) -> Summary:
    """`allowed_rooms`: of a restricted room, those whose members may join."""
    public = public_summary(room.room_id, room.joined_count, summary)
    return Summary(
        **msgspec.structs.asdict(public),
        room_version=room.version,
        encryption=summary.encryption,
        allowed_room_ids=allowed_rooms or None,
        membership=membership,
    )


FetchSummary = Callable[[Sequence[ServerName], RoomID], Awaitable[Summary | None]]
"""What the first of some servers that knows a room tells of it; None if none does."""


class Previews:
    """Summaries for whoever may see them."""

    def __init__(self, db: Database, interner: Interner, fetch: FetchSummary) -> None:
        self._db = db
        self._interner = interner
        self._fetch = fetch

    async def get_summary(
        self, requester: Requester | None, room_id: RoomID, servers: Sequence[ServerName] = ()
    ) -> Summary:
        """`servers` may know a room that this one is not in; they are asked for those who have an account.

        Raises: NotFound, also for a room that is not for the requester to see.
        """
        user_nid = None if requester is None else requester.user_nid
        known = await self._db.read(_read_known, self._interner, user_nid, room_id)
        if not known.is_here and user_nid is not None:
            ways = dict.fromkeys((*servers, *known.ways))
            told = await self._fetch([one for one in ways if one != self._interner.own_server], room_id)
            if told is not None and await self._db.read(may_preview_remote, told, user_nid):
                return msgspec.structs.replace(told, membership=known.membership)
        if known.summary is None:
            raise NotFound(_NOT_FOUND)
        return known.summary


class _Known(msgspec.Struct, frozen=True):
    """What is known here of a room. What is known of one that this server has left may be old."""

    is_here: bool = False
    summary: Summary | None = None  # None: nothing that is for the requester to see
    membership: str | None = None
    ways: Sequence[ServerName] = ()


def _read_known(txn: ReadTxn, interner: Interner, user_nid: int | None, room_id: RoomID) -> _Known:
    room = rooms.find_room(txn, room_id)
    if room is None:
        return _Known(ways=list(list_servers((room_id,))))
    membership = None
    if user_nid is not None:
        found = memberships.find_membership(txn, room.room_nid, user_nid)
        membership = None if found is None else found.membership
    is_here = bool(list_here(txn, interner, (room,)))
    ways = [] if is_here or user_nid is None else list_ways(txn, interner, room_id, user_nid)
    summary = rooms.list_summaries(txn, (room.room_nid,)).get(room.room_nid, RoomSummary())
    if not may_preview(txn, interner, room, summary, user_nid, membership):
        return _Known(is_here, None, membership, ways)
    allowed = list_allowed_rooms_of(txn, interner, room, summary)
    return _Known(is_here, build_summary(room, summary, allowed, membership), membership, ways)


def may_preview_remote(txn: ReadTxn, summary: Summary, user_nid: int) -> bool:
    """Whether a user may learn what another server tells of a room. Cost: a query or two but for open rooms."""
    # Without a join rule a room counts as public: definitions/public_rooms_chunk.yaml.
    if summary.world_readable or (summary.join_rule or "public") in _OPEN:
        return True
    allowed = summary.allowed_room_ids if summary.join_rule == "restricted" else None
    if allowed and memberships.list_joined_among(txn, user_nid, allowed):
        return True
    room = rooms.find_room(txn, summary.room_id)
    now = None if room is None else memberships.find_membership(txn, room.room_nid, user_nid)
    return now is not None and now.membership in (memberships.JOIN, memberships.INVITE)


def list_allowed_rooms_of(txn: ReadTxn, interner: Interner, room: Room, summary: RoomSummary) -> list[RoomID]:
    """Of a restricted room, those whose members may join. No query for other rooms."""
    if summary.join_rule not in RESTRICTED:
        return []
    version = get_room_version(room.version)
    slots = read_slots(txn, interner, room.room_nid, room.room_id, version, (JOIN_RULES,))
    return list_allowed_rooms(slots[JOIN_RULES])
