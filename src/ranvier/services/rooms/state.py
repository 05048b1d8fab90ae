"""Reading a room's state and its members. Spec: client-server API, "Getting events for a room"."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from ranvier.core import state_map
from ranvier.core.errors import NotFound
from ranvier.core.events.client import raw_content
from ranvier.core.identifiers import RoomID, StateKey
from ranvier.core.tokens import POSITION_SHIFT, parse_room_token
from ranvier.io.clock import Clock
from ranvier.services.requester import Requester
from ranvier.services.rooms.access import StateAccess, access_joined, access_state
from ranvier.services.rooms.presenting import NOBODY, Presenting, client_event
from ranvier.services.rooms.sight import Sight
from ranvier.services.rooms.wholeness import Wholeness
from ranvier.store.database import Database, ReadTxn
from ranvier.store.tables import events, memberships, partial_rooms, state
from ranvier.store.tables.events import EventRecord
from ranvier.store.tables.interned import Interner, find_state_key_nids, list_state_keys, list_user_ids
from ranvier.store.tables.state_nodes import NodeCache, SnapshotNodes

_MEMBER: Final = "m.room.member"


class MemberFilter(msgspec.Struct, frozen=True):
    """Spec: GET /rooms/{roomId}/members: with both, the one *or* the other has to hold."""

    membership: str | None = None
    not_membership: str | None = None

    def takes(self, membership: str) -> bool:
        if self.membership is None and self.not_membership is None:
            return True
        return membership == self.membership or (
            self.not_membership is not None and membership != self.not_membership
        )


class JoinedMember(msgspec.Struct, frozen=True):
    """What is shown of a member; both keys are there even if there is nothing to show."""

    display_name: str | None = None
    avatar_url: str | None = None


class _MemberContent(msgspec.Struct, gc=False):
    membership: object = None
    displayname: object = None
    avatar_url: object = None


class _Member(msgspec.Struct, gc=False):
    content: _MemberContent


_MEMBER_EVENT: Final = msgspec.json.Decoder(_Member)


class RoomState:
    """Reads state for users."""

    def __init__(
        self,
        db: Database,
        interner: Interner,
        nodes: NodeCache,
        sight: Sight,
        presenting: Presenting,
        wholeness: Wholeness,
        clock: Clock,
    ) -> None:
        self._db = db
        self._wholeness = wholeness
        self._interner = interner
        self._nodes = nodes
        self._sight = sight
        self._presenting = presenting
        self._clock = clock

    async def list_state(self, requester: Requester, room_id: RoomID) -> list[bytes]:
        """All state events, as client events. Raises: Forbidden."""
        return await self._db.read(self._read_all, requester, room_id)

    async def get_event(self, requester: Requester, room_id: RoomID, slot: StateKey) -> bytes:
        """The event that fills a slot, as a client event. Raises: Forbidden, NotFound."""
        return await self._db.read(self._read_slot, requester, room_id, slot)

    async def get_content(self, requester: Requester, room_id: RoomID, slot: StateKey) -> bytes:
        """The content of that event. Raises: Forbidden, NotFound."""
        return bytes(raw_content(await self.get_event(requester, room_id, slot)))

    async def list_members(
        self, requester: Requester, room_id: RoomID, wanted: MemberFilter, at: str | None = None
    ) -> list[bytes]:
        """The member events of the room now, or at a point of its timeline.

        Raises: Forbidden; BadToken; LimitExceeded (they are not known yet).
        """
        await self._await_members(requester, room_id)
        until = None if at is None else parse_room_token(at) >> POSITION_SHIFT
        return await self._db.read(self._read_members, requester, room_id, wanted, until)

    async def list_joined_members(self, requester: Requester, room_id: RoomID) -> Mapping[str, JoinedMember]:
        """Who is joined, and their names. Raises: Forbidden; LimitExceeded (they are not known yet)."""
        await self._await_members(requester, room_id)
        return await self._db.read(self._read_joined, requester, room_id)

    async def _await_members(self, requester: Requester, room_id: RoomID) -> None:
        """For those who are in the room: whether it is known to others tells nothing. Raises: LimitExceeded."""
        if await self._db.read(_is_joined, room_id, requester.user_nid):
            await self._wholeness.require(room_id)

    def _read_all(self, txn: ReadTxn, requester: Requester, room_id: RoomID) -> list[bytes]:
        access = access_state(txn, self._sight, room_id, requester.user_nid)
        nids = state_map.to_dict(SnapshotNodes(txn, self._nodes), access.state_root).values()
        return self._present(txn, access, sorted(nids))

    def _read_slot(self, txn: ReadTxn, requester: Requester, room_id: RoomID, slot: StateKey) -> bytes:
        access = access_state(txn, self._sight, room_id, requester.user_nid)
        slot_nid = find_state_key_nids(txn, self._interner, (slot,)).get(slot)
        nid = None
        if slot_nid is not None:
            nid = state_map.get(SnapshotNodes(txn, self._nodes), access.state_root, slot_nid)
        if nid is None:
            raise NotFound("The room has no state of this type with this key.")
        return self._present(txn, access, [nid])[0]

    def _read_members(
        self,
        txn: ReadTxn,
        requester: Requester,
        room_id: RoomID,
        wanted: MemberFilter,
        until: int | None,
    ) -> list[bytes]:
        access = access_state(txn, self._sight, room_id, requester.user_nid)
        if until is None and access.until is None:
            nids = [
                one.event_nid
                for one in memberships.list_all_members(txn, access.room.room_nid)
                if wanted.takes(one.membership)
            ]
            return self._present(txn, access, sorted(nids))
        return self._present(
            txn,
            access,
            self._list_member_nids(txn, access, until),
            lambda record: wanted.takes(_said(record)),
        )

    def _list_member_nids(self, txn: ReadTxn, access: StateAccess, until: int | None) -> list[int]:
        """The member events of the state at a position, but of none that the user may not read."""
        if until is None or (access.until is not None and access.until <= until):
            return self._members_of(txn, access.state_root)
        room_nid = access.room.room_nid
        # A token may be of when not all members were known here.
        until = partial_rooms.find_whole(txn, room_nid, until)
        if found := self._members_of(txn, state.find_root_at(txn, room_nid, until)):
            return found
        # Or of where a timeline begins that begins with the room. Then its first members are meant: those with whom
        # this server entered, or who made it, right after the create event.
        members = (self._members_of(txn, root) for root in state.list_first_roots(txn, room_nid, 2))
        return next(filter(None, members), [])

    def _members_of(self, txn: ReadTxn, root: int) -> list[int]:
        entries = state_map.to_dict(SnapshotNodes(txn, self._nodes), root)
        slots = list_state_keys(txn, self._interner, entries.keys())
        return sorted(nid for slot_nid, nid in entries.items() if slots[slot_nid][0] == _MEMBER)

    def _read_joined(self, txn: ReadTxn, requester: Requester, room_id: RoomID) -> dict[str, JoinedMember]:
        room = access_joined(txn, room_id, requester.user_nid)
        joined = dict(memberships.list_members(txn, room.room_nid))
        user_ids = list_user_ids(txn, self._interner, joined.keys())
        records = events.list_events(txn, joined.values())
        return {user_ids[user_nid]: _shown(records[nid]) for user_nid, nid in joined.items()}

    def _present(
        self,
        txn: ReadTxn,
        access: StateAccess,
        event_nids: Sequence[int],
        takes: Callable[[EventRecord], bool] | None = None,
    ) -> list[bytes]:
        found = events.list_events(txn, event_nids)
        records = [found[nid] for nid in event_nids if takes is None or takes(found[nid])]
        now_ms = self._clock.now_ms()
        facts = self._presenting.facts(txn, records, with_replaced=False)
        return [client_event(one, NOBODY, now_ms, access.room.room_id) for one in facts]


def _is_joined(txn: ReadTxn, room_id: RoomID, user_nid: int) -> bool:
    return bool(memberships.list_joined_among(txn, user_nid, (room_id,)))


def _said(record: EventRecord) -> str:
    return memberships.parse_membership(_MEMBER_EVENT.decode(record.json).content.membership)


def _shown(record: EventRecord) -> JoinedMember:
    """No name remains of a redacted event, in any room version."""
    if record.redacted_by is not None:
        return JoinedMember()
    content = _MEMBER_EVENT.decode(record.json).content
    return JoinedMember(_text(content.displayname), _text(content.avatar_url))


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
