"""Which events of a room another server may have in full: the rules of `core.visibility`, on what is stored.

In most rooms history is shared, and whoever is in the room now may see all of it: that costs one look for each
distinct state. Only where it is not do the memberships of the server's users at each event matter.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Final

from ranvier.core import state_map
from ranvier.core.canonical_json import encode, parse_object
from ranvier.core.events.redact import redact
from ranvier.core.identifiers import ServerName, StateKey, server_of
from ranvier.core.room_versions import RoomVersion, get_room_version
from ranvier.core.visibility import (
    HistoryVisibility,
    ServerSight,
    can_server_see,
    needs_memberships,
    parse_history_visibility,
)
from ranvier.services.rooms.live import pdu_of
from ranvier.store.database import ReadTxn
from ranvier.store.tables import events, memberships, partial_rooms
from ranvier.store.tables.events import EventRecord
from ranvier.store.tables.interned import (
    Interner,
    find_server_nids,
    find_state_key_nids,
    list_state_keys,
    list_user_ids,
)
from ranvier.store.tables.rooms import Room
from ranvier.store.tables.state_nodes import NodeCache, SnapshotNodes

_VISIBILITY: Final[StateKey] = ("m.room.history_visibility", "")
_JOINED: Final = frozenset((memberships.JOIN,))


class ServerSights:
    """What servers see. Its functions run in read transactions, on any thread."""

    def __init__(self, interner: Interner, nodes: NodeCache) -> None:
        self._interner = interner
        self._nodes = nodes

    def visible(
        self, txn: ReadTxn, origin: ServerName, room: Room, records: Collection[EventRecord]
    ) -> set[int]:
        """The event_nids of those that a server, which is in the room now, may have in full.

        Outliers, of which no state is known here, are state events that others need to authorize the room's
        events: every server in the room may have them.
        Cost: 1 query besides state nodes; where history is not shared, 4 or so.
        """
        shown = self._list_visibilities(txn, room, records)
        placed = [record for record in records if record.state_root is not None]
        # Messages of which none is known are of a stay that ended before this server knew the room's members.
        seen = {
            record.event_nid
            for record in records
            if record.state_root is None and record.state_key_nid is not None
        }
        if not needs_memberships(shown.values()):
            return seen | {record.event_nid for record in placed}
        at = self._list_memberships(txn, origin, room, placed)
        slot = find_state_key_nids(txn, self._interner, (_VISIBILITY,)).get(_VISIBILITY, -1)
        own = self._list_own(txn, origin, placed)
        for record in placed:
            root = record.state_root
            assert root is not None, "outliers were left out above"
            before = shown[root]
            is_change = record.state_key_nid == slot
            sight = ServerSight(
                _set_by(record, room) if is_change else before,
                at[root],
                True,
                before if is_change else None,
                record.event_nid in own,
            )
            if can_server_see(sight):
                seen.add(record.event_nid)
        return seen

    def was_joined(self, txn: ReadTxn, server: ServerName, room: Room, record: EventRecord) -> bool:
        """Whether any of the server's users was joined just before an event."""
        at = self._list_memberships(txn, server, room, (record,))
        return record.state_root is not None and "join" in at[record.state_root]

    def list_moved(self, txn: ReadTxn, room: Room, records: Iterable[EventRecord]) -> dict[int, ServerName]:
        """The servers (by server_nid) of users whose membership changed between the states before these events of a
        room and now: all others were in the room then as they are now. Cost: nothing where the state did not change.
        """
        return self.list_moved_since(
            txn, room, [record.state_root for record in records if record.state_root is not None]
        )

    def list_moved_since(self, txn: ReadTxn, room: Room, roots: Sequence[int]) -> dict[int, ServerName]:
        """The same, between states, by their roots, and now."""
        reader = SnapshotNodes(txn, self._nodes)
        slots = {
            slot
            for one, other in pairwise((*roots, room.state_root))
            if one != other
            for slot in state_map.difference(reader, (one, other))
        }
        keys = list_state_keys(txn, self._interner, slots).values()
        names = {ServerName(key.partition(":")[2]) for kind, key in keys if kind == "m.room.member"}
        names.discard(self._interner.own_server)
        nids = find_server_nids(txn, self._interner, names)
        return {nid: name for name, nid in nids.items()}

    def concerns(self, txn: ReadTxn, server: ServerName, room: Room, record: EventRecord) -> bool:
        """The same, or whether one of the server's users is the subject of the event."""
        return self.was_joined(txn, server, room, record) or record.event_nid in self._list_own(
            txn, server, (record,)
        )

    def _list_visibilities(
        self, txn: ReadTxn, room: Room, records: Iterable[EventRecord]
    ) -> dict[int, HistoryVisibility]:
        """State root -> the history visibility there."""
        roots = {record.state_root for record in records if record.state_root is not None}
        slot = find_state_key_nids(txn, self._interner, (_VISIBILITY,)).get(_VISIBILITY)
        if slot is None:
            return dict.fromkeys(roots, parse_history_visibility(None))
        reader = SnapshotNodes(txn, self._nodes)
        set_by = {root: state_map.get(reader, root, slot) for root in roots}
        stored = events.list_events(txn, {nid for nid in set_by.values() if nid is not None})
        said = {nid: _set_by(record, room) for nid, record in stored.items()}
        return {
            root: parse_history_visibility(None) if nid is None else said[nid] for root, nid in set_by.items()
        }

    def _list_memberships(
        self, txn: ReadTxn, origin: ServerName, room: Room, records: Iterable[EventRecord]
    ) -> dict[int, frozenset[str]]:
        """State root -> the memberships that the server's users have there.

        States of one page differ little, so all but the first are read as differences to it.
        """
        server_nid = find_server_nids(txn, self._interner, (origin,))[origin]
        held = self._list_held(txn, server_nid, room, records)
        users = memberships.list_users_of_server(txn, room.room_nid, server_nid)
        keys: list[StateKey] = [("m.room.member", user_id) for user_id in users]
        slots = set(find_state_key_nids(txn, self._interner, keys).values())
        reader = SnapshotNodes(txn, self._nodes)
        roots = list({record.state_root for record in records if record.state_root is not None})
        if not roots:
            return {}
        first = state_map.get_many(reader, roots[0], slots)
        states = {roots[0]: first}
        for root in roots[1:]:
            state = dict(first)
            for slot, (_, nid) in state_map.difference(reader, (roots[0], root)).items():
                if slot not in slots:
                    continue
                if nid is None:
                    state.pop(slot, None)
                else:
                    state[slot] = nid
            states[root] = state
        said = memberships.list_stored_memberships(
            txn, {nid for state in states.values() for nid in state.values()}
        )
        return {
            root: frozenset(said[nid] for nid in state.values()) | (_JOINED if root in held else frozenset())
            for root, state in states.items()
        }

    def _list_held(
        self, txn: ReadTxn, server_nid: int, room: Room, records: Iterable[EventRecord]
    ) -> set[int | None]:
        """The states of a room whose members are not all known here in which the server is, as we were told."""
        partial = partial_rooms.find(txn, room.room_nid) if room.is_partial else None
        if partial is None or server_nid not in partial.server_nids:
            return set()
        return {record.state_root for record in records if record.event_nid >= partial.join_nid}

    def _list_own(self, txn: ReadTxn, origin: ServerName, records: Iterable[EventRecord]) -> set[int]:
        """Events that the server's users sent, or that set the membership of one."""
        kept = list(records)
        senders = list_user_ids(txn, self._interner, {record.sender_nid for record in kept})
        slots = {record.state_key_nid for record in kept if record.type == "m.room.member"}
        targets = list_state_keys(txn, self._interner, [slot for slot in slots if slot is not None])
        own: set[int] = set()
        for record in kept:
            target = targets.get(record.state_key_nid or 0)
            if server_of(senders[record.sender_nid]) == origin or (
                target is not None and target[1].endswith(f":{origin}")
            ):
                own.add(record.event_nid)
        return own


def wire_form(record: EventRecord, version: RoomVersion, *, in_full: bool = True) -> bytes:
    """The event as it goes to another server: as it was signed, or what a redaction leaves of it if it was
    redacted, or if the server may not have it in full."""
    if in_full and record.redacted_by is None:
        return record.json
    return encode(redact(parse_object(record.json), version))


def wire_forms(
    records: Iterable[EventRecord], version: RoomVersion, seen: Collection[int] | None = None
) -> list[bytes]:
    """The same for many events; `seen` are the event_nids of those that may be had in full (None: all)."""
    return [
        wire_form(record, version, in_full=seen is None or record.event_nid in seen) for record in records
    ]


def _set_by(record: EventRecord, room: Room) -> HistoryVisibility:
    content: Mapping[str, object] = pdu_of(record, room.room_id, get_room_version(room.version)).content
    return parse_history_visibility(content)
