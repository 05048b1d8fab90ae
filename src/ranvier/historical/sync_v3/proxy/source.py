"""The source that is a proxy's database."""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import orjson

from ranvier.core.canonical_json import JsonObject
from ranvier.core.identifiers import RoomID, UserID
from ranvier.historical.sync_v3.ordering import (
    Member,
    Room,
    encode_room,
    order_members,
    order_rooms,
    read_displayname,
    read_levels,
)
from ranvier.historical.sync_v3.port import Changes, Entries, PageOf, RoomChanges, Span, Viewer, Waker
from ranvier.historical.sync_v3.proxy.storing import device_key
from ranvier.historical.sync_v3.proxy.tallies import decode_tally, shown_heroes
from ranvier.historical.sync_v3.requests import Stream
from ranvier.historical.sync_v3.sessions import UnknownSyncSession
from ranvier.services.requester import Requester
from ranvier.store.database import Kind, ReadTxn, WriteTxn
from ranvier.store.tables import sync_v3_proxy as table
from ranvier.store.tables.sync_v3_proxy import (
    ACCOUNT,
    ACTIVITY,
    HOLDS,
    JOIN,
    MEMBER,
    MEMBERSHIP,
    STATE,
    SUMMARY,
    TYPING,
    Fact,
)

MAX_ORDERED: Final = 64
"""Rooms whose members are kept in order: further pages need not sort them again."""

_TAG: Final = "m.tag"
_NAMES: Final[Mapping[str, str]] = {
    "m.room.name": "name",
    "m.room.canonical_alias": "alias",
    "m.room.avatar": "url",
    "m.room.topic": "topic",
    "m.room.encryption": "algorithm",
    "m.room.create": "type",
}
"""Type of a state event -> what of its content the list of rooms shows."""

_LISTED: Final = (MEMBERSHIP, ACTIVITY, SUMMARY, STATE, ACCOUNT)
_LISTED_TYPES: Final = ("", _TAG, *_NAMES)


def viewer_of(requester: Requester) -> Viewer:
    """Whom the upstream's token belongs to: `devices` made this requester."""
    nid = requester.user_nid
    return Viewer(requester.user_id, nid, device_key(nid), nid)


class ProxySource:
    """Implements `port.Source`."""

    def __init__(self) -> None:
        self._ordered: OrderedDict[tuple[int, str, int, str], Sequence[int]] = OrderedDict()

    def wakers(self, txn: ReadTxn, viewer: Viewer, streams: Sequence[Stream]) -> frozenset[Waker]:
        return frozenset([(Kind.USER, viewer.nid)])

    def joined_since(self, txn: ReadTxn, viewer: Viewer, room_id: RoomID) -> int | None:
        found = table.list_facts_of_room(txn, viewer.nid, room_id, MEMBERSHIP, HOLDS - 1)
        return found[0].position if found and found[0].value == JOIN else None

    def typing(self, txn: ReadTxn, viewer: Viewer, room_id: RoomID, span: Span) -> Sequence[UserID] | None:
        if self.joined_since(txn, viewer, room_id) is None:
            return None
        for fact in table.list_facts_of_room(txn, viewer.nid, room_id, TYPING, HOLDS - 1):
            users = [UserID(user) for user in orjson.loads(fact.value)]
            if users if span.since is None else fact.position > span.since:
                return users
        return None

    def to_device(
        self, txn: ReadTxn, viewer: Viewer, since: int, up_to: int, limit: int
    ) -> Sequence[tuple[int, bytes]]:
        return table.list_messages(txn, viewer.nid, since, up_to, limit)

    def delete_to_device(self, txn: WriteTxn, viewer: Viewer, up_to: int) -> None:
        table.delete_messages(txn, viewer.nid, up_to)

    def members(self, txn: ReadTxn, viewer: Viewer, room_id: RoomID, page: PageOf) -> Entries:
        if page.position < table.find_kept_from(txn, viewer.nid):
            # A token from before what another request of this session confirmed.
            raise UnknownSyncSession
        facts = table.list_facts_of_room(txn, viewer.nid, room_id, MEMBER, page.position)
        facts.sort(key=lambda fact: fact.slot.state_key)
        ordered = self._order(txn, viewer, room_id, page, facts)
        chosen = ordered[page.start : page.start + page.count]
        return Entries([facts[index].value for index in chosen], len(facts))

    def member_changes(
        self, txn: ReadTxn, viewer: Viewer, room_id: RoomID, span: Span, limit: int
    ) -> Changes:
        assert span.since is not None, "else a page is asked for"
        of_room = (txn, viewer.nid, room_id, MEMBER)
        found = table.list_changes_of_room(*of_room, span.since, span.up_to, limit + 1)
        if len(found) <= limit:
            return Changes([fact.value for fact in found], span.up_to)
        # What came together has one position, and is not parted.
        last = found[limit - 1].position
        whole = [fact for fact in found if fact.position < last]
        whole += table.list_changes_of_room(*of_room, last - 1, last, HOLDS)
        return Changes([fact.value for fact in whole], last)

    def rooms(self, txn: ReadTxn, viewer: Viewer, page: PageOf) -> Entries:
        if page.position < table.find_kept_from(txn, viewer.nid):
            raise UnknownSyncSession
        facts = table.list_facts_of_kinds(txn, viewer.nid, _LISTED, _LISTED_TYPES, page.position)
        ordered = order_rooms(_rooms(facts, viewer.user_id), page.sort)
        chosen = ordered[page.start : page.start + page.count]
        return Entries([encode_room(room) for room in chosen], len(ordered))

    def room_changes(self, txn: ReadTxn, viewer: Viewer, span: Span) -> RoomChanges:
        assert span.since is not None, "else a page is asked for"
        changed = table.list_rooms_changed(txn, viewer.nid, _LISTED, _LISTED_TYPES, span.since, span.up_to)
        if not changed:
            return RoomChanges((), ())
        facts = table.list_facts_of_kinds(txn, viewer.nid, _LISTED, _LISTED_TYPES, span.up_to)
        rooms = order_rooms(
            _rooms((fact for fact in facts if fact.slot.room_id in changed), viewer.user_id), ("by_recency",)
        )
        gone = changed - {room.room_id for room in rooms}
        return RoomChanges([encode_room(room) for room in rooms], [RoomID(one) for one in sorted(gone)])

    def account_data(
        self, txn: ReadTxn, viewer: Viewer, room_id: RoomID | None, span: Span
    ) -> Sequence[bytes]:
        found = table.list_changed_facts(txn, viewer.nid, ACCOUNT, span.since or 0, span.up_to)
        return [_account_data(fact) for fact in found if room_id is None or fact.slot.room_id == room_id]

    def _order(
        self, txn: ReadTxn, viewer: Viewer, room_id: RoomID, page: PageOf, facts: Sequence[Fact]
    ) -> Sequence[int]:
        """The places of the members among `facts`, in order."""
        key = (viewer.nid, room_id, page.position, page.sort[0])
        ordered = self._ordered.get(key)
        if ordered is None:
            members = [
                Member(fact.slot.state_key, read_displayname(fact.value), index)
                for index, fact in enumerate(facts)
            ]
            state = {
                fact.slot.type: orjson.loads(fact.value)
                for fact in table.list_facts_of_room(txn, viewer.nid, room_id, STATE, page.position)
                if fact.slot.type in ("m.room.create", "m.room.power_levels") and not fact.slot.state_key
            }
            levels = read_levels(state.get("m.room.create"), state.get("m.room.power_levels"))
            ordered = self._ordered[key] = order_members(members, page.sort[0], levels)
            while len(self._ordered) > MAX_ORDERED:
                self._ordered.popitem(last=False)
        return ordered


