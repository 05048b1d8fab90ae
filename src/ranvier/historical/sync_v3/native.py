"""The source that is this homeserver: its own rooms, messages and account data."""

from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import Final

import orjson

from ranvier.core import state_map
from ranvier.core.canonical_json import JsonObject
from ranvier.core.identifiers import RoomID, StateKey, UserID
from ranvier.historical.sync_v3.native_rooms import NativeRooms
from ranvier.historical.sync_v3.ordering import Member, order_members, read_displayname, read_levels
from ranvier.historical.sync_v3.port import Changes, Entries, PageOf, RoomChanges, Span, Viewer, Waker
from ranvier.historical.sync_v3.requests import ROOMS, Stream
from ranvier.historical.sync_v3.sessions import device_key
from ranvier.io.clock import Clock
from ranvier.services.devices.to_device import encode_message
from ranvier.services.push.rules import read_push_rules
from ranvier.services.requester import Requester
from ranvier.services.rooms.presenting import NOBODY, Presenting, client_event
from ranvier.store.database import Kind, ReadTxn, WriteTxn
from ranvier.store.tables import account_data, memberships, rooms, state, to_device, typing
from ranvier.store.tables.events import EventRecord, list_events
from ranvier.store.tables.interned import Interner, find_state_key_nids, list_state_keys, list_user_ids
from ranvier.store.tables.state_nodes import NodeCache, SnapshotNodes

MAX_ORDERED: Final = 64
"""States whose members are kept in order: further pages need not sort them again."""

DELETED_AT_ONCE: Final = 10_000

_MEMBER: Final = "m.room.member"
_CREATE: Final[StateKey] = ("m.room.create", "")
_POWER_LEVELS: Final[StateKey] = ("m.room.power_levels", "")
_PUSH_RULES: Final = "m.push_rules"


def viewer_of(requester: Requester) -> Viewer:
    """A client of this server."""
    device = device_key(requester.user_nid, requester.device_nid)
    return Viewer(requester.user_id, requester.user_nid, device, requester.device_nid)


