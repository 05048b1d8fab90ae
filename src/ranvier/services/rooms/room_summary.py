"""What a room is about, for those who are not in it: in the directory, before joining, in the tree of a space.

Spec: client-server API, definitions/public_rooms_chunk.yaml, definitions/room_summary.yaml.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from ranvier.core.auth.select import JOIN_RULES
from ranvier.core.errors import NotFound
from ranvier.core.identifiers import RoomID
from ranvier.core.room_versions import get_room_version
from ranvier.services.requester import Requester
from ranvier.services.rooms.access import may_preview
from ranvier.services.rooms.conditions import RESTRICTED, list_allowed_rooms
from ranvier.services.rooms.live import read_slots
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables import memberships, rooms
from ranvier.store.tables.interned import Interner
from ranvier.store.tables.rooms import Room, RoomSummary

_NOT_FOUND: Final = "This room is not found."


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

    room_version: str
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


class Previews:
    """Summaries for whoever may see them."""

    def __init__(self, db: Database, interner: Interner) -> None:
        self._db = db
        self._interner = interner

    async def get_summary(self, requester: Requester | None, room_id: RoomID) -> Summary:
        """Raises: NotFound, also for a room that is not for the requester to see."""
        return await self._db.read(_read_summary, self._interner, requester, room_id)


def _read_summary(txn: ReadTxn, interner: Interner, requester: Requester | None, room_id: RoomID) -> Summary:
    room = rooms.find_room(txn, room_id)
    user_nid = None if requester is None else requester.user_nid
    membership = None
    if room is not None and user_nid is not None:
        found = memberships.find_membership(txn, room.room_nid, user_nid)
        membership = None if found is None else found.membership
    if room is None:
        raise NotFound(_NOT_FOUND)
    summary = rooms.list_summaries(txn, (room.room_nid,)).get(room.room_nid, RoomSummary())
    if not may_preview(txn, interner, room, summary, user_nid, membership):
        raise NotFound(_NOT_FOUND)
    allowed = list_allowed_rooms_of(txn, interner, room, summary)
    return build_summary(room, summary, allowed, membership)


def list_allowed_rooms_of(txn: ReadTxn, interner: Interner, room: Room, summary: RoomSummary) -> list[RoomID]:
    """Of a restricted room, those whose members may join. No query for other rooms."""
    if summary.join_rule not in RESTRICTED:
        return []
    version = get_room_version(room.version)
    slots = read_slots(txn, interner, room.room_nid, room.room_id, version, (JOIN_RULES,))
    return list_allowed_rooms(slots[JOIN_RULES])
