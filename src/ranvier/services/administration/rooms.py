"""Rooms as administrators see them."""

from typing import Any, Final, cast, get_args

import msgspec

from ranvier.core.errors import NotFound
from ranvier.core.identifiers import EventID, RoomID, UserID
from ranvier.io.clock import Clock
from ranvier.services.administration.people import get_room
from ranvier.services.requester import Requester
from ranvier.services.rooms.presenting import NOBODY, Presenting, client_event
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables import memberships, rooms, state
from ranvier.store.tables.admin_rooms import (
    ListedRoom,
    Order,
    count_local_devices,
    count_rooms_for_admin,
    find_room_for_admin,
    is_forgotten_by_all,
    list_heads,
    list_largest_rooms,
    list_rooms_for_admin,
)
from ranvier.store.tables.admin_rooms import (
    RoomFilter as RoomFilter,
)
from ranvier.store.tables.events import list_events
from ranvier.store.tables.interned import Interner, list_state_keys, list_user_ids

LARGEST: Final = 10
ORDERS: Final[tuple[str, ...]] = get_args(Order)


class RoomInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A room, with the names that Synapse gives its parts."""

    room_id: RoomID
    name: str | None
    canonical_alias: str | None
    joined_members: int
    joined_local_members: int
    version: str
    creator: str | None
    encryption: str | None
    federatable: bool
    public: bool
    join_rules: str | None
    guest_access: str | None
    history_visibility: str | None
    state_events: int
    room_type: str | None


class RoomDetails(msgspec.Struct, frozen=True, kw_only=True):
    """What one room has besides."""

    avatar: str | None
    topic: str | None
    joined_local_devices: int
    forgotten: bool
    tombstoned: bool
    replacement_room: str | None


class RoomPage(msgspec.Struct, frozen=True):
    rooms: list[RoomInfo]
    total: int


class Head(msgspec.Struct, frozen=True):
    """A forward extremity."""

    event_id: EventID
    state_group: int | None
    depth: int
    received_ts: int


class _CreateContent(msgspec.Struct, gc=False):
    federate: object = msgspec.field(default=True, name="m.federate")


class _Create(msgspec.Struct, gc=False):
    content: _CreateContent


class Rooms:
    """Looks rooms up, and blocks them."""

    def __init__(self, db: Database, interner: Interner, clock: Clock, presenting: Presenting) -> None:
        self._db = db
        self._interner = interner
        self._clock = clock
        self._presenting = presenting

    async def list_page(
        self, wanted: RoomFilter, order: str, *, backwards: bool, limit: int, offset: int
    ) -> RoomPage:
        """A page of those rooms, by one of ORDERS."""

        def read(txn: ReadTxn) -> RoomPage:
            by = cast(Order, order)
            found = list_rooms_for_admin(txn, wanted, by, backwards=backwards, limit=limit, offset=offset)
            return RoomPage([_info(room) for room in found], count_rooms_for_admin(txn, wanted))

        return await self._db.read(read)

    async def get(self, room_id: RoomID) -> tuple[RoomInfo, RoomDetails]:
        """Raises: NotFound."""
        return await self._db.read(_read_details, room_id)

    async def is_known(self, room_id: RoomID) -> bool:
        """Whether more than the name of the room is here."""
        return await self._db.read(find_room_for_admin, room_id) is not None

    async def list_members(self, room_id: RoomID) -> list[UserID]:
        """Who is joined. Raises: NotFound."""

        def read(txn: ReadTxn) -> list[UserID]:
            nids = [nid for nid, _ in memberships.list_members(txn, get_room(txn, room_id).room_nid)]
            names = list_user_ids(txn, self._interner, nids)
            return [names[nid] for nid in nids]

        return await self._db.read(read)

    async def list_state(self, room_id: RoomID, event_type: str | None) -> list[bytes]:
        """The state now, as client events; of one type only, or all. Raises: NotFound."""
        return await self._db.read(self._read_state, room_id, event_type, self._clock.now_ms())

    async def find_blocker(self, room_id: RoomID) -> str | None:
        """Who blocked the room, which need not be known here; None: nobody."""
        return await self._db.read(rooms.find_blocker, room_id)

    async def block(self, requester: Requester, room_id: RoomID, *, is_blocked: bool) -> None:
        """Let nobody of this server enter the room, which need not be known here, or let them again."""
        if is_blocked:
            await self._db.write(rooms.block_room, room_id, requester.user_id, self._clock.now_ms())
        else:
            await self._db.write(rooms.unblock_room, room_id)

    async def list_heads(self, room_id: RoomID) -> list[Head]:
        """The forward extremities. Raises: NotFound."""

        def read(txn: ReadTxn) -> list[Head]:
            found = list_heads(txn, get_room(txn, room_id).extremities)
            return [Head(one.event_id, one.state_root, one.depth, one.origin_server_ts) for one in found]

        return await self._db.read(read)

    async def list_largest(self) -> list[dict[str, Any]]:
        """The rooms whose events take the most bytes."""
        found = await self._db.read(list_largest_rooms, LARGEST)
        return [{"room_id": room_id, "estimated_size": size} for room_id, size in found]

    def _read_state(self, txn: ReadTxn, room_id: RoomID, event_type: str | None, now_ms: int) -> list[bytes]:
        current = state.list_current_state(txn, get_room(txn, room_id).room_nid)
        if event_type is not None:
            slots = list_state_keys(txn, self._interner, current)
            current = {slot: nid for slot, nid in current.items() if slots[slot][0] == event_type}
        records = list(list_events(txn, current.values()).values())
        facts = self._presenting.facts(txn, records, with_replaced=False)
        return [client_event(one, NOBODY, now_ms, room_id) for one in facts]


def _read_details(txn: ReadTxn, room_id: RoomID) -> tuple[RoomInfo, RoomDetails]:
    room = find_room_for_admin(txn, room_id)
    if room is None:
        raise NotFound("This server does not know this room.")
    return _info(room), RoomDetails(
        avatar=room.avatar_url,
        topic=room.topic,
        joined_local_devices=count_local_devices(txn, room.room_nid),
        forgotten=is_forgotten_by_all(txn, room.room_nid),
        tombstoned=room.is_closed,
        replacement_room=room.successor_room_id,
    )


def _info(room: ListedRoom) -> RoomInfo:
    create = None if room.create_json is None else msgspec.json.decode(room.create_json, type=_Create)
    return RoomInfo(
        room_id=room.room_id,
        name=room.name,
        canonical_alias=room.canonical_alias,
        joined_members=room.joined_count,
        joined_local_members=room.joined_local_count,
        version=room.version,
        creator=room.create_sender,
        encryption=room.encryption,
        federatable=create is None or create.content.federate is not False,
        public=room.is_public,
        join_rules=room.join_rule,
        guest_access="can_join" if room.guest_can_join else "forbidden",
        history_visibility=room.history_visibility,
        state_events=room.state_count,
        room_type=room.room_type,
    )