class NativeSource:
    """Implements `port.Source`."""

    def __init__(self, interner: Interner, nodes: NodeCache, presenting: Presenting, clock: Clock) -> None:
        self._interner = interner
        self._nodes = nodes
        self._presenting = presenting
        self._clock = clock
        self._rooms = NativeRooms(interner, nodes)
        self._ordered: OrderedDict[tuple[int, str], Sequence[int]] = OrderedDict()

    def wakers(self, txn: ReadTxn, viewer: Viewer, streams: Sequence[Stream]) -> frozenset[Waker]:
        room_ids = {stream.room_id for stream in streams if stream.room_id is not None}
        nids = {room.room_nid for room in rooms.list_rooms_by_id(txn, room_ids).values()}
        if any(stream.name == ROOMS for stream in streams):
            nids |= {one.room_nid for one in memberships.list_rooms_of_user(txn, viewer.nid)}
        return frozenset([(Kind.USER, viewer.nid), *((Kind.ROOM, nid) for nid in nids)])

    def joined_since(self, txn: ReadTxn, viewer: Viewer, room_id: RoomID) -> int | None:
        found = self._joined(txn, viewer, room_id)
        return None if found is None else found[1]

    def typing(self, txn: ReadTxn, viewer: Viewer, room_id: RoomID, span: Span) -> Sequence[UserID] | None:
        found = self._joined(txn, viewer, room_id)
        if found is None:
            return None
        nid, _ = found
        if span.since is not None and not typing.list_rooms_typing_changed(
            txn, [nid], span.since, span.up_to
        ):
            return None
        user_nids = typing.list_typing(txn, [nid])[nid]
        if span.since is None and not user_nids:
            return None
        names = list_user_ids(txn, self._interner, user_nids)
        return [names[user_nid] for user_nid in user_nids]

    def to_device(
        self, txn: ReadTxn, viewer: Viewer, since: int, up_to: int, limit: int
    ) -> Sequence[tuple[int, bytes]]:
        if viewer.device_nid is None:
            return ()
        found = to_device.list_messages(txn, viewer.device_nid, since, up_to, limit)
        return [(message.position, encode_message(message)) for message in found]

    def delete_to_device(self, txn: WriteTxn, viewer: Viewer, up_to: int) -> None:
        if viewer.device_nid is not None:
            to_device.delete_acknowledged(txn, viewer.device_nid, up_to, DELETED_AT_ONCE)

    def members(self, txn: ReadTxn, viewer: Viewer, room_id: RoomID, page: PageOf) -> Entries:
        room = rooms.find_room(txn, room_id)
        assert room is not None, "the viewer is joined to it"
        root = state.find_root_at(txn, room.room_nid, page.position)
        ordered = self._order(txn, root, page.sort[0])
        chosen = ordered[page.start : page.start + page.count]
        return Entries(self._present(txn, room_id, chosen), len(ordered))

    def member_changes(
        self, txn: ReadTxn, viewer: Viewer, room_id: RoomID, span: Span, limit: int
    ) -> Changes:
        """What the state of the room has now and had not then. Where state resolution brought back an older
        event, that comes first."""
        room = rooms.find_room(txn, room_id)
        assert room is not None, "the viewer is joined to it"
        assert span.since is not None, "else a page is asked for"
        roots = [state.find_root_at(txn, room.room_nid, at) for at in (span.since, span.up_to)]
        if roots[0] == roots[1]:
            return Changes((), span.up_to)
        differences = state_map.difference(SnapshotNodes(txn, self._nodes), roots)
        slots = list_state_keys(txn, self._interner, differences)
        nids = sorted(
            new for slot, (_, new) in differences.items() if new is not None and slots[slot][0] == _MEMBER
        )
        # Older ones than the span have no position to stop at: they go together.
        count = max(limit, 1 + sum(nid <= span.since for nid in nids))
        up_to = span.up_to if len(nids) <= count else nids[count] - 1
        return Changes(self._present(txn, room_id, nids[:count]), up_to)

    def rooms(self, txn: ReadTxn, viewer: Viewer, page: PageOf) -> Entries:
        return self._rooms.page(txn, viewer, page)

    def room_changes(self, txn: ReadTxn, viewer: Viewer, span: Span) -> RoomChanges:
        return self._rooms.changes(txn, viewer, span)

    def account_data(
        self, txn: ReadTxn, viewer: Viewer, room_id: RoomID | None, span: Span
    ) -> Sequence[bytes]:
        if span.since is None:
            found = account_data.list_account_data(txn, viewer.nid, span.up_to)
        else:
            found = account_data.list_account_data_changes(txn, viewer.nid, span.since, span.up_to)
        if room_id is None:
            rules = read_push_rules(txn, viewer.nid, viewer.user_id, span.since or 0)
            if rules is not None:
                found = [
                    *found,
                    account_data.AccountData(account_data.GLOBAL, _PUSH_RULES, rules, span.up_to),
                ]
        ids = {
            nid: one.room_id for nid, one in rooms.list_rooms(txn, {one.room_nid for one in found}).items()
        }
        return [
            _account_data(one, ids.get(one.room_nid))
            for one in found
            if room_id is None or ids.get(one.room_nid) == room_id
        ]

    def _joined(self, txn: ReadTxn, viewer: Viewer, room_id: RoomID) -> tuple[int, int] | None:
        """The room's number and since when the viewer is joined to it."""
        room = rooms.find_room(txn, room_id)
        if room is None:
            return None
        found = memberships.find_membership(txn, room.room_nid, viewer.nid)
        if found is None or found.membership != memberships.JOIN:
            return None
        return room.room_nid, found.position

    def _order(self, txn: ReadTxn, root: int, sort: str) -> Sequence[int]:
        """The member events of a state, in order. Cost follows the room's size, once for each state."""
        ordered = self._ordered.get((root, sort))
        if ordered is None:
            ordered = self._sort(txn, root, sort)
            self._ordered[root, sort] = ordered
            while len(self._ordered) > MAX_ORDERED:
                self._ordered.popitem(last=False)
        return ordered

    def _sort(self, txn: ReadTxn, root: int, sort: str) -> Sequence[int]:
        entries = state_map.to_dict(SnapshotNodes(txn, self._nodes), root)
        slots = list_state_keys(txn, self._interner, entries)
        users = {nid: slots[slot][1] for slot, nid in entries.items() if slots[slot][0] == _MEMBER}
        records = list_events(txn, users)
        members = [Member(users[nid], _displayname(record), nid) for nid, record in records.items()]
        known = find_state_key_nids(txn, self._interner, (_CREATE, _POWER_LEVELS))
        create, levels = (
            self._event(txn, entries.get(known.get(slot, 0))) for slot in (_CREATE, _POWER_LEVELS)
        )
        return order_members(members, sort, read_levels(create, levels))

    def _event(self, txn: ReadTxn, event_nid: int | None) -> JsonObject | None:
        """An event as clients see it."""
        if event_nid is None:
            return None
        (record,) = list_events(txn, (event_nid,)).values()
        (facts,) = self._presenting.facts(txn, [record], with_replaced=False)
        event: JsonObject = orjson.loads(client_event(facts, NOBODY, 0))
        return event

    def _present(self, txn: ReadTxn, room_id: RoomID, nids: Collection[int]) -> list[bytes]:
        found = list_events(txn, nids)
        facts = self._presenting.facts(txn, [found[nid] for nid in nids], with_replaced=False)
        now_ms = self._clock.now_ms()
        return [client_event(one, NOBODY, now_ms, room_id) for one in facts]


def _displayname(record: EventRecord) -> object:
    return None if record.redacted_by is not None else read_displayname(record.json)


def _account_data(one: account_data.AccountData, room_id: RoomID | None) -> bytes:
    content = one.content or b"{}"
    if room_id is None:
        return b'{"type":%b,"content":%b}' % (orjson.dumps(one.type), content)
    return b'{"type":%b,"room_id":%b,"content":%b}' % (
        orjson.dumps(one.type),
        orjson.dumps(room_id),
        content,
    )