def _rooms(facts: Iterable[Fact], own: str) -> list[Room]:
    """The joined ones among the rooms of which facts speak."""
    by_room: dict[str, dict[tuple[str, str], Fact]] = {}
    for fact in facts:
        by_room.setdefault(fact.slot.room_id, {})[fact.slot.kind, fact.slot.type] = fact
    return [
        _room(room_id, found, own)
        for room_id, found in by_room.items()
        if MEMBERSHIP in {kind for kind, _ in found} and found[MEMBERSHIP, ""].value == JOIN
    ]


def _room(room_id: str, facts: Mapping[tuple[str, str], Fact], own: str) -> Room:
    shown = {type_: _text(_value(facts, STATE, type_).get("content"), key) for type_, key in _NAMES.items()}
    tally = decode_tally(facts[SUMMARY, ""].value if (SUMMARY, "") in facts else None)
    name, alias = shown["m.room.name"], shown["m.room.canonical_alias"]
    heroes = None if name or alias else shown_heroes(tally, own)
    activity = facts.get((ACTIVITY, ""))
    timestamp = int(orjson.loads(activity.value)) if activity is not None else 0
    tags = _value(facts, ACCOUNT, _TAG).get("tags")
    return Room(
        room_id,
        (0 if activity is None else activity.position, timestamp),
        name or alias or ", ".join(heroes or ()),
        tags if isinstance(tags, dict) else {},
        {
            "name": name,
            "canonical_alias": alias,
            "avatar_url": shown["m.room.avatar"],
            "topic": shown["m.room.topic"],
            "room_type": shown["m.room.create"],
            "encryption": shown["m.room.encryption"],
            "heroes": heroes,
            "joined_count": tally.joined,
            "invited_count": tally.invited,
            "timestamp": timestamp,
        },
    )


def _value(facts: Mapping[tuple[str, str], Fact], kind: str, type_: str = "") -> JsonObject:
    fact = facts.get((kind, type_))
    value = None if fact is None else orjson.loads(fact.value)
    return value if isinstance(value, dict) else {}


def _text(content: object, key: str) -> str | None:
    value = content.get(key) if isinstance(content, dict) else None
    return value if isinstance(value, str) and value else None


def _account_data(fact: Fact) -> bytes:
    event: dict[str, Any] = {"type": fact.slot.type, "content": orjson.Fragment(fact.value)}
    if fact.slot.room_id:
        event["room_id"] = fact.slot.room_id
    return orjson.dumps(event)
