"""This homeserver's list of a user's rooms, at any position."""

from collections.abc import Collection, Mapping
from typing import Any, Final

import orjson

from ranvier.core import state_map
from ranvier.core.identifiers import StateKey, UserID
from ranvier.historical.sync_v3.ordering import Room, encode_room, order_rooms
from ranvier.historical.sync_v3.port import Entries, PageOf, RoomChanges, Span, Viewer
from ranvier.services.sync.standing import read_standing
from ranvier.store.database import ReadTxn
from ranvier.store.tables import account_data, memberships, rooms, state
from ranvier.store.tables.events import EventRecord, list_events
from ranvier.store.tables.interned import Interner, find_state_key_nids, list_user_ids
from ranvier.store.tables.memberships import INVITE, JOIN
from ranvier.store.tables.state_nodes import NodeCache, SnapshotNodes
from ranvier.store.tables.timeline import list_newest, live_order

HEROES: Final = 5
TAG: Final = "m.tag"

_NAMES: Final[Mapping[StateKey, str]] = {
    ("m.room.name", ""): "name",
    ("m.room.canonical_alias", ""): "alias",
}


class NativeRooms:
    """Reads lists of rooms."""

    def __init__(self, interner: Interner, nodes: NodeCache) -> None:
        self._interner = interner
        self._nodes = nodes

    def page(self, txn: ReadTxn, viewer: Viewer, page: PageOf) -> Entries:
        """The rooms to which the user was joined at a position, in the order that they had then.

        Cost: some ten queries, however many rooms there are.
        """
        joined = read_standing(txn, viewer.nid, None, page.position).joined
        ordered = order_rooms(self._read(txn, viewer, joined.keys(), page.position), page.sort)
        chosen = ordered[page.start : page.start + page.count]
        return Entries([encode_room(room) for room in chosen], len(ordered))

    def changes(self, txn: ReadTxn, viewer: Viewer, span: Span) -> RoomChanges:
        """Rooms with a new event or tag, those that were joined, and those that were left."""
        assert span.since is not None, "else a page is asked for"
        joined = read_standing(txn, viewer.nid, None, span.up_to).joined
        changed = set(rooms.list_changed_rooms(txn, joined.keys(), span.since))
        data = account_data.list_account_data_changes(txn, viewer.nid, span.since, span.up_to)
        changed |= {one.room_nid for one in data if one.type == TAG and one.room_nid in joined}
        moves = memberships.list_membership_changes(txn, viewer.nid, span.since, span.up_to)
        changed |= {one.room_nid for one in moves if one.room_nid in joined}
        gone = {
            one.room_nid
            for one in moves
            if one.room_nid not in joined and JOIN in (one.previous, one.membership)
        }
        entries = order_rooms(self._read(txn, viewer, changed, span.up_to), ("by_recency",))
        ids = rooms.list_rooms(txn, gone)
        return RoomChanges(
            [encode_room(room) for room in entries], sorted(room.room_id for room in ids.values())
        )

    def _read(self, txn: ReadTxn, viewer: Viewer, room_nids: Collection[int], position: int) -> list[Room]:
        found = rooms.list_rooms(txn, room_nids)
        summaries = rooms.list_summaries(txn, room_nids)
        newest = list_newest(txn, room_nids, live_order(position + 1))
        records = list_events(txn, newest.values())
        tags = self._tags(txn, viewer, room_nids)
        names = {
            nid: {"name": one.name, "alias": one.canonical_alias} for nid, one in summaries.items()
        } | self._old_names(
            txn, [nid for nid, room in found.items() if room.newest_position > position], position
        )
        unnamed = [nid for nid in found if not any(names.get(nid, {}).values())]
        heroes = self._heroes(txn, viewer, unnamed)
        entries = []
        for nid, room in found.items():
            newest_nid, summary, name = newest.get(nid, 0), summaries.get(nid), names.get(nid, {})
            timestamp = records[newest_nid].origin_server_ts if newest_nid in records else 0
            body = {
                "name": name.get("name"),
                "canonical_alias": name.get("alias"),
                "avatar_url": summary.avatar_url if summary else None,
                "topic": summary.topic if summary else None,
                "room_type": summary.room_type if summary else None,
                "encryption": summary.encryption if summary else None,
                "heroes": heroes.get(nid),
                "joined_count": room.joined_count,
                "invited_count": room.invited_count,
                "timestamp": timestamp,
            }
            shown = name.get("name") or name.get("alias") or ", ".join(heroes.get(nid, ()))
            recency = (_order_of(records, newest_nid), timestamp)
            entries.append(Room(room.room_id, recency, shown, tags.get(nid, {}), body))
        return entries

    def _tags(self, txn: ReadTxn, viewer: Viewer, room_nids: Collection[int]) -> dict[int, Any]:
        data = account_data.list_account_data_of_rooms(txn, viewer.nid, room_nids)
        tags = {}
        for one in data:
            content = orjson.loads(one.content) if one.type == TAG and one.content else None
            if isinstance(content, dict) and isinstance(content.get("tags"), dict):
                tags[one.room_nid] = content["tags"]
        return tags

    def _old_names(
        self, txn: ReadTxn, room_nids: Collection[int], position: int
    ) -> dict[int, dict[str, str | None]]:
        """What rooms were called at a position, of which a summary tells only what they are called now."""
        if not room_nids:
            return {}
        slots = find_state_key_nids(txn, self._interner, list(_NAMES))
        roots = state.list_roots_at(txn, room_nids, position)
        nodes = SnapshotNodes(txn, self._nodes)
        entries = {nid: state_map.get_many(nodes, root, slots.values()) for nid, root in roots.items()}
        records = list_events(txn, {nid for found in entries.values() for nid in found.values()})
        names: dict[int, dict[str, str | None]] = {}
        for room_nid, found in entries.items():
            names[room_nid] = {}
            for slot, key in _NAMES.items():
                record = records.get(found.get(slots.get(slot, 0), 0))
                if record is not None and record.redacted_by is None:
                    value = orjson.loads(record.json)["content"].get(key)
                    names[room_nid][key] = value if isinstance(value, str) else None
        return names

    def _heroes(self, txn: ReadTxn, viewer: Viewer, room_nids: Collection[int]) -> dict[int, list[UserID]]:
        """After whom a client may name rooms that have no name.

        Spec: client-server API, "Calculating the display name for a room".
        """
        if not room_nids:
            return {}
        members: dict[int, list[tuple[int, int]]] = {nid: [] for nid in room_nids}
        for membership in (JOIN, INVITE):
            for nid, found in memberships.list_first_members(txn, room_nids, membership, HEROES + 1).items():
                members[nid] += found
        user_ids = list_user_ids(txn, self._interner, {one for found in members.values() for one, _ in found})
        return {
            nid: [
                user_ids[user_nid]
                for user_nid, _ in sorted(found, key=lambda pair: pair[1])
                if user_nid != viewer.nid
            ][:HEROES]
            for nid, found in members.items()
        }


def _order_of(records: Mapping[int, EventRecord], event_nid: int) -> int:
    """When the event came, by its place in the timeline."""
    record = records.get(event_nid)
    return 0 if record is None or record.room_order is None else record.room_order
