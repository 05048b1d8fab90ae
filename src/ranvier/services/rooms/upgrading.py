"""Replacing a room by one of another version. Spec: client-server API, "Room upgrades"."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from ranvier.core.auth.power import PowerLevels
from ranvier.core.auth.select import CREATE, POWER_LEVELS
from ranvier.core.canonical_json import JsonObject
from ranvier.core.errors import AuthRejected, BadJson, Forbidden, InvalidRoomState, MatrixError, UserSuspended
from ranvier.core.identifiers import RoomID, StateKey, UserID
from ranvier.core.room_versions import RoomVersion, get_room_version
from ranvier.services.requester import Requester
from ranvier.services.rooms.access import access_joined
from ranvier.services.rooms.canonical_alias import CANONICAL_ALIAS
from ranvier.services.rooms.creating import Creating
from ranvier.services.rooms.live import pdu_of, read_slots
from ranvier.services.rooms.new_room import state_drafts
from ranvier.services.rooms.succession import follow
from ranvier.services.rooms.successor import TRANSFERRED, OldRoom, build_successor_drafts, closed_power_levels
from ranvier.services.rooms.timeline import Draft, Timeline
from ranvier.store.database import Database, ReadTxn, WriteTxn
from ranvier.store.tables import aliases, directory, events, memberships, rooms, state
from ranvier.store.tables.interned import Interner, list_user_ids
from ranvier.store.tables.rooms import Room

MAX_CHILDREN: Final = 1_000
"""Rooms of a space that go over to the new space."""
MAX_BANS: Final = 5_000
"""Bans that go over to the new room, the oldest first."""
_BATCH: Final = 100

_TOMBSTONE: Final = "m.room.tombstone"
_SPACE_CHILD: Final = "m.space.child"


class Upgrading:
    """Upgrades rooms."""

    def __init__(self, db: Database, interner: Interner, timeline: Timeline, creating: Creating) -> None:
        self._db = db
        self._interner = interner
        self._timeline = timeline
        self._creating = creating

    async def upgrade(
        self,
        requester: Requester,
        room_id: RoomID,
        version_name: str,
        additional_creators: Sequence[str] = (),
    ) -> RoomID:
        """Make the new room, with what goes over; then close the old one. The new room's id.

        Raises: UnsupportedRoomVersion; Forbidden; UserSuspended; BadJsonValue; InvalidRoomState.
        """
        if requester.is_suspended:
            raise UserSuspended("This account is suspended: it may not change rooms.")
        version = self._creating.choose_version(version_name)
        old = await self._db.read(_read_old, self._interner, requester, room_id)
        founder = await self._creating.founder(requester)
        drafts = build_successor_drafts(old, founder, version, additional_creators)
        new_id = await self._create(requester, old, version, drafts)
        await self._close(requester, old, new_id)
        await self._carry_bans(requester, old, new_id)
        return new_id

    async def _create(
        self, requester: Requester, old: OldRoom, version: RoomVersion, drafts: Sequence[Draft]
    ) -> RoomID:
        def also(txn: WriteTxn, room_nid: int) -> None:
            aliases.move_aliases(txn, old.room_nid, room_nid)
            if old.is_published:
                directory.hide_room(txn, old.room_nid)
                directory.publish_room(txn, room_nid)
            both = rooms.list_rooms(txn, (old.room_nid, room_nid))
            follow(txn, requester.user_nid, both[old.room_nid], both[room_nid])

        try:
            return await self._timeline.create(version, drafts, also)
        except AuthRejected as error:
            raise InvalidRoomState(f"The new room's rules forbid this: {error}.") from error

    async def _close(self, requester: Requester, old: OldRoom, new_id: RoomID) -> None:
        """Lead everybody to the new room; and as far as the requester may, leave no reason to stay."""
        tombstone = {"body": "This room has been replaced.", "replacement_room": new_id}
        await self._send(requester, old.room_id, [((_TOMBSTONE, ""), tombstone)])
        power = PowerLevels.from_events(old.state[CREATE], old.state[POWER_LEVELS], old.version)
        wished: list[tuple[StateKey, JsonObject]] = [(POWER_LEVELS, closed_power_levels(power))]
        if old.canonical_alias is not None:
            wished.append((CANONICAL_ALIAS, {}))
        for one in wished:
            with suppress(AuthRejected, BadJson, MatrixError):
                await self._send(requester, old.room_id, [one])

    async def _carry_bans(self, requester: Requester, old: OldRoom, new_id: RoomID) -> None:
        """Who was banned stays banned, if the requester may do that."""
        for start in range(0, len(old.banned), _BATCH):
            batch = old.banned[start : start + _BATCH]
            try:
                await self._send(
                    requester, new_id, [(("m.room.member", user_id), content) for user_id, content in batch]
                )
            except (AuthRejected, BadJson, MatrixError):
                return  # the new room is there: without the bans that its power levels do not allow

    async def _send(
        self, requester: Requester, room_id: RoomID, states: Sequence[tuple[StateKey, JsonObject]]
    ) -> None:
        await self._timeline.send(room_id, state_drafts(requester.user_id, states))


def _read_old(txn: ReadTxn, interner: Interner, requester: Requester, room_id: RoomID) -> OldRoom:
    room = access_joined(txn, room_id, requester.user_nid)
    version = get_room_version(room.version)
    slots = (CREATE, POWER_LEVELS, CANONICAL_ALIAS, *TRANSFERRED)
    found = read_slots(txn, interner, room.room_nid, room_id, version, slots)
    power = PowerLevels.from_events(found[CREATE], found[POWER_LEVELS], version)
    if power.user_level(requester.user_id) < power.event_level(_TOMBSTONE, is_state=True):
        raise Forbidden("You may not upgrade this room.")
    newest = max(room.extremities)
    alias_event = found[CANONICAL_ALIAS]
    return OldRoom(
        room_nid=room.room_nid,
        room_id=room_id,
        version=version,
        state=found,
        children=_list_children(txn, room, version),
        banned=_list_banned(txn, interner, room, version),
        newest_event_id=events.list_event_ids(txn, (newest,))[newest],
        canonical_alias=None if alias_event is None else _moved(alias_event.content, interner),
        is_published=directory.is_published(txn, room.room_nid),
    )


def _list_children(txn: ReadTxn, room: Room, version: RoomVersion) -> list[tuple[StateKey, JsonObject]]:
    """What a space leads to: that stays true of the space that replaces it."""
    summary = rooms.list_summaries(txn, (room.room_nid,)).get(room.room_nid)
    if summary is None or summary.room_type != "m.space":
        return []
    nids = state.list_slots_of_type(txn, room.room_nid, _SPACE_CHILD).values()
    pdus = (
        pdu_of(record, room.room_id, version)
        for record in events.list_events(txn, sorted(nids)[:MAX_CHILDREN]).values()
    )
    return [(pdu.slot, pdu.content) for pdu in pdus if pdu.content]


def _list_banned(
    txn: ReadTxn, interner: Interner, room: Room, version: RoomVersion
) -> list[tuple[UserID, JsonObject]]:
    banned = memberships.list_members(txn, room.room_nid, memberships.BAN, MAX_BANS)
    user_ids = list_user_ids(txn, interner, [user_nid for user_nid, _ in banned])
    records = events.list_events(txn, [nid for _, nid in banned])
    return [
        (user_ids[user_nid], pdu_of(records[nid], room.room_id, version).content) for user_nid, nid in banned
    ]


def _moved(content: JsonObject, interner: Interner) -> JsonObject | None:
    """The canonical alias of the new room: those of this server, which move to it."""

    def is_own(alias: object) -> bool:
        return isinstance(alias, str) and alias.partition(":")[2] == interner.own_server

    moved: JsonObject = {}
    if is_own(content.get("alias")):
        moved["alias"] = content["alias"]
    alternatives = content.get("alt_aliases")
    if isinstance(alternatives, list) and (own := [one for one in alternatives if is_own(one)]):
        moved["alt_aliases"] = own
    return moved or None
